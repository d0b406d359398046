// SPDX-License-Identifier: MIT OR Apache-2.0
//! Integers in lent memory: little-endian, as in messages.

/// Takes the first `N` bytes off `bytes`; `None`, and nothing taken, if there are fewer.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
