// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record of a replica on the disk that has its blocks.
//!
//! The last bytes of the store are two places for it, which are written in turn, so that one of them is whole whenever the power
//! goes. They are of the same disk as the blocks, so whatever becomes of the disk becomes of both: a record is neither lost
//! without the blocks nor older than they are. A store in memory has none.
//!
//! A place begins with a checksum of what follows (32 bytes, SHA-256), then the number of the writing (8), the device (16), how many
//! bytes the record has (4), and the record as [`Record::encode`] makes it.

use crate::replica::{Record, Regions};
use crate::store::{Safety, Shape, Store, StoreError};
use sha2::{Digest, Sha256};

/// How many bytes a place has, unless a block of the store is larger.
pub const PLACE_BYTES: u64 = 4096;
const SUM_BYTES: usize = 32;
const HEAD_BYTES: usize = SUM_BYTES + 8 + 16 + 4;

/// One device among all, however they are named: drawn when its first line-up is made.
pub type Identity = u128;

/// The places for a record.
#[derive(Debug)]
pub struct Ledger {
    position: u64,
    place_bytes: u64,
    regions: Regions,
    /// The number of the last writing; its lowest bit says in which place it is.
    number: u64,
}

impl Ledger {
    /// How many bytes of a store are left for a device when it has a record; 0 if it is too small.
    pub fn device_bytes(shape: &Shape) -> u64 {
        shape.bytes.saturating_sub(2 * place_bytes(shape))
    }

    /// Looks for what was kept: of which device, and the record.
    ///
    /// # Errors
    /// The store cannot be read. That is not taken for a record that is not there.
    pub fn open(
        store: &dyn Store,
        regions: Regions,
    ) -> Result<(Self, Option<(Identity, Record)>), StoreError> {
        let shape = store.shape();
        let (position, place_bytes) = (Self::device_bytes(&shape), place_bytes(&shape));
        let mut last = None;
        for place in 0..2 {
            let mut bytes = vec![0; place_bytes as usize];
            store.read(position + place * place_bytes, &mut bytes)?;
            let found = read_place(&bytes, &regions).filter(|(number, ..)| number % 2 == place);
            last = found.into_iter().chain(last).max_by_key(|(number, ..)| *number);
        }
        let number = last.as_ref().map_or(0, |(number, ..)| *number);
        let kept = last.map(|(_, identity, record)| (identity, record));
        Ok((Self { position, place_bytes, regions, number }, kept))
    }

    /// Keeps a record. It is safe when this returns.
    ///
    /// # Errors
    /// The store failed. What was kept before may be what is found.
    pub fn keep(
        &mut self,
        store: &mut dyn Store,
        identity: Identity,
        record: &Record,
    ) -> Result<(), StoreError> {
        self.number += 1;
        let mut bytes = vec![0; SUM_BYTES];
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(identity.to_le_bytes());
        let record = record.encode(&self.regions);
        bytes.extend((record.len() as u32).to_le_bytes());
        bytes.extend(record);
        let sum = Sha256::digest(&bytes[SUM_BYTES..]);
        bytes[..SUM_BYTES].copy_from_slice(&sum);
        bytes.resize(self.place_bytes as usize, 0);
        let place = self.position + self.number % 2 * self.place_bytes;
        store.write(place, &bytes, Safety::AtOnce)
    }
}

fn place_bytes(shape: &Shape) -> u64 {
    PLACE_BYTES.max(shape.block_bytes.into())
}

fn read_place(bytes: &[u8], regions: &Regions) -> Option<(u64, Identity, Record)> {
    let (sum, content) = bytes.split_first_chunk::<SUM_BYTES>()?;
    let (number, rest) = content.split_first_chunk()?;
    let (identity, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let record = rest.get(..length)?;
    let whole = &content[..HEAD_BYTES - SUM_BYTES + length];
    if Sha256::digest(whole)[..] != sum[..] {
        return None;
    }
    let record = Record::decode(record, regions)?;
    Some((u64::from_le_bytes(*number), Identity::from_le_bytes(*identity), record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::REGIONS_MAX;
    use crate::store::MemoryStore;

    /// The largest set of regions that there can be.
    const DEVICE_BYTES: u64 = 1 << 30;

    fn regions() -> Regions {
        Regions::of(DEVICE_BYTES)
    }

    fn record(in_step: u64) -> Record {
        Record { in_step, boot: 5, base: 1, unsettled: regions().all() }
    }

    fn store(block_bytes: u32) -> MemoryStore {
        let places = 2 * PLACE_BYTES.max(block_bytes.into());
        MemoryStore::new(DEVICE_BYTES + places, block_bytes).unwrap()
    }

    #[test]
    fn the_last_record_is_found_and_the_blocks_are_left_alone() {
        assert_eq!(regions().count(), REGIONS_MAX);
        for block_bytes in [512, 65_536] {
            let mut store = store(block_bytes);
            assert_eq!(Ledger::device_bytes(&store.shape()), DEVICE_BYTES);
            let (mut ledger, none) = Ledger::open(&store, regions()).unwrap();
            assert_eq!(none, None);
            for in_step in 1..6 {
                ledger.keep(&mut store, 9, &record(in_step)).unwrap();
                let (again, found) = Ledger::open(&store, regions()).unwrap();
                assert_eq!(found, Some((9, record(in_step))));
                ledger = again;
            }
            let mut last = vec![0; 65_536];
            store.read(DEVICE_BYTES - 65_536, &mut last).unwrap();
            assert!(last.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn one_whose_writing_was_cut_short_is_the_one_before() {
        let mut store = store(512);
        let (mut ledger, _) = Ledger::open(&store, regions()).unwrap();
        for in_step in 1..4 {
            ledger.keep(&mut store, 9, &record(in_step)).unwrap();
        }
        let before = record(2);
        // The third is in the place of odd numbers, the second one.
        let place = DEVICE_BYTES + PLACE_BYTES;
        let mut whole = vec![0; PLACE_BYTES as usize];
        store.read(place, &mut whole).unwrap();
        for cut in (0..3).map(|blocks| blocks * 512) {
            let mut torn = whole.clone();
            torn[cut..cut + 512].fill(0xee);
            store.write(place, &torn, Safety::AtOnce).unwrap();
            let (_, found) = Ledger::open(&store, regions()).unwrap();
            assert_eq!(found, Some((9, before.clone())), "with other bytes from {cut} on");
        }
        store.write(place, &whole, Safety::AtOnce).unwrap();
        let (_, found) = Ledger::open(&store, regions()).unwrap();
        assert_eq!(found, Some((9, record(3))));
    }

    #[test]
    fn a_store_that_is_too_small_has_no_device() {
        let small = Shape { bytes: 4096, block_bytes: 512, writable: true };
        assert_eq!(Ledger::device_bytes(&small), 0);
    }
}
