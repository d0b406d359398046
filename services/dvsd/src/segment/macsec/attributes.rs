// SPDX-License-Identifier: MIT OR Apache-2.0
//! Netlink attributes: length, kind, value, and padding to four bytes, in the machine's byte order.

/// Bits of the kind that say something of the value.
const FLAGS: u16 = 0xc000;
const HEAD_BYTES: usize = 4;

/// Attributes one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (HEAD_BYTES + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn with_nested(self, kind: u16, inner: Self) -> Self {
        self.with(kind, &inner.0)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Takes attributes apart; ends where they are not well-formed.
pub(super) fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & !FLAGS;
        let value = bytes.get(HEAD_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a kind.
pub(super) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    read(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number of 1, 4 or 8 bytes, as counters have; 0 if there is none.
pub(super) fn number(bytes: &[u8], kind: u16) -> u64 {
    match find(bytes, kind) {
        Some(&[byte]) => byte.into(),
        Some(&[a, b, c, d]) => u32::from_ne_bytes([a, b, c, d]).into(),
        Some(&[a, b, c, d, e, f, g, h]) => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let inner = Attributes::default().with(7, &9u32.to_ne_bytes());
        let attributes = Attributes::default().with(1, &[5]).with_nested(2 | 0x8000, inner);
        assert_eq!(attributes.bytes().len(), 8 + 12);
        let kinds: Vec<_> = read(attributes.bytes()).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [1, 2]);
        assert_eq!(number(attributes.bytes(), 1), 5);
        assert_eq!(number(find(attributes.bytes(), 2).unwrap(), 7), 9);
        assert_eq!(number(attributes.bytes(), 3), 0);
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let bytes = Attributes::default().with(1, &[1; 4]).with(2, &[2; 4]);
        for length in 0..bytes.bytes().len() {
            let read = read(&bytes.bytes()[..length]).count();
            assert_eq!(read, usize::from(length >= 8), "{length} bytes");
        }
        // A length that would not lead on.
        assert_eq!(read(&[0; 64]).count(), 0);
        assert_eq!(read(&[3, 0, 0, 0, 1, 0, 0, 0]).count(), 0);
    }
}
