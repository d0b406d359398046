// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cache: directories named by the hash of their inputs, built aside and renamed into place when complete.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// Says that an entry is complete: the names and sizes of the files directly in it. A size that differs (a disk that lost its
/// last writes) makes the entry worthless.
const STAMP: &str = ".complete";

/// The cache directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// Held while one process works on something that others may want too. Dropping it, or dying, lets go.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file lets go only once every process has closed it, and one that is being started by another thread at this
        // moment has a copy until it becomes its program. An error means that nothing is locked any more.
        let _ = self.file.unlock();
    }
}

impl Store {
    /// The cache at `root`, which need not exist yet.
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A directory of the cache, created when absent.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// Takes the lock `name`, waiting for its holder if there is one; `waiting` is called before that.
    ///
    /// # Errors
    /// When the lock file cannot be opened or locked.
    pub(crate) fn lock(&self, name: &str, waiting: impl FnOnce()) -> Result<Lock> {
        let (path, file) = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().with_context(|| format!("locking {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()))
            }
        }
        Ok(Lock { file })
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.directory("locks")?.join(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening the lock file {}", path.display()))?;
        Ok((path, file))
    }

    /// The entry `kind`/`key`, if it is complete.
    pub(crate) fn find(&self, kind: &str, key: &str) -> Option<PathBuf> {
        let path = self.root.join(kind).join(key);
        let stamp = fs::read_to_string(path.join(STAMP)).ok()?;
        if listing(&path).ok()? != stamp {
            return None;
        }
        // The time of last use, for `prune`; failing to note it costs a rebuild some day.
        let _ = File::options()
            .append(true)
            .open(path.join(STAMP))
            .and_then(|file| file.set_modified(SystemTime::now()));
        Some(path)
    }

    /// Makes the entry `kind`/`key` with `build`, which fills the empty directory that it is given, and returns where it is.
    /// Until `build` has succeeded nobody can find the entry. The caller holds the lock that guards it.
    ///
    /// # Errors
    /// What `build` fails with, or a failure of the file system. What was half-built is removed.
    pub(crate) fn create(
        &self,
        kind: &str,
        key: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let parent = self.directory(kind)?;
        let path = parent.join(key);
        let partial = parent.join(format!("{key}.partial"));
        remove(&partial)?;
        fs::create_dir(&partial).with_context(|| format!("creating {}", partial.display()))?;
        let built = build(&partial).and_then(|()| {
            let listing =
                listing(&partial).with_context(|| format!("listing {}", partial.display()))?;
            fs::write(partial.join(STAMP), listing)
                .with_context(|| format!("completing {}", partial.display()))?;
            remove(&path)?;
            fs::rename(&partial, &path)
                .with_context(|| format!("renaming {} to {}", partial.display(), path.display()))
        });
        if let Err(error) = built {
            // The first error is the one to show; a left-over is removed by the next attempt.
            let _ = remove(&partial);
            return Err(error);
        }
        Ok(path)
    }

    /// The name of the lock that guards the making of an entry, and an entry that is worked in.
    pub(crate) fn lock_name(kind: &str, key: &str) -> String {
        format!("{kind}-{key}")
    }

    /// Removes all but the `keep` most recently used entries of a kind. One whose lock somebody holds stays.
    ///
    /// # Errors
    /// When the directory cannot be read or an entry not be removed.
    pub(crate) fn prune(&self, kind: &str, keep: usize) -> Result<()> {
        let parent = self.directory(kind)?;
        let mut entries = Vec::new();
        for entry in
            fs::read_dir(&parent).with_context(|| format!("listing {}", parent.display()))?
        {
            let path = entry?.path();
            if let Ok(used) = fs::metadata(path.join(STAMP)).and_then(|stamp| stamp.modified()) {
                entries.push((used, path));
            }
        }
        entries.sort();
        let surplus = entries.len().saturating_sub(keep);
        for (_, path) in entries.iter().take(surplus) {
            let key = path.file_name().unwrap_or_default().to_string_lossy();
            let (_, file) = self.lock_file(&Self::lock_name(kind, &key))?;
            if file.try_lock().is_ok() {
                let _lock = Lock { file };
                remove(path)?;
            }
        }
        Ok(())
    }
}

/// Removes a file or a directory with all that is in it, if it is there.
///
/// # Errors
/// When it is there and cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn listing(directory: &Path) -> io::Result<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && entry.file_name() != STAMP {
            lines.push(format!("{} {}\n", metadata.len(), entry.file_name().to_string_lossy()));
        }
    }
    lines.sort();
    Ok(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_failed_build_leaves_nothing_to_find() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let error = store
            .create("kernel", "k", |path| {
                fs::write(path.join("vmlinux"), "half").unwrap();
                bail!("the compiler is on strike")
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "the compiler is on strike");
        assert_eq!(store.find("kernel", "k"), None);
        assert_eq!(fs::read_dir(directory.path().join("kernel")).unwrap().count(), 0);
    }

    #[test]
    fn an_interrupted_build_is_not_found_and_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        // What a process that was killed in the middle leaves.
        fs::create_dir_all(directory.path().join("kernel/k.partial")).unwrap();
        fs::write(directory.path().join("kernel/k.partial/stale"), "").unwrap();
        assert_eq!(store.find("kernel", "k"), None);
        let path = store
            .create("kernel", "k", |path| Ok(fs::write(path.join("vmlinux"), "whole")?))
            .unwrap();
        assert_eq!(store.find("kernel", "k"), Some(path.clone()));
        assert!(!path.join("stale").exists());
    }

    #[test]
    fn a_truncated_file_makes_an_entry_worthless() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let path = store
            .create("kernel", "k", |path| Ok(fs::write(path.join("vmlinux"), "whole")?))
            .unwrap();
        fs::write(path.join("vmlinux"), "who").unwrap();
        assert_eq!(store.find("kernel", "k"), None);
    }

    #[test]
    fn pruning_keeps_what_was_used_last() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        for (age, key) in [(30, "a"), (10, "b"), (20, "c")] {
            let path = store.create("kernel", key, |_| Ok(())).unwrap();
            let used = SystemTime::now() - std::time::Duration::from_secs(age);
            File::options()
                .append(true)
                .open(path.join(STAMP))
                .unwrap()
                .set_modified(used)
                .unwrap();
        }
        store.find("kernel", "a").unwrap();
        store.prune("kernel", 2).unwrap();
        assert!(store.find("kernel", "a").is_some());
        assert!(store.find("kernel", "b").is_some());
        assert!(store.find("kernel", "c").is_none());
    }

    #[test]
    fn pruning_leaves_what_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        for key in ["a", "b"] {
            store.create("trees", key, |_| Ok(())).unwrap();
        }
        let lock = store.lock(&Store::lock_name("trees", "a"), || {}).unwrap();
        store.prune("trees", 0).unwrap();
        assert!(store.find("trees", "a").is_some());
        assert!(store.find("trees", "b").is_none());
        drop(lock);
        store.prune("trees", 0).unwrap();
        assert!(store.find("trees", "a").is_none());
    }

    #[test]
    fn a_lock_is_exclusive_until_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let lock = store.lock("x", || panic!("nobody holds it")).unwrap();
        let other = store.clone();
        let (told, waits) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _lock = other.lock("x", || told.send(()).unwrap()).unwrap();
        });
        waits.recv().unwrap();
        assert!(!thread.is_finished());
        drop(lock);
        thread.join().unwrap();
    }
}
