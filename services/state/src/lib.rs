// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod barriers;
mod command;
pub mod containers;
pub mod elections;
pub mod events;
pub mod groups;
pub mod images;
pub mod kv;
pub mod leases;
pub mod lifecycle;
pub mod line;
pub mod links;
pub mod locks;
pub mod nodes;
mod refusal;
mod state;
mod tickets;
mod time;
pub mod tokens;
pub mod upgrades;

pub use command::{Answer, Command, Entry, Outcome, VERSION};
pub use refusal::{Refusal, Thing};
pub use state::{Identity, SnapshotError, State};
pub use tickets::Tickets;
pub use time::Time;

/// Most bytes of a name.
pub const NAME_BYTES_MAX: usize = 256;
/// Most bytes of what something says of itself.
pub const LABEL_BYTES_MAX: usize = 256;

/// Names are for people and stand in tables and paths: no control characters, and at least one other.
fn check_name(whose: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Refusal::Invalid(format!(
            "{name:?} cannot be the name of {whose}; use one or more printable characters"
        )));
    }
    match name.len() <= NAME_BYTES_MAX {
        true => Ok(()),
        false => Err(Refusal::limit(format!("bytes of the name of {whose}"), NAME_BYTES_MAX)),
    }
}

fn check_label(what: &str, label: &str) -> Result<(), Refusal> {
    match label.len() <= LABEL_BYTES_MAX {
        true => Ok(()),
        false => Err(Refusal::limit(format!("bytes of {what}"), LABEL_BYTES_MAX)),
    }
}
