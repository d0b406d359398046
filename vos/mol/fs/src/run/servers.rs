// SPDX-License-Identifier: MIT OR Apache-2.0
//! How servers are found.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use dvk::{Endpoint, Port, Timeout};
use dvk_services::{role, Client};
use std::time::Instant;

/// How long it is waited before somebody is looked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// How a server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// In this slot, on this node.
    Slot(u32),
    /// The one that serves for this group, on any node.
    Group(String),
}

/// Why no server is found.
#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    /// None has bound the slot.
    #[error("no server binds slot {slot} on this node: {error}")]
    Slot {
        /// The slot.
        slot: u32,
        /// What the DVK says.
        error: dvk::Error,
    },
    /// The services cannot be asked.
    #[error("cannot ask who serves for group `{group}`: {error}")]
    Services {
        /// The group.
        group: String,
        /// What they say.
        error: dvk_services::Error,
    },
    /// Nobody serves.
    #[error("no server serves for group `{group}`, after {} s: is one started with --group {group}?", .waited.as_secs())]
    Nobody {
        /// The group.
        group: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl FromStr for Servers {
    type Err = &'static str;

    /// A number is a slot, anything else a group.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(slot @ 0..63) => Ok(Self::Slot(slot)),
            Ok(_) => Err("a server has a slot from 0 to 62"),
            Err(_) if is_label(text) => Ok(Self::Group(text.to_owned())),
            Err(_) => {
                Err("write a slot, or the name of a group: letters, digits, `-`, `_` and `.`")
            }
        }
    }
}

impl fmt::Display for Servers {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(slot) => slot.fmt(f),
            Self::Group(group) => f.write_str(group),
        }
    }
}

/// Whether disks or groups may have this name.
pub fn is_label(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The role that file servers of a group want.
pub fn role(group: &str) -> String {
    format!("mol-fs/{group}")
}

impl Servers {
    /// Finds the file server, and waits for it at most so long.
    ///
    /// # Errors
    /// [`ServersError`].
    pub fn find(&self, port: &Port, patience: Duration) -> Result<Endpoint, ServersError> {
        let group = match self {
            Self::Slot(slot) => {
                let failed = |error| ServersError::Slot { slot: *slot, error };
                return port.wait_bind(*slot, Timeout::After(patience)).map_err(failed);
            }
            Self::Group(group) => group,
        };
        let deadline = Instant::now() + patience;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let until = || deadline.saturating_duration_since(Instant::now()).into();
            let asked = Client::find(port, Timeout::After(rest))
                .and_then(|client| role::find(&client.within(until()), &role(group)));
            match asked {
                Ok(Some(server)) => return Ok(server),
                _ if Instant::now() < deadline => std::thread::sleep(PAUSE.min(rest)),
                Ok(None) => {
                    return Err(ServersError::Nobody { group: group.clone(), waited: patience })
                }
                Err(error) => return Err(ServersError::Services { group: group.clone(), error }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_slots_and_names_are_groups() {
        assert_eq!("7".parse(), Ok(Servers::Slot(7)));
        assert_eq!("files.2".parse(), Ok(Servers::Group("files.2".to_owned())));
        for text in ["7", "files.2"] {
            assert_eq!(text.parse::<Servers>().unwrap().to_string(), text);
        }
        for none in ["63", "4000000000", "", "a/b", "a b", &"a".repeat(65)] {
            assert!(none.parse::<Servers>().is_err(), "{none}");
        }
    }
}
