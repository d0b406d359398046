// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel has said, by `/dev/kmsg`.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use dvs_api::KernelRecord;
use rustix::fs::OFlags;

/// Where the kernel says it.
pub const DEVICE: &str = "/dev/kmsg";
/// Most bytes of a record.
const RECORD_BYTES: usize = 8 << 10;

/// The records after the one of this number that the kernel still has, and the number of the last one.
///
/// # Errors
/// When the device cannot be read.
pub fn records(device: &Path, after: Option<u64>) -> io::Result<(Vec<KernelRecord>, Option<u64>)> {
    // Without waiting for what will be said.
    let mut options = OpenOptions::new();
    let mut file = options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(device)?;
    let (mut records, mut last) = (Vec::new(), None);
    let mut bytes = vec![0; RECORD_BYTES];
    loop {
        match file.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => {
                let record = String::from_utf8_lossy(&bytes[..length]);
                if let Some(record) = parse(&record) {
                    last = Some(record.number);
                    if after.is_none_or(|after| record.number > after) {
                        records.push(record);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // The next record has been overwritten; reading goes on after it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((records, last))
}

/// `PRIORITY,NUMBER,TIME,FLAGS…;TEXT`, and lines with properties of it
/// (`Documentation/ABI/testing/dev-kmsg` of the kernel).
fn parse(record: &str) -> Option<KernelRecord> {
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u64 = fields.next()?.parse().ok()?;
    let number = fields.next()?.parse().ok()?;
    let time_us = fields.next()?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    // The rest of the priority is a facility.
    Some(KernelRecord { number, time_us, level: (priority & 7) as u8, text: unescaped(text) })
}

/// The kernel writes what is not printable as `\x` and two digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.strip_prefix(b"x").and_then(|digits| digits.get(..2));
        let digits = digits.filter(|_| *first == b'\\').and_then(|it| std::str::from_utf8(it).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_understood() {
        let record = parse("30,339,5140900,-;a\\x0ab \\x5c \\xzz;c\n SUBSYSTEM=net\n").unwrap();
        assert_eq!((record.level, record.number, record.time_us), (6, 339, 5_140_900));
        assert_eq!(record.text, "a\nb \\ \\xzz;c");
        for bad in ["", "1,2;x", "x,1,2,-;y", "1,2,3,-"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
