// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes over a connection: frames of a tag, a length and bytes.

use std::io::{self, Read, Write};

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// To the node, first: the program and its arguments, each behind a NUL but the first.
    Start,
    /// To the node: standard input.
    Input,
    /// To the node: no more standard input.
    EndOfInput,
    /// To the host, first: the program runs.
    Started,
    /// To the host, first and last: it could not be started; why.
    Refused,
    /// To the host: standard output.
    Output,
    /// To the host: standard error.
    Error,
    /// To the host, last: the exit status as a shell gives it, as little-endian bytes.
    Ended,
}

const TAGS: [Tag; 8] = [
    Tag::Start,
    Tag::Input,
    Tag::EndOfInput,
    Tag::Started,
    Tag::Refused,
    Tag::Output,
    Tag::Error,
    Tag::Ended,
];

/// Longer frames are not written, and nobody allocates for one.
pub(crate) const BYTES_MAX: usize = 64 << 10;

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes a frame at once, so that threads that share a lock never mix theirs.
pub(crate) fn write(mut to: impl Write, tag: Tag, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= BYTES_MAX);
    let length = length.ok_or_else(|| invalid("a frame that is too long"))?;
    let mut frame = vec![TAGS.iter().position(|known| *known == tag).unwrap_or_default() as u8];
    frame.extend(length.to_le_bytes());
    frame.extend(bytes);
    to.write_all(&frame)
}

/// Reads a frame; `None` at the end of the stream.
pub(crate) fn read(mut from: impl Read) -> io::Result<Option<(Tag, Vec<u8>)>> {
    let mut head = [0; 5];
    match from.read(&mut head[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut head[1..])?,
    }
    let tag = TAGS.get(usize::from(head[0])).ok_or_else(|| invalid("a frame of unknown kind"))?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > BYTES_MAX {
        return Err(invalid("a frame that is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Some((*tag, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_written() {
        let mut stream = Vec::new();
        for (n, tag) in TAGS.iter().enumerate() {
            write(&mut stream, *tag, &vec![n as u8; n * 1000]).unwrap();
        }
        let mut from = &stream[..];
        for (n, tag) in TAGS.iter().enumerate() {
            assert_eq!(read(&mut from).unwrap(), Some((*tag, vec![n as u8; n * 1000])));
        }
        assert_eq!(read(&mut from).unwrap(), None);
        assert!(read(&mut &stream[..3]).is_err() && read(&mut &[99, 0, 0, 0, 0][..]).is_err());
        assert!(read(&mut &[0, 255, 255, 255, 255][..]).is_err());
        assert!(write(Vec::new(), Tag::Output, &vec![0; BYTES_MAX + 1]).is_err());
    }
}
