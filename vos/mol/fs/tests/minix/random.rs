// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that look random and are the same for the same seed.

/// A source of numbers: SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % u64::from(end)) as u32
    }

    /// Whether something of this probability, in percent, is so.
    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// The seeds that `DVS_SEEDS=A-B` asks for, or `usual`.
pub(crate) fn seeds(usual: core::ops::RangeInclusive<u64>) -> core::ops::RangeInclusive<u64> {
    let Ok(seeds) = std::env::var("DVS_SEEDS") else { return usual };
    let ends = seeds.split_once('-').and_then(|(a, b)| Some(a.parse().ok()?..=b.parse().ok()?));
    ends.unwrap_or_else(|| panic!("DVS_SEEDS is {seeds:?}; it has to be as 1-100"))
}
