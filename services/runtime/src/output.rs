// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a container's command writes, kept in a log of bounded size: the newest is what counts, and a node has no disk to fill.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The most bytes of each of two files; when one is full, it replaces the old one.
const FILE_MAX: u64 = 256 << 10;

/// A log that is written.
#[derive(Debug)]
pub(crate) struct Output {
    current: PathBuf,
    old: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

impl Output {
    /// An empty log in these two files.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn create([current, old]: [PathBuf; 2]) -> Result<Self> {
        Self::with_limit(current, old, FILE_MAX)
    }

    fn with_limit(current: PathBuf, old: PathBuf, limit: u64) -> Result<Self> {
        let file = open(&current).with_context(|| format!("writing {}", current.display()))?;
        Ok(Self { current, old, file, written: 0, limit })
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
            fs::rename(&self.current, &self.old)?;
            self.file = open(&self.current)?;
            self.written = 0;
        }
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    File::options().create(true).truncate(true).write(true).mode(0o600).open(path)
}

/// What is kept of a log, oldest first.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read([current, old]: [PathBuf; 2]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for path in [old, current] {
        match fs::read(&path) {
            Ok(bytes) => all.extend(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_kept_and_no_more_than_twice_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["log", "log.old"].map(|name| directory.path().join(name));
        let mut output = Output::with_limit(paths[0].clone(), paths[1].clone(), 100).unwrap();
        let mut all = Vec::new();
        for number in 0..100 {
            let line = format!("line {number}\n");
            all.extend_from_slice(line.as_bytes());
            assert!(output.take(&mut line.as_bytes()).unwrap());
        }
        assert!(!output.take(&mut io::empty()).unwrap());
        let kept = read(paths).unwrap();
        assert!(all.ends_with(&kept));
        assert!(kept.len() > 100 && kept.len() <= 200, "{}", kept.len());
    }
}
