// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store in memory: MINIX's RAM disk. It takes memory for what was written, and is gone with its process.

use super::{OpenError, Operation, Safety, Shape, Store, StoreError};
use std::collections::BTreeMap;

/// Memory is taken in pieces of this many bytes.
pub const CHUNK_BYTES: usize = 1 << 16;

/// Blocks in memory.
#[derive(Debug)]
pub struct MemoryStore {
    shape: Shape,
    /// By number; those that are missing are zeros.
    chunks: BTreeMap<u64, Box<[u8]>>,
}

impl MemoryStore {
    /// A store of zeros, which takes no memory yet.
    ///
    /// # Errors
    /// [`OpenError::Shape`]: it cannot have so many bytes in such blocks.
    pub fn new(bytes: u64, block_bytes: u32) -> Result<Self, OpenError> {
        let is_block =
            block_bytes.is_power_of_two() && (512..=CHUNK_BYTES as u32).contains(&block_bytes);
        if !is_block || bytes == 0 || bytes % u64::from(block_bytes) != 0 {
            return Err(OpenError::Shape { bytes, block_bytes });
        }
        Ok(Self { shape: Shape { bytes, block_bytes, writable: true }, chunks: BTreeMap::new() })
    }

    /// How many bytes of memory its blocks take.
    pub fn memory_bytes(&self) -> usize {
        self.chunks.len() * CHUNK_BYTES
    }
}

/// The pieces of a range that lie in one chunk each: number of the chunk, where in it, how many bytes.
fn pieces(position: u64, bytes: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = position + bytes;
    let mut at = position;
    core::iter::from_fn(move || {
        let offset = (at % CHUNK_BYTES as u64) as usize;
        let length = ((CHUNK_BYTES - offset) as u64).min(end - at) as usize;
        let piece = (at / CHUNK_BYTES as u64, offset, length);
        at += length as u64;
        (length != 0).then_some(piece)
    })
}

fn new_chunk() -> Result<Box<[u8]>, StoreError> {
    let mut chunk = Vec::new();
    chunk
        .try_reserve_exact(CHUNK_BYTES)
        .map_err(|_| StoreError::NoMemory { bytes: CHUNK_BYTES })?;
    chunk.resize(CHUNK_BYTES, 0);
    Ok(chunk.into_boxed_slice())
}

impl Store for MemoryStore {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn lasts(&self) -> bool {
        false
    }

    fn read(&self, position: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.shape.check(Operation::Read, position, into.len() as u64)?;
        let mut rest = into;
        for (number, offset, length) in pieces(position, rest.len() as u64) {
            let (piece, after) = rest.split_at_mut(length);
            match self.chunks.get(&number) {
                Some(chunk) => piece.copy_from_slice(&chunk[offset..offset + length]),
                None => piece.fill(0),
            }
            rest = after;
        }
        Ok(())
    }

    fn write(&mut self, position: u64, from: &[u8], _: Safety) -> Result<(), StoreError> {
        self.shape.check(Operation::Write, position, from.len() as u64)?;
        let mut rest = from;
        for (number, offset, length) in pieces(position, from.len() as u64) {
            let (piece, after) = rest.split_at(length);
            let chunk = match self.chunks.entry(number) {
                std::collections::btree_map::Entry::Occupied(chunk) => chunk.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => place.insert(new_chunk()?),
            };
            chunk[offset..offset + length].copy_from_slice(piece);
            rest = after;
        }
        Ok(())
    }

    fn zero(&mut self, position: u64, bytes: u64) -> Result<(), StoreError> {
        self.shape.check(Operation::Zero, position, bytes)?;
        // The range may be much longer than what was written of it.
        let first = position / CHUNK_BYTES as u64;
        let last = (position + bytes - 1) / CHUNK_BYTES as u64;
        let there: Vec<_> = self.chunks.range(first..=last).map(|(&number, _)| number).collect();
        for number in there {
            let begin = number * CHUNK_BYTES as u64;
            let offset = position.saturating_sub(begin) as usize;
            let length = (position + bytes - begin).min(CHUNK_BYTES as u64) as usize - offset;
            if length == CHUNK_BYTES {
                self.chunks.remove(&number);
            } else if let Some(chunk) = self.chunks.get_mut(&number) {
                chunk[offset..offset + length].fill(0);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
