// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a replica must not forget when its server is started again.

use super::authority::Contents;
use super::regions::{RegionSet, Regions};

/// One run of a machine, from power-on to power-off: what its memory held is there until it ends.
pub type Boot = u128;

/// What a replica keeps beside its blocks. It is written before the blocks are that it tells of.
///
/// It must survive what the blocks survive: with a store in memory it is kept nowhere, and a store on a disk has
/// it on a disk. One that is lost while the blocks are not is as if the blocks were: they are
/// copied anew. One that is older than the blocks must never be used, since it may lack regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The last epoch in which this replica was known to be in step; 0 if it never was.
    pub in_step: u64,
    /// The run of the machine in which that was kept.
    pub boot: Boot,
    /// The set below lacks nothing for replicas that were in step in this epoch or in a later one.
    pub base: u64,
    /// Where this replica may differ from others, or have writes that are not stable.
    pub unsettled: RegionSet,
}

const MAGIC: [u8; 8] = *b"mol-vdd1";

impl Record {
    /// What a server that finds this, in this run of its machine, has of what it had when it was in step. It is not
    /// enough that the last server before this one lost nothing: that one may have begun with less.
    pub fn contents(&self, boot: Boot) -> Contents {
        match self.in_step {
            0 => Contents::None,
            _ if self.boot == boot => Contents::Whole,
            _ => Contents::Stable,
        }
    }

    /// As it is written, for a device of these regions. Whether what is read is whole is for the store of
    /// the record to know.
    pub fn encode(&self, regions: &Regions) -> Vec<u8> {
        let set = self.unsettled.encode();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.boot.to_le_bytes());
        let numbers = [
            self.in_step,
            self.base,
            regions.count().into(),
            regions.region_bytes(),
            set.len() as u64,
        ];
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(set);
        bytes
    }

    /// What was written. `None` if it is nothing that was, or of a device with other regions.
    pub fn decode(bytes: &[u8], regions: &Regions) -> Option<Self> {
        let (boot, mut rest) = bytes.strip_prefix(&MAGIC)?.split_first_chunk()?;
        let boot = Boot::from_le_bytes(*boot);
        let mut number = || {
            let (first, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_le_bytes(*first))
        };
        let (in_step, base, count, region_bytes) = (number()?, number()?, number()?, number()?);
        let set_bytes = number()?;
        let is_of_these =
            count == u64::from(regions.count()) && region_bytes == regions.region_bytes();
        let set = rest.get(..usize::try_from(set_bytes).ok()?).filter(|_| is_of_these)?;
        Some(Self { in_step, boot, base, unsettled: RegionSet::decode(set, regions.count())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_began_with_less_does_not_have_it_all() {
        let record = Record { in_step: 7, boot: 5, ..Record::default() };
        assert_eq!(record.contents(5), Contents::Whole);
        assert_eq!(record.contents(6), Contents::Stable);
        assert_eq!(Record { in_step: 0, ..record }.contents(5), Contents::None);
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_for_no_other_device() {
        let regions = Regions::with_size(1 << 20, 1 << 16);
        let record =
            Record { in_step: 7, boot: 5, base: 3, unsettled: [0, 15].into_iter().collect() };
        let bytes = record.encode(&regions);
        assert_eq!(Record::decode(&bytes, &regions), Some(record));
        assert_eq!(Record::decode(&bytes, &Regions::with_size(1 << 20, 1 << 17)), None);
        assert_eq!(Record::decode(&bytes, &Regions::with_size(1 << 19, 1 << 16)), None);
        for length in 0..bytes.len() {
            assert_eq!(
                Record::decode(&bytes[..length], &regions),
                None,
                "the first {length} bytes"
            );
        }
    }
}
