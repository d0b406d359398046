// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a container's command writes, kept in a log of bounded size: the newest is what counts, and a node has no disk to fill.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The most bytes of each of two files; when one is full, it replaces the old one.
const FILE_MAX: u64 = 256 << 10;

/// A log that is written.
#[derive(Debug)]
pub(crate) struct Output {
    paths: Paths,
    file: File,
    written: u64,
    /// Bytes that were written before what is kept.
    begins: u64,
    /// Bytes in the old file.
    old: u64,
    limit: u64,
}

/// Where a log is.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// What was written last.
    pub(crate) current: PathBuf,
    /// What was written before that.
    pub(crate) old: PathBuf,
    /// How many bytes were written before both, in decimal.
    pub(crate) begins: PathBuf,
}

/// What is kept of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How many bytes were written before.
    pub begins: u64,
    /// What was written then.
    pub bytes: Vec<u8>,
}

impl Log {
    /// What of it is at this position and after; all of it if the log has not come that far, for then it is another one.
    pub(crate) fn from(mut self, position: u64) -> Self {
        let end = self.begins + self.bytes.len() as u64;
        if (self.begins..=end).contains(&position) {
            self.bytes.drain(..(position - self.begins) as usize);
            self.begins = position;
        }
        self
    }
}

impl Output {
    /// An empty log in these files.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn create(paths: Paths) -> Result<Self> {
        Self::with_limit(paths, FILE_MAX)
    }

    fn with_limit(paths: Paths, limit: u64) -> Result<Self> {
        let file =
            open(&paths.current).with_context(|| format!("writing {}", paths.current.display()))?;
        Ok(Self { paths, file, written: 0, begins: 0, old: 0, limit })
    }

    /// Takes what there is to read, once, and says whether there may be more.
    ///
    /// # Errors
    /// When it cannot be read. What cannot be written is lost: that a node has no space for a log is no reason to stop a container.
    pub(crate) fn take(&mut self, from: &mut impl Read) -> Result<bool> {
        let mut bytes = [0; 4096];
        match from.read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(length) => {
                let _ = self.append(&bytes[..length]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("reading what the container writes"),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written + bytes.len() as u64 > self.limit {
            // Whoever reads meanwhile finds that this has changed, and reads again.
            self.begins += self.old;
            fs::write(&self.paths.begins, self.begins.to_string())?;
            fs::rename(&self.paths.current, &self.paths.old)?;
            self.file = open(&self.paths.current)?;
            self.old = std::mem::take(&mut self.written);
        }
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    File::options().create(true).truncate(true).write(true).mode(0o600).open(path)
}

/// What is kept of a log.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(paths: &Paths) -> Result<Log> {
    loop {
        let begins = contents(&paths.begins)?;
        let mut bytes = contents(&paths.old)?;
        bytes.extend(contents(&paths.current)?);
        if contents(&paths.begins)? == begins {
            let text = String::from_utf8_lossy(&begins);
            return Ok(Log { begins: text.parse().unwrap_or(0), bytes });
        }
    }
}

fn contents(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.with_context(|| format!("reading {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_kept_and_no_more_than_twice_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let paths = Paths { current: path("log"), old: path("old"), begins: path("begins") };
        let mut output = Output::with_limit(paths.clone(), 100).unwrap();
        let mut all = Vec::new();
        for number in 0..100 {
            let line = format!("line {number}\n");
            all.extend_from_slice(line.as_bytes());
            assert!(output.take(&mut line.as_bytes()).unwrap());
            let kept = read(&paths).unwrap();
            assert_eq!(all[kept.begins as usize..], kept.bytes);
        }
        assert!(!output.take(&mut io::empty()).unwrap());
        let kept = read(&paths).unwrap();
        assert!(kept.bytes.len() > 100 && kept.bytes.len() <= 200, "{}", kept.bytes.len());
    }

    #[test]
    fn a_log_goes_on_where_somebody_has_read_to() {
        let log = |begins| Log { begins, bytes: b"0123".to_vec() };
        assert_eq!(log(10).from(12), Log { begins: 12, bytes: b"23".to_vec() });
        assert_eq!(log(10).from(14), Log { begins: 14, bytes: Vec::new() });
        assert_eq!(log(10).from(3), log(10), "what was between is lost");
        assert_eq!(log(0).from(9), log(0), "it has begun anew");
    }
}
