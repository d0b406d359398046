// SPDX-License-Identifier: MIT OR Apache-2.0
//! The patches of the kernel's tree. They are applied in place, touching only the files whose content becomes another, so that a
//! changed patch costs the objects that depend on it and not a kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::digest::Digest;
use crate::store;
use crate::tree;

/// Runs a command to its end, as a step of the pipeline does.
type Run<'a> = &'a mut dyn FnMut(&mut Command) -> Result<()>;

/// What is known of a tree's patches, beside the tree.
struct Record {
    /// How the files were that a patch, of now or of earlier, changes.
    pristine: PathBuf,
    /// Names of these files, a line each; those that patches create have no pristine copy.
    touched: PathBuf,
    /// The key of the patches that the tree has. Absent while they are being changed.
    stamp: PathBuf,
    /// Where patches are tried before the tree is touched.
    trial: PathBuf,
}

/// The key of the patches in `patches`.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn key(patches: &Path) -> Result<String> {
    let mut digest = Digest::new("patches", 1);
    digest.tree("patches", patches, &[])?;
    Ok(digest.finish())
}

/// Makes `tree` what it was when it was unpacked, but for the patches in the folder `patches`. What must be remembered for that is kept in
/// `beside`. The caller has the tree for itself. Returns how many files were written or removed.
///
/// # Errors
/// When a patch does not apply (the tree is as it was, then), or the file system fails.
pub(crate) fn apply(run: Run<'_>, tree: &Path, beside: &Path, patches: &Path) -> Result<usize> {
    let key = key(patches)?;
    let record = Record {
        pristine: beside.join("pristine"),
        touched: beside.join("touched"),
        stamp: beside.join("stamp"),
        trial: beside.join("trial"),
    };
    if fs::read_to_string(&record.stamp).is_ok_and(|stamp| stamp == key) {
        return Ok(0);
    }
    fs::create_dir_all(beside).with_context(|| format!("creating {}", beside.display()))?;
    store::remove(&record.stamp)?;

    let mut texts = Vec::new();
    let mut named = BTreeSet::new();
    for patch in tree::files(patches, &[])? {
        let path = patches.join(patch);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        named.extend(files_of(&text).with_context(|| format!("reading {}", path.display()))?);
        texts.push(path);
    }
    let touched = record.remember(tree, &named)?;
    record.try_out(run, &named, &texts)?;
    let mut changes = 0;
    for name in &touched {
        let state = if named.contains(name) { &record.trial } else { &record.pristine };
        let source = Some(state.join(name)).filter(|path| path.exists());
        changes += usize::from(replace(&tree.join(name), source.as_deref())?);
    }
    store::remove(&record.trial)?;
    fs::write(&record.stamp, key).with_context(|| format!("writing {}", record.stamp.display()))?;
    Ok(changes)
}

impl Record {
    /// Keeps a copy of each of the `named` files that no patch has touched yet. Returns the names of all that one ever has.
    fn remember(&self, tree: &Path, named: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>> {
        let known = fs::read_to_string(&self.touched).unwrap_or_default();
        let mut known: BTreeSet<PathBuf> = known.lines().map(PathBuf::from).collect();
        for name in named {
            if known.insert(name.clone()) && tree.join(name).exists() {
                copy(&tree.join(name), &self.pristine.join(name))?;
            }
        }
        // Written last: a name that is not in it has not been touched, so its copy can be made again.
        let lines: String = known.iter().map(|name| format!("{}\n", name.display())).collect();
        fs::write(&self.touched, lines)
            .with_context(|| format!("writing {}", self.touched.display()))?;
        Ok(known)
    }

    /// Applies the patches to copies of the files that they name.
    fn try_out(&self, run: Run<'_>, named: &BTreeSet<PathBuf>, patches: &[PathBuf]) -> Result<()> {
        store::remove(&self.trial)?;
        fs::create_dir(&self.trial)
            .with_context(|| format!("creating {}", self.trial.display()))?;
        for name in named {
            let pristine = self.pristine.join(name);
            if pristine.exists() {
                copy(&pristine, &self.trial.join(name))?;
            }
        }
        for patch in patches {
            run(Command::new("patch")
                .current_dir(&self.trial)
                .args(["--strip=1", "--forward", "--batch", "--no-backup-if-mismatch", "--input"])
                .arg(patch))?;
        }
        Ok(())
    }
}

/// The files that a unified diff changes, creates or removes, relative to the top of the tree.
fn files_of(patch: &str) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for line in patch.lines() {
        let Some(name) = line.strip_prefix("--- ").or_else(|| line.strip_prefix("+++ ")) else {
            continue;
        };
        let name = name.split('\t').next().unwrap_or_default();
        // A removed line that begins with dashes looks like a header but for the letter.
        let Some(name) = name.strip_prefix("a/").or_else(|| name.strip_prefix("b/")) else {
            continue;
        };
        let path = PathBuf::from(name);
        ensure!(
            path.components().all(|component| matches!(component, Component::Normal(_))),
            "{name} is not a path inside of the kernel's tree"
        );
        files.insert(path);
    }
    ensure!(!files.is_empty(), "it is no unified diff of files a/… and b/…");
    Ok(files)
}

/// Makes `path` have the content of `source`, or not be there. Returns whether it was otherwise.
fn replace(path: &Path, source: Option<&Path>) -> Result<bool> {
    let Some(source) = source else {
        let there = path.exists();
        store::remove(path)?;
        return Ok(there);
    };
    let bytes = fs::read(source).with_context(|| format!("reading {}", source.display()))?;
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(false);
    }
    copy(source, path)?;
    Ok(true)
}

/// Copies a file, with its permissions, and makes the directories that it needs. The copy is new: its time is now.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: &str = "why\n\n--- a/one\n+++ b/one\n@@ -1 +1 @@\n-old\n+new\n";
    const CREATE: &str = "--- /dev/null\n+++ b/sub/two\n@@ -0,0 +1 @@\n+made\n";

    struct Bed {
        directory: tempfile::TempDir,
    }

    impl Bed {
        fn new() -> Self {
            let bed = Self { directory: tempfile::tempdir().unwrap() };
            for name in ["tree", "patches"] {
                fs::create_dir(bed.at(name)).unwrap();
            }
            fs::write(bed.at("tree/one"), "old\n").unwrap();
            fs::write(bed.at("tree/other"), "other\n").unwrap();
            bed
        }

        fn at(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn patch(&self, name: &str, text: Option<&str>) {
            let path = self.at("patches").join(name);
            match text {
                Some(text) => fs::write(path, text).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
        }

        fn apply(&self) -> Result<usize> {
            let mut run = |command: &mut Command| {
                ensure!(command.output()?.status.success(), "the command failed");
                Ok(())
            };
            apply(&mut run, &self.at("tree"), &self.at("beside"), &self.at("patches"))
        }

        fn one(&self) -> String {
            fs::read_to_string(self.at("tree/one")).unwrap()
        }
    }

    #[test]
    fn patches_come_and_go_and_touch_only_what_they_change() {
        let bed = Bed::new();
        bed.patch("1", Some(CHANGE));
        bed.patch("2", Some(CREATE));
        assert_eq!(bed.apply().unwrap(), 2);
        assert_eq!(bed.one(), "new\n");
        assert_eq!(fs::read_to_string(bed.at("tree/sub/two")).unwrap(), "made\n");
        assert_eq!(bed.apply().unwrap(), 0);

        bed.patch("2", None);
        assert_eq!(bed.apply().unwrap(), 1);
        assert!(!bed.at("tree/sub/two").exists());
        assert_eq!(bed.one(), "new\n");

        bed.patch("1", Some(&CHANGE.replace("+new", "+newer")));
        assert_eq!(bed.apply().unwrap(), 1);
        assert_eq!(bed.one(), "newer\n");

        bed.patch("1", None);
        assert_eq!(bed.apply().unwrap(), 1);
        assert_eq!(bed.one(), "old\n");
    }

    #[test]
    fn a_patch_that_does_not_apply_changes_nothing() {
        let bed = Bed::new();
        bed.patch("1", Some(CHANGE));
        bed.apply().unwrap();
        bed.patch("2", Some(CREATE));
        bed.patch("3", Some(&CHANGE.replace("-old", "-unknown")));
        bed.apply().unwrap_err();
        assert_eq!(bed.one(), "new\n");
        assert!(!bed.at("tree/sub/two").exists());
        bed.patch("3", None);
        assert_eq!(bed.apply().unwrap(), 1);
    }

    #[test]
    fn what_was_interrupted_is_done_again() {
        let bed = Bed::new();
        bed.patch("1", Some(CHANGE));
        bed.apply().unwrap();
        fs::remove_file(bed.at("beside/stamp")).unwrap();
        fs::write(bed.at("tree/one"), "half").unwrap();
        assert_eq!(bed.apply().unwrap(), 1);
        assert_eq!(bed.one(), "new\n");
    }

    #[test]
    fn a_patch_names_files_of_the_tree_only() {
        let files = files_of("--- a/x/y.c\t2026\n+++ b/x/y.c\n--- \n-- no header\n").unwrap();
        assert_eq!(files, BTreeSet::from([PathBuf::from("x/y.c")]));
        files_of("+++ b/../z\n").unwrap_err();
        files_of("no patch\n").unwrap_err();
    }
}
