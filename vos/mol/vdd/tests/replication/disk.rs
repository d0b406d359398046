// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of a simulated node: what is on it, and what is only in the memory of its machine.

use crate::chance::Chance;
use mol_vdd::replica::{Boot, Change, Contents, Record, Sum};
use mol_vdd::store::Safety;

/// Bytes of a block here: one number.
pub(crate) const BLOCK: u64 = 8;

/// How the server of a disk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Only the process.
    Process,
    /// The machine loses power.
    Power,
    /// And the disk is replaced.
    Disk,
}

#[derive(Clone)]
pub(crate) struct Disk {
    /// Whether it is one, and not memory of the server.
    lasts: bool,
    blocks: Vec<u64>,
    stable: Vec<u64>,
    pub(crate) record: Record,
    pub(crate) boot: Boot,
}

impl Disk {
    pub(crate) fn new(lasts: bool, blocks: usize) -> Self {
        let zeros = vec![0; blocks];
        Self { lasts, blocks: zeros.clone(), stable: zeros, record: Record::default(), boot: 1 }
    }

    /// Whether what was written survives such an end.
    pub(crate) fn survives(&self, end: End) -> bool {
        self.lasts && end == End::Process
    }

    pub(crate) fn contents(&self) -> Contents {
        self.record.contents(self.boot)
    }

    pub(crate) fn end(&mut self, end: End, chance: &mut Chance) {
        if !self.lasts || end == End::Disk {
            *self = Self { boot: self.boot + 1, ..Self::new(self.lasts, self.blocks.len()) };
        } else if end == End::Power {
            // What was not flushed may be on the disk or not, block by block.
            for (block, stable) in self.blocks.iter_mut().zip(&mut self.stable) {
                match chance.permille(500) {
                    true => *block = *stable,
                    false => *stable = *block,
                }
            }
            self.boot += 1;
        }
    }

    pub(crate) fn read(&self, position: u64, bytes: u64) -> Vec<u64> {
        self.blocks[(position / BLOCK) as usize..((position + bytes) / BLOCK) as usize].to_vec()
    }

    pub(crate) fn bytes(&self, position: u64, bytes: u64) -> Vec<u8> {
        self.read(position, bytes).iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    pub(crate) fn change(&mut self, change: &Change) {
        let (position, _) = change.range();
        let first = (position / BLOCK) as usize;
        match change {
            Change::Write { data, safety, .. } => {
                for (index, value) in data.chunks_exact(BLOCK as usize).enumerate() {
                    self.blocks[first + index] = u64::from_le_bytes(value.try_into().unwrap());
                    if *safety == Safety::AtOnce {
                        self.stable[first + index] = self.blocks[first + index];
                    }
                }
            }
            Change::Zero { bytes, .. } => {
                self.blocks[first..first + (bytes / BLOCK) as usize].fill(0)
            }
        }
    }

    pub(crate) fn flush(&mut self) {
        self.stable.clone_from(&self.blocks);
    }

    /// Blocks go bad.
    pub(crate) fn spoil(&mut self, block: usize) {
        self.blocks[block] ^= 1 << 63;
    }

    pub(crate) fn sum(&self, position: u64, bytes: u64) -> Sum {
        let mut sum = 0xcbf2_9ce4_8422_2325_u128;
        for value in self.read(position, bytes) {
            sum = (sum ^ u128::from(value)).wrapping_mul(0x0100_0000_01b3);
        }
        sum.to_le_bytes()
    }
}
