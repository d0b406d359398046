// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod console;
mod facts;
mod field;
mod install;
mod keys;
mod network;
mod page;
mod paint;
mod screen;
mod status;

pub use console::{Action, Console, Outcome};
pub use facts::{Facts, Interface, Purpose, Silence};
pub use keys::{Key, Keys};
pub use paint::Painter;
pub use screen::{Line, Screen, Size, Style};
