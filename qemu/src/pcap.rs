// SPDX-License-Identifier: MIT OR Apache-2.0
//! Captures in the classic pcap format (draft-ietf-opsawg-pcap), which every network analyser reads.

use std::io::{self, Write};
use std::time::Duration;

/// Magic number of a little-endian capture whose timestamps are in nanoseconds.
const MAGIC_NANOSECONDS: u32 = 0xA1B2_3C4D;
const LINKTYPE_ETHERNET: u32 = 1;
/// Longest frame that a capture may hold.
const SNAPLEN: u32 = 262_144;

/// Writes one capture.
#[derive(Debug)]
pub struct Pcap<W> {
    out: W,
}

impl<W: Write> Pcap<W> {
    /// Starts a capture of Ethernet frames.
    pub fn new(mut out: W) -> io::Result<Self> {
        let (major, minor) = (2u16, 4u16);
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_NANOSECONDS.to_le_bytes());
        header.extend(major.to_le_bytes());
        header.extend(minor.to_le_bytes());
        header.extend([0; 8]);
        header.extend(SNAPLEN.to_le_bytes());
        header.extend(LINKTYPE_ETHERNET.to_le_bytes());
        out.write_all(&header)?;
        out.flush()?;
        Ok(Pcap { out })
    }

    /// Records `frame`, seen at `time` since the Unix epoch.
    pub fn record(&mut self, time: Duration, frame: &[u8]) -> io::Result<()> {
        let kept = &frame[..frame.len().min(SNAPLEN as usize)];
        let mut header = [0; 16];
        let fields =
            [time.as_secs() as u32, time.subsec_nanos(), kept.len() as u32, frame.len() as u32];
        for (place, field) in header.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        self.out.write_all(&header)?;
        self.out.write_all(kept)
    }

    /// Makes what was recorded visible to readers of the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_has_the_published_layout() {
        let mut bytes = Vec::new();
        let mut pcap = Pcap::new(&mut bytes).unwrap();
        pcap.record(Duration::new(0x0102_0304, 5), b"abc").unwrap();
        #[rustfmt::skip]
        let expected = [
            0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
            4, 3, 2, 1, 5, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, b'a', b'b', b'c',
        ];
        assert_eq!(bytes, expected);
    }
}
