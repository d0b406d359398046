// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directory trees: listing source files, and mirroring them into another place without touching what did not change.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use walkdir::WalkDir;

/// The regular files under `directory`, as sorted relative paths, but for hidden files, editors' left-overs, and files and
/// directories called like one of `skip`.
///
/// # Errors
/// When a directory cannot be read.
pub(crate) fn files(directory: &Path, skip: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let walk = WalkDir::new(directory).sort_by_file_name().into_iter().filter_entry(|entry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0
            || !(name.starts_with('.') || name.ends_with('~') || skip.contains(&&*name))
    });
    for entry in walk {
        let entry = entry.with_context(|| format!("listing {}", directory.display()))?;
        if entry.file_type().is_file() {
            found.push(entry.path().strip_prefix(directory)?.to_path_buf());
        }
    }
    Ok(found)
}

/// A folder whose files appear at a place of a mirror.
#[derive(Clone, Debug)]
pub(crate) struct Mount {
    /// The folder in the checkout.
    pub(crate) from: PathBuf,
    /// Where its files go, relative to the mirror; empty for the mirror itself.
    pub(crate) at: PathBuf,
    /// Names of files and folders in it that do not go there.
    pub(crate) skip: &'static [&'static str],
}

/// What a mirroring did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Files written because they were new or different.
    pub(crate) written: usize,
    /// Files removed because no mount has them any more.
    pub(crate) removed: usize,
}

/// Makes `mirror` hold exactly the files of `mounts`. A file whose bytes did not change keeps its modification time,
/// so that make finds nothing to do for it.
///
/// # Errors
/// When two mounts give the same file, or on any failure of the file system.
pub(crate) fn mirror(mirror: &Path, mounts: &[Mount]) -> Result<Changes> {
    let mut wanted = BTreeMap::new();
    for mount in mounts {
        for relative in files(&mount.from, mount.skip)? {
            let from = mount.from.join(&relative);
            let at = mount.at.join(&relative);
            ensure!(
                wanted.insert(at.clone(), from.clone()).is_none(),
                "mounting {}: {} is already taken by another folder",
                from.display(),
                at.display()
            );
        }
    }
    let mut changes = Changes::default();
    fs::create_dir_all(mirror).with_context(|| format!("creating {}", mirror.display()))?;
    for entry in WalkDir::new(mirror).min_depth(1).contents_first(true) {
        let entry = entry.with_context(|| format!("listing {}", mirror.display()))?;
        let relative = entry.path().strip_prefix(mirror)?;
        if entry.file_type().is_dir() {
            match fs::remove_dir(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                    return Err(error)
                        .with_context(|| format!("removing {}", entry.path().display()))
                }
                _ => {}
            }
        } else if !wanted.contains_key(relative) {
            fs::remove_file(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
            changes.removed += 1;
        }
    }
    for (at, from) in wanted {
        let to = mirror.join(at);
        let bytes = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
        if fs::read(&to).is_ok_and(|present| present == bytes) {
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        fs::write(&to, bytes).with_context(|| format!("writing {}", to.display()))?;
        changes.written += 1;
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn hidden_and_skipped_files_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.rs", "m/b.rs", "m/tests.rs", "tests/c.rs", ".d", "e.rs~"] {
            write(directory.path().join(name), "");
        }
        let expected: Vec<PathBuf> = vec!["a.rs".into(), "m/b.rs".into()];
        assert_eq!(files(directory.path(), &["tests", "tests.rs"]).unwrap(), expected);
    }

    #[test]
    fn a_mirror_follows_its_sources_and_leaves_equal_files_alone() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        write(at("one/a.rs"), "a");
        write(at("one/b.rs"), "b");
        write(at("two/lib.rs"), "c");
        let mounts = [
            Mount { from: at("one"), at: PathBuf::new(), skip: &[] },
            Mount { from: at("two"), at: "core".into(), skip: &[] },
        ];
        let to = at("mirror");
        assert_eq!(mirror(&to, &mounts).unwrap(), Changes { written: 3, removed: 0 });
        assert_eq!(mirror(&to, &mounts).unwrap(), Changes::default());

        let kept = fs::metadata(to.join("a.rs")).unwrap().modified().unwrap();
        write(at("two/lib.rs"), "d");
        fs::remove_file(at("one/b.rs")).unwrap();
        write(to.join("stray/old.rs"), "");
        assert_eq!(mirror(&to, &mounts).unwrap(), Changes { written: 1, removed: 2 });
        assert_eq!(fs::read_to_string(to.join("core/lib.rs")).unwrap(), "d");
        assert_eq!(fs::metadata(to.join("a.rs")).unwrap().modified().unwrap(), kept);
        let expected: Vec<PathBuf> = vec!["a.rs".into(), "core/lib.rs".into()];
        assert_eq!(files(&to, &[]).unwrap(), expected);
    }

    #[test]
    fn two_mounts_may_not_give_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path().join("one/core/lib.rs"), "");
        write(directory.path().join("two/lib.rs"), "");
        let mounts = [
            Mount { from: directory.path().join("one"), at: PathBuf::new(), skip: &[] },
            Mount { from: directory.path().join("two"), at: "core".into(), skip: &[] },
        ];
        let error = mirror(&directory.path().join("mirror"), &mounts).unwrap_err();
        assert!(error.to_string().contains("already taken"), "{error}");
    }
}
