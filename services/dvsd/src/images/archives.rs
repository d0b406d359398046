// SPDX-License-Identifier: MIT OR Apache-2.0
//! The archives of images on this node: a file each, named by the SHA-256 of what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dvs_state::images::Digest;
use sha2::{Digest as _, Sha256};

/// The archives of one node.
#[derive(Clone, Debug)]
pub(super) struct Archives {
    path: PathBuf,
    /// What is not to be removed though nobody has a name for it yet, and how often that was asked for.
    pinned: Arc<Mutex<BTreeMap<Digest, usize>>>,
}

/// Keeps an archive from being removed.
#[derive(Debug)]
pub(crate) struct Pin {
    digest: Digest,
    pinned: Arc<Mutex<BTreeMap<Digest, usize>>>,
}

/// An archive that is being written. What is not finished is removed.
#[derive(Debug)]
pub(crate) struct Partial {
    archives: Archives,
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
    max: u64,
}

impl Archives {
    pub(super) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), pinned: Arc::default() }
    }

    pub(super) fn path(&self, digest: Digest) -> PathBuf {
        self.path.join(digest.to_string())
    }

    /// What there is. What an earlier life has not finished is none of it.
    pub(super) fn list(&self) -> io::Result<BTreeSet<Digest>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other?,
        };
        let mut digests = BTreeSet::new();
        for entry in entries {
            digests
                .extend(entry?.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()));
        }
        Ok(digests)
    }

    /// Begins to write one of at most `max` bytes. `number` tells it apart from others that are written now.
    pub(super) fn begin(&self, number: u64, max: u64) -> io::Result<Partial> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let path = self.path.join(format!("partial-{number}"));
        let file = File::options().create_new(true).write(true).mode(0o600).open(&path)?;
        let hash = Sha256::new();
        Ok(Partial { archives: self.clone(), path, file, hash, bytes: 0, max })
    }

    pub(super) fn pin(&self, digest: Digest) -> Pin {
        *self.pins().entry(digest).or_default() += 1;
        Pin { digest, pinned: Arc::clone(&self.pinned) }
    }

    /// Removes an archive, unless somebody has it pinned. Says whether it is gone.
    pub(super) fn remove(&self, digest: Digest) -> io::Result<bool> {
        let pins = self.pins();
        if pins.contains_key(&digest) {
            return Ok(false);
        }
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(true),
        }
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, usize>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

impl Partial {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is, so that it can be looked at before it counts.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.max {
            let text = format!("the archive has more than {} bytes, for which there is no room in this node's memory", self.max);
            return Err(io::Error::new(ErrorKind::FileTooLarge, text));
        }
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }

    /// What was written so far.
    pub(crate) fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }

    /// Has it count from now on, pinned.
    pub(crate) fn finish(self) -> io::Result<Pin> {
        let digest = self.digest();
        let pin = self.archives.pin(digest);
        fs::rename(&self.path, self.archives.path(digest))?;
        Ok(pin)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // One that was finished is there under another name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_counts_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let archives = Archives::at(directory.path().join("archives"));
        assert_eq!(archives.list().unwrap(), BTreeSet::new());
        let mut partial = archives.begin(1, 100).unwrap();
        partial.write(b"ab").unwrap();
        partial.write(b"c").unwrap();
        assert_eq!(archives.list().unwrap(), BTreeSet::new());
        let digest = partial.digest();
        assert!(digest.to_string().starts_with("ba7816bf"), "that of `abc`, FIPS 180-2, B.1");
        let pin = partial.finish().unwrap();
        assert_eq!(archives.list().unwrap(), [digest].into());
        assert_eq!(fs::read(archives.path(digest)).unwrap(), b"abc");
        let second = archives.pin(digest);
        drop(pin);
        assert!(!archives.remove(digest).unwrap(), "somebody has it pinned");
        drop(second);
        assert!(archives.remove(digest).unwrap());
        assert!(archives.remove(digest).unwrap(), "it is gone");
        assert_eq!(archives.list().unwrap(), BTreeSet::new());
    }

    #[test]
    fn what_is_not_finished_or_too_long_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let archives = Archives::at(directory.path());
        let mut partial = archives.begin(1, 4).unwrap();
        partial.write(b"1234").unwrap();
        assert_eq!(partial.write(b"5").unwrap_err().kind(), ErrorKind::FileTooLarge);
        drop(partial);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
