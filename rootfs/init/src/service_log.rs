// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of a service: its lines in a file of limited size, its complaints on the console.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A log file is rotated before it grows beyond this many bytes.
const SIZE_CAP: u64 = 1 << 20;
/// A longer line is broken: the log of a service that never ends its line must be bounded too.
const LINE_CAP: usize = 4096;

/// Puts what a pipe yields together to lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes and hands each complete line, without its end, to `each`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (content, ends) = match piece.split_last() {
                Some((b'\n', content)) => (content, true),
                _ => (piece, false),
            };
            for chunk in content.chunks(LINE_CAP) {
                if self.partial.len() + chunk.len() > LINE_CAP {
                    self.flush(&mut each);
                }
                self.partial.extend_from_slice(chunk);
            }
            if ends {
                each(&self.partial);
                self.partial.clear();
            }
        }
    }

    /// Hands out what came without a line end; for when nothing more comes.
    pub(crate) fn flush(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            each(&self.partial);
            self.partial.clear();
        }
    }
}

/// Whether a line is for the console too: services start complaints with `error:` or `warning:`.
pub(crate) fn is_complaint(line: &[u8]) -> bool {
    line.starts_with(b"error:") || line.starts_with(b"warning:")
}

/// A line as logs have it: after the time at which it came, in UTC (RFC 3339) and milliseconds, by the machine's clock.
pub(crate) fn stamped(at: SystemTime, line: &[u8]) -> Vec<u8> {
    let mut stamped = format!("{} ", humantime::format_rfc3339_millis(at)).into_bytes();
    stamped.extend_from_slice(line);
    stamped
}

/// A log file that keeps its size below a cap, with one older file beside it.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    cap: u64,
}

impl LogFile {
    /// The log of a service in a folder: `NAME.log`, and `NAME.log.1` for the older part. Files are
    /// made when the first line comes.
    pub(crate) fn new(folder: &Path, service: &str) -> Self {
        Self { path: folder.join(format!("{service}.log")), file: None, size: 0, cap: SIZE_CAP }
    }

    /// Appends a line.
    ///
    /// # Errors
    ///
    /// The file cannot be made or written. The next line tries again.
    pub(crate) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64 + 1;
        if self.file.is_none() {
            self.open()?;
        }
        if self.size > 0 && self.size + length > self.cap {
            self.file = None;
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        // One write, so that a reader never sees half a line.
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        let written = file.write_all(&bytes);
        match written {
            Ok(()) => self.size += length,
            Err(_) => self.file = None,
        }
        written
    }

    fn open(&mut self) -> io::Result<()> {
        let file = File::options().append(true).create(true).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::{is_complaint, stamped, Lines, LogFile, LINE_CAP};

    #[test]
    fn a_line_says_when_it_came() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(951_782_400_005);
        assert_eq!(stamped(at, b"error: \xff"), b"2000-02-29T00:00:00.005Z error: \xff");
    }

    #[test]
    fn a_log_is_rotated_at_its_cap_and_loses_only_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::new(folder.path(), "dvsd");
        log.cap = 100;
        for number in 0..60 {
            log.append(format!("line {number:03}").as_bytes()).unwrap();
        }
        let current = fs::read_to_string(folder.path().join("dvsd.log")).unwrap();
        let older = fs::read_to_string(folder.path().join("dvsd.log.1")).unwrap();
        assert!(current.len() <= 100 && older.len() <= 100);
        let kept: Vec<_> = older.lines().chain(current.lines()).collect();
        let expected: Vec<_> = (60 - kept.len()..60).map(|n| format!("line {n:03}")).collect();
        assert_eq!(kept, expected);
        assert!(kept.len() > 11);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_log_goes_on_where_an_earlier_one_ended() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let mut log = LogFile::new(folder.path(), "x");
            log.cap = 10;
            log.append(b"12345").unwrap();
        }
        assert_eq!(fs::read(folder.path().join("x.log")).unwrap(), b"12345\n");
        assert_eq!(fs::read(folder.path().join("x.log.1")).unwrap(), b"12345\n");
    }

    #[test]
    fn complaints_are_told_by_their_start() {
        assert!(is_complaint(b"error: no") && is_complaint(b"warning: hm"));
        assert!(
            !is_complaint(b"info: error: no") && !is_complaint(b"errors") && !is_complaint(b"")
        );
    }

    proptest! {
        /// However the bytes are cut, the lines are the same, and none is longer than the cap.
        #[test]
        fn lines_do_not_depend_on_the_cuts(
            text in proptest::collection::vec(
                prop_oneof![4 => 97..100_u8, 1 => Just(b'\n')], 0..200),
            long in 0..3 * LINE_CAP,
            cuts in proptest::collection::vec(1..50_usize, 1..20),
        ) {
            let mut bytes = text;
            bytes.extend(std::iter::repeat_n(b'x', long));
            let collect = |pieces: &mut dyn Iterator<Item = &[u8]>| {
                let (mut lines, mut found) = (Lines::default(), Vec::new());
                for piece in pieces {
                    lines.push(piece, |line| found.push(line.to_vec()));
                }
                lines.flush(|line| found.push(line.to_vec()));
                found
            };
            let mut rest = bytes.as_slice();
            let mut sizes = cuts.iter().cycle();
            let pieces = std::iter::from_fn(|| {
                let (piece, after) = rest.split_at(rest.len().min(*sizes.next()?));
                rest = after;
                (!piece.is_empty()).then_some(piece)
            });
            let cut = collect(&mut pieces.collect::<Vec<_>>().into_iter());
            prop_assert!(cut.iter().all(|line| line.len() <= LINE_CAP));
            prop_assert_eq!(cut.concat(), bytes.iter().copied().filter(|b| *b != b'\n').collect::<Vec<_>>());
            if long < LINE_CAP - 200 {
                prop_assert_eq!(cut, collect(&mut std::iter::once(bytes.as_slice())));
            }
        }
    }
}
