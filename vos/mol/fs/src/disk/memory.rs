// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk in memory.

use super::{has_range, Attempt, Disk, DiskError};

/// A disk that is gone with the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    content: Vec<u8>,
}

impl Memory {
    /// A disk of zeros.
    pub fn new(bytes: usize) -> Self {
        Self { content: vec![0; bytes] }
    }

    /// What is on it.
    pub fn content(&self) -> &[u8] {
        &self.content
    }
}

impl From<Vec<u8>> for Memory {
    fn from(content: Vec<u8>) -> Self {
        Self { content }
    }
}

impl Disk for Memory {
    fn bytes(&self) -> u64 {
        self.content.len() as u64
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        if !has_range(self.bytes(), position, into.len()) {
            return Err(DiskError::beyond(Attempt::Read, position, into.len(), self.bytes()));
        }
        into.copy_from_slice(&self.content[position as usize..][..into.len()]);
        Ok(())
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        if !has_range(self.bytes(), position, from.len()) {
            return Err(DiskError::beyond(Attempt::Write, position, from.len(), self.bytes()));
        }
        self.content[position as usize..][..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
