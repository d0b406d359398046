// SPDX-License-Identifier: MIT OR Apache-2.0
//! How bytes are spoilt.

use crate::rng::Rng;

/// Changes a few bytes, the length, or nothing.
pub fn spoil(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.below(4) {
        if bytes.is_empty() {
            bytes.push(rng.draw() as u8);
        }
        // The front is where the fields are.
        let reach = if rng.percent(60) { bytes.len().min(64) } else { bytes.len() };
        let at = rng.below(reach as u64) as usize;
        match rng.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.resize(bytes.len() + 1 + rng.below(64) as usize, 0),
            2 => bytes[at] = 0xff,
            3 => bytes[at] = 0,
            4 => bytes[at] ^= 1 << rng.below(8),
            5 => bytes[at] = bytes[at].wrapping_add(1),
            6 => bytes[at] = bytes[at].wrapping_sub(1),
            _ => bytes[at] = rng.draw() as u8,
        }
    }
}
