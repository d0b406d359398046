// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list of a vectored transfer: pieces of lent memory for one range of a device.
//!
//! The client lends the list for reading, and each piece in a grant of its own or as a part of a larger
//! one. A server copies the list once, before it looks at it, since a client may change what it lent.

use crate::record::take;
use dvk::GrantId;

/// The most pieces of one transfer.
pub const SEGMENTS_MAX: u16 = 1024;

/// A piece of lent memory: 24 bytes in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What the client lent.
    pub grant: GrantId,
    /// Where in it the piece begins, in bytes.
    pub offset: u64,
    /// How many bytes it has; a multiple of the device's block.
    pub bytes: u64,
}

impl Segment {
    /// Bytes that it takes in a list.
    pub const BYTES: usize = 24;

    /// How it lies in a list.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let fields = [self.grant.raw(), self.offset, self.bytes];
        for (field, place) in fields.iter().zip(bytes.chunks_exact_mut(8)) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    fn take(list: &mut &[u8]) -> Option<Self> {
        let mut next = || take(list).map(u64::from_le_bytes);
        Some(Self { grant: GrantId::from_raw(next()?), offset: next()?, bytes: next()? })
    }
}

/// The list as it is lent.
pub fn encode(segments: &[Segment]) -> Vec<u8> {
    segments.iter().flat_map(Segment::encode).collect()
}

/// The pieces of a list, and how many bytes they have together.
///
/// `None` if it is not one of whole pieces, has none or more than [`SEGMENTS_MAX`], or names more bytes
/// than a number can say, in sum or in a grant.
pub fn decode(mut list: &[u8]) -> Option<(Vec<Segment>, u64)> {
    let count = list.len() / Segment::BYTES;
    if count == 0 || count > usize::from(SEGMENTS_MAX) || list.len() % Segment::BYTES != 0 {
        return None;
    }
    let mut segments = Vec::with_capacity(count);
    let mut total = 0_u64;
    while !list.is_empty() {
        let segment = Segment::take(&mut list)?;
        segment.offset.checked_add(segment.bytes)?;
        total = total.checked_add(segment.bytes)?;
        segments.push(segment);
    }
    Some((segments, total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(grant: u64, offset: u64, bytes: u64) -> Segment {
        Segment { grant: GrantId::from_raw(grant), offset, bytes }
    }

    #[test]
    fn a_segment_is_three_little_endian_numbers() {
        let bytes = segment(0x0102, 3, 0x0400).encode();
        assert_eq!(bytes[..2], [2, 1]);
        assert_eq!(bytes[8], 3);
        assert_eq!(bytes[16..18], [0, 4]);
    }

    #[test]
    fn lists_that_cannot_be_done_are_refused() {
        let whole = encode(&[segment(1, 0, 1024)]);
        assert!(decode(&whole).is_some());
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&whole[1..]), None);
        let most = vec![segment(1, 0, 1); usize::from(SEGMENTS_MAX)];
        assert_eq!(decode(&encode(&most)).map(|(_, total)| total), Some(SEGMENTS_MAX.into()));
        let more = vec![segment(1, 0, 1); usize::from(SEGMENTS_MAX) + 1];
        assert_eq!(decode(&encode(&more)), None);
        assert_eq!(decode(&encode(&[segment(1, 2, u64::MAX - 1)])), None, "beyond its grant");
        let sum = [segment(1, 0, u64::MAX), segment(2, 0, 1)];
        assert_eq!(decode(&encode(&sum)), None, "more in sum than a number can say");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            list in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u32>()), 1..40),
        ) {
            let segments: Vec<_> =
                list.iter().map(|&(grant, at, len)| segment(grant, at.into(), len.into())).collect();
            let total = segments.iter().map(|segment| segment.bytes).sum();
            prop_assert_eq!(decode(&encode(&segments)), Some((segments, total)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(list in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some((segments, _)) = decode(&list) {
                prop_assert_eq!(encode(&segments), list);
            }
        }
    }
}
