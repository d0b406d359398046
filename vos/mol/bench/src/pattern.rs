// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written, and expected when it is read.

/// Bytes that look random, the same for the same seed: those of the numbers that `splitmix64` makes of where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Decides all of it.
    pub seed: u64,
}

/// The bytes of a number.
const WORD: usize = 8;

impl Pattern {
    /// Fills memory with what is there from byte `position` on, a multiple of 8.
    pub fn fill(self, position: u64, memory: &mut [u8]) {
        for (word, index) in memory.chunks_mut(WORD).zip(position / WORD as u64..) {
            word.copy_from_slice(&self.word(index)[..word.len()]);
        }
    }

    /// Where the first byte is that differs from what has to be there, if memory was read from byte `position` on, a multiple of 8.
    pub fn difference(self, position: u64, memory: &[u8]) -> Option<u64> {
        let mut words = memory.chunks(WORD).zip(position / WORD as u64..);
        words.find_map(|(word, index)| {
            let offset = word.iter().zip(self.word(index)).position(|(is, due)| *is != due)?;
            Some(index * WORD as u64 + offset as u64)
        })
    }

    fn word(self, index: u64) -> [u8; WORD] {
        let mut mixed = self.seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole() {
        let pattern = Pattern { seed: 7 };
        let (mut whole, mut parts) = ([0; 100], [0; 100]);
        pattern.fill(64, &mut whole);
        pattern.fill(64, &mut parts[..40]);
        pattern.fill(104, &mut parts[40..]);
        assert_eq!(whole, parts);
        assert_eq!(pattern.difference(64, &whole), None);
    }

    #[test]
    fn a_byte_that_is_not_as_written_is_found() {
        let pattern = Pattern { seed: 7 };
        let mut memory = [0; 100];
        pattern.fill(4096, &mut memory);
        memory[99] ^= 1;
        assert_eq!(pattern.difference(4096, &memory), Some(4195));
        memory[17] ^= 0x80;
        assert_eq!(pattern.difference(4096, &memory), Some(4113));
    }

    #[test]
    fn other_seeds_and_places_have_other_bytes() {
        let mut memory = [0; 64];
        Pattern { seed: 1 }.fill(0, &mut memory);
        assert_eq!(Pattern { seed: 2 }.difference(0, &memory), Some(0));
        assert_eq!(Pattern { seed: 1 }.difference(64, &memory), Some(64));
        assert_eq!(Pattern { seed: 1 }.difference(0, &[0; 64]), Some(0));
    }
}
