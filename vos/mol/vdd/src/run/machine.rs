// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that Linux draws: of this run of the machine, and new ones.

use crate::ledger::Identity;
use crate::replica::Boot;
use std::path::Path;

/// Why a number is not known.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}; a server of replicas needs /proc")]
    Read {
        /// The file.
        path: &'static str,
        /// What Linux says.
        error: std::io::Error,
    },
    /// It has something else.
    #[error("{path} has `{text}`, which is no number of this form")]
    Form {
        /// The file.
        path: &'static str,
        /// What it has.
        text: String,
    },
}

/// The run of this machine.
pub(super) fn boot() -> Result<Boot, MachineError> {
    number_in("/proc/sys/kernel/random/boot_id")
}

/// An identity that no device has.
pub(super) fn identity() -> Result<Identity, MachineError> {
    number_in("/proc/sys/kernel/random/uuid")
}

fn number_in(path: &'static str) -> Result<u128, MachineError> {
    let text = std::fs::read_to_string(Path::new(path))
        .map_err(|error| MachineError::Read { path, error })?;
    read_uuid(text.trim()).ok_or(MachineError::Form { path, text })
}

fn read_uuid(text: &str) -> Option<u128> {
    let digits: String = text.split('-').collect();
    let is_one = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(&digits, 16).ok().filter(|_| is_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_linux() {
        assert_eq!(read_uuid("00000000-0000-0000-0000-0000000001ff"), Some(0x1ff));
        assert_eq!(read_uuid("1ff"), None);
        assert_eq!(read_uuid("+0000000-0000-0000-0000-0000000001ff"), None);
        assert_eq!(boot().unwrap(), boot().unwrap());
        assert_ne!(identity().unwrap(), identity().unwrap());
    }
}
