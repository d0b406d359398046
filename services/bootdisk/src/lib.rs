// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod boot_disk;
pub mod configuration;
pub mod firmware;
pub mod install;
pub mod layout;
pub mod medium;
pub mod volume;
mod wipe;

pub use boot_disk::{BootDisk, Error, Listed};
