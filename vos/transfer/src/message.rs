// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests and answers of FUSE as a stream of bytes. Each begins with its length, so nothing has to be added.

use std::io::{self, ErrorKind, Read};

/// The most bytes that a message has: FUSE's most data, and what is before it.
pub const MESSAGE_MAX: usize = (1 << 20) + (4 << 10);

/// The length, in the order of the machine, which is the same wherever nodes and those who administer them run.
const LENGTH: usize = 4;

/// The next message of a stream with its length, or none at the end of the stream.
///
/// # Errors
/// The stream's; `UnexpectedEof` if it ends within a message; `InvalidData` if a length can be none.
pub fn message(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; LENGTH];
    let mut known = 0;
    while known < LENGTH {
        match from.read(&mut bytes[known..]) {
            Ok(0) if known == 0 => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => known += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
    if !(LENGTH..=MESSAGE_MAX).contains(&length) {
        let why = format!("a message of FUSE has {length} bytes, and can have {MESSAGE_MAX}");
        return Err(io::Error::new(ErrorKind::InvalidData, why));
    }
    bytes.resize(length, 0);
    from.read_exact(&mut bytes[LENGTH..])?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what it has byte by byte.
    struct Slow<'b>(&'b [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = into.len().min(1);
            self.0.read(&mut into[..most])
        }
    }

    #[test]
    fn messages_are_taken_apart() {
        let mut stream = Slow(b"\x06\0\0\0ab\x04\0\0\0\x05\0\0\0c");
        let mut next = || message(&mut stream).unwrap();
        assert_eq!(next().unwrap(), b"\x06\0\0\0ab");
        assert_eq!(next().unwrap(), b"\x04\0\0\0");
        assert_eq!(next().unwrap(), b"\x05\0\0\0c");
        assert_eq!(next(), None);
    }

    #[test]
    fn what_is_none_is_told() {
        let kind = |bytes: &[u8]| message(&mut &bytes[..]).unwrap_err().kind();
        assert_eq!(kind(b"\x06\0\0"), ErrorKind::UnexpectedEof);
        assert_eq!(kind(b"\x06\0\0\0a"), ErrorKind::UnexpectedEof);
        assert_eq!(kind(b"\x03\0\0\0"), ErrorKind::InvalidData);
        assert_eq!(kind(b"\xff\xff\xff\xffa"), ErrorKind::InvalidData);
    }
}
