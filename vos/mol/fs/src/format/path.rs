// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way from an inode to a block of its file.

use super::{Layout, Version, POINTERS_DIRECT};

/// Which numbers lead to a block: one in the inode, then one in each of up to three blocks of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The index of the number in the inode.
    pub slot: usize,
    /// How many blocks of numbers there are in between.
    pub depth: usize,
    steps: [u32; 3],
}

impl Path {
    /// The way to block `index` of a file. `None` if no file has so many.
    pub fn to(layout: &Layout, index: u32) -> Option<Self> {
        let per_block = u64::from(layout.pointers_per_block());
        let direct = POINTERS_DIRECT as u32;
        if index < direct {
            return Some(Self { slot: index as usize, depth: 0, steps: [0; 3] });
        }
        let mut rest = u64::from(index - direct);
        for depth in 1..=Self::depth_max(layout) {
            let span = per_block.pow(depth as u32);
            if rest < span {
                let mut steps = [0; 3];
                for step in steps[..depth].iter_mut().rev() {
                    *step = (rest % per_block) as u32;
                    rest /= per_block;
                }
                return Some(Self { slot: POINTERS_DIRECT + depth - 1, depth, steps });
            }
            rest -= span;
        }
        None
    }

    /// The indices of the numbers in the blocks of numbers, from the inode on.
    pub fn steps(&self) -> &[u32] {
        &self.steps[..self.depth]
    }

    /// How many blocks a file can have.
    pub fn reach(layout: &Layout) -> u64 {
        let per_block = u64::from(layout.pointers_per_block());
        let deep = (1..=Self::depth_max(layout)).map(|depth| per_block.pow(depth as u32));
        POINTERS_DIRECT as u64 + deep.sum::<u64>()
    }

    /// How many blocks of numbers lead from an inode to a block at most.
    pub fn depth_max(layout: &Layout) -> usize {
        if layout.version == Version::V1 {
            2
        } else {
            3
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;
    use crate::format::make;

    #[test]
    fn blocks_far_in_a_file_have_longer_ways() {
        let layout = make(&mut Memory::new(1 << 20), 1024, 64, 0).unwrap();
        let way = |index| {
            let path = Path::to(&layout, index).unwrap();
            (path.slot, path.steps().to_vec())
        };
        assert_eq!(way(6), (6, vec![]));
        assert_eq!(way(7), (7, vec![0]));
        assert_eq!(way(7 + 255), (7, vec![255]));
        assert_eq!(way(7 + 256), (8, vec![0, 0]));
        assert_eq!(way(7 + 256 + 257), (8, vec![1, 1]));
        assert_eq!(way(7 + 256 + 65_536), (9, vec![0, 0, 0]));
        assert_eq!(way(7 + 256 + 65_536 + 65_537), (9, vec![1, 0, 1]));
        let reach = Path::reach(&layout) as u32;
        assert_eq!(way(reach - 1), (9, vec![255, 255, 255]));
        assert_eq!(Path::to(&layout, reach), None);
    }
}
