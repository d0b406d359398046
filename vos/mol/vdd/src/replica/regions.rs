// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device in regions: the pieces of which is remembered whether replicas may differ in them.

/// The most regions of a device, so that a set of them is small enough to be sent and written as a whole.
pub const REGIONS_MAX: u32 = 1 << 13;
/// The smallest region, in bytes: what is copied at once.
pub const REGION_BYTES_MIN: u64 = 1 << 16;

/// How a device is cut into regions: all of one size, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regions {
    device_bytes: u64,
    region_bytes: u64,
}

impl Regions {
    /// The regions of a device of so many bytes: as small as they may be.
    pub fn of(device_bytes: u64) -> Self {
        let fewest = device_bytes.div_ceil(REGIONS_MAX.into()).next_power_of_two();
        Self { device_bytes, region_bytes: fewest.max(REGION_BYTES_MIN) }
    }

    /// Regions of another size, for whoever has a reason.
    ///
    /// # Panics
    /// If there were none, or more than [`REGIONS_MAX`].
    pub fn with_size(device_bytes: u64, region_bytes: u64) -> Self {
        let count = device_bytes.div_ceil(region_bytes);
        assert!((1..=REGIONS_MAX.into()).contains(&count), "a device of {count} regions");
        Self { device_bytes, region_bytes }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.device_bytes.div_ceil(self.region_bytes) as u32
    }

    /// How many bytes each has, but for the last.
    pub fn region_bytes(&self) -> u64 {
        self.region_bytes
    }

    /// Where a region begins, and how many bytes it has.
    pub fn range(&self, region: u32) -> (u64, u64) {
        let position = u64::from(region) * self.region_bytes;
        (position, self.region_bytes.min(self.device_bytes - position))
    }

    /// Those that a range of bytes, not an empty one, touches.
    pub fn touched(&self, position: u64, bytes: u64) -> core::ops::RangeInclusive<u32> {
        let region = |byte| (byte / self.region_bytes) as u32;
        region(position)..=region(position + bytes - 1)
    }

    /// All of them.
    pub fn all(&self) -> RegionSet {
        (0..self.count()).collect()
    }
}

/// A set of regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionSet {
    /// Bit `n` of word `m` is region `64 m + n`. The last word is not 0.
    words: Vec<u64>,
}

impl RegionSet {
    /// Puts a region in. Whether it was not there.
    pub fn insert(&mut self, region: u32) -> bool {
        let word = region as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (region % 64);
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    /// Takes a region out.
    pub fn remove(&mut self, region: u32) {
        if let Some(word) = self.words.get_mut(region as usize / 64) {
            *word &= !(1 << (region % 64));
        }
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    /// Whether a region is in it.
    pub fn contains(&self, region: u32) -> bool {
        self.words.get(region as usize / 64).is_some_and(|word| word & (1 << (region % 64)) != 0)
    }

    /// Whether there is none in it.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// How many are in it.
    pub fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Those in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let bits = |(index, word): (usize, u64)| {
            (0..64)
                .filter(move |bit| word & (1 << bit) != 0)
                .map(move |bit| index as u32 * 64 + bit)
        };
        self.words.iter().copied().enumerate().flat_map(bits)
    }

    /// As it is written and sent: a bit for each region, from the lowest bit of the first byte on.
    pub fn encode(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// What [`encode`](Self::encode) made. `None` if it names a region from `count` on.
    pub fn decode(bytes: &[u8], count: u32) -> Option<Self> {
        let mut set = Self::default();
        for (index, byte) in bytes.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                let region =
                    u32::try_from(index * 8 + bit).ok().filter(|&region| region < count)?;
                set.insert(region);
            }
        }
        Some(set)
    }
}

impl FromIterator<u32> for RegionSet {
    fn from_iter<I: IntoIterator<Item = u32>>(regions: I) -> Self {
        let mut set = Self::default();
        set.extend(regions);
        set
    }
}

impl Extend<u32> for RegionSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, regions: I) {
        for region in regions {
            self.insert(region);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_device_has_few_regions_and_the_last_may_be_shorter() {
        let small = Regions::of(100_000);
        assert_eq!((small.count(), small.range(1)), (2, (65_536, 34_464)));
        let large = Regions::of((1 << 40) + 512);
        assert!(large.count() <= REGIONS_MAX, "{} regions", large.count());
        assert_eq!(large.range(large.count() - 1), (1 << 40, 512));
        assert_eq!(small.touched(65_535, 1), 0..=0);
        assert_eq!(small.touched(65_535, 2), 0..=1);
    }

    proptest! {
        #[test]
        fn a_set_is_one(steps in proptest::collection::vec((any::<bool>(), 0_u32..300), 0..100)) {
            let (mut set, mut model) = (RegionSet::default(), BTreeSet::new());
            for (inserts, region) in steps {
                if inserts {
                    prop_assert_eq!(set.insert(region), model.insert(region));
                } else {
                    set.remove(region);
                    model.remove(&region);
                }
                prop_assert_eq!(set.contains(region), model.contains(&region));
                prop_assert_eq!(set.is_empty(), model.is_empty());
            }
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(RegionSet::decode(&set.encode(), 300), Some(set.clone()));
            let last = model.last().copied();
            prop_assert_eq!(last.map(|last| RegionSet::decode(&set.encode(), last)), last.map(|_| None));
        }
    }
}
