// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask tidy`: the invariants of `docs/architecture.md` and the hygiene of the tree, as checks that take under two seconds.
//!
//! A check is a function of a [`Tree`], which holds the files of the checkout in memory, and gives [`Problem`]s. None reads
//! the disk, so every one is tested on a few lines of text.

mod licences;
mod manifests;
mod markdown;
mod scan;
mod sources;
mod tools;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

/// Arguments of `cargo xtask tidy`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Tidy {
    /// Also check the format of all Rust files, and licences and duplicates of dependencies with cargo-deny if it is installed
    #[arg(long)]
    all: bool,
}

impl Tidy {
    /// Checks the checkout at `root`. Problems go to standard output, one a line.
    ///
    /// # Errors
    /// When there are problems, or the files cannot be listed or read.
    pub(crate) fn run(self, root: &Path) -> Result<()> {
        let tree = Tree::load(root)?;
        let problems = check(&tree);
        let mut out = io::stdout().lock();
        for problem in &problems {
            writeln!(out, "{problem}").context("writing to standard output")?;
        }
        drop(out);
        let tools = if self.all { tools::run(root, &tree) } else { Ok(()) };
        match problems.len() {
            0 => {}
            1 => bail!("the tree has 1 problem, named above"),
            many => bail!("the tree has {many} problems, named above"),
        }
        tools?;
        eprintln!("tidy: {} files, no problems", tree.files.len());
        Ok(())
    }
}

/// Everything that is wrong with `tree`, in the order of paths and lines.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = licences::check(tree);
    problems.extend(sources::check(tree));
    problems.extend(manifests::check(tree));
    problems.extend(markdown::check(tree));
    problems.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    problems
}

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Relative to the root.
    path: String,
    /// Counted from 1.
    line: usize,
    what: String,
    why: &'static str,
    remedy: String,
}

impl Problem {
    fn new(
        path: &str,
        line: usize,
        what: impl Into<String>,
        why: &'static str,
        remedy: impl Into<String>,
    ) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), why, remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, what, why, remedy } = self;
        write!(f, "{path}:{line}: {what}; {why}; {remedy}")
    }
}

/// The files of a checkout: all that git knows or would add, by path relative to the root with `/` between components.
/// Files that are not text are there with no content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the checkout at `root`.
    ///
    /// # Errors
    /// When git cannot list its files, or one cannot be read.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root);
        let listing =
            git.output().with_context(|| format!("listing the files of {}", root.display()))?;
        ensure!(
            listing.status.success(),
            "listing the files of {}: git ls-files failed: {}",
            root.display(),
            String::from_utf8_lossy(&listing.stderr).trim()
        );
        let mut files = BTreeMap::new();
        for name in listing.stdout.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let name = std::str::from_utf8(name)
                .with_context(|| format!("the file name {name:?} is not UTF-8; rename it"))?;
            let path = root.join(name);
            match fs::read(&path) {
                Ok(bytes) => drop(
                    files.insert(name.to_owned(), String::from_utf8(bytes).unwrap_or_default()),
                ),
                // Removed, but not yet from the index; or a link to a directory, whose files are listed themselves.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory
                    ) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("reading {}", path.display()))
                }
            }
        }
        Ok(Self { files })
    }

    /// Paths and texts, by path.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The text of a file.
    fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether there is a file or directory of this path.
    fn exists(&self, path: &str) -> bool {
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.range(format!("{path}/")..).next().is_some_and(|(found, _)| {
                found.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
            })
    }
}

/// The directory of a path: empty for the root.
fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The last component of a path.
fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// What follows the last dot of the last component of a path; empty if there is none.
fn extension(path: &str) -> &str {
    file_name(path).rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// `name` in the directory `directory`.
fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

/// Whether `path` is `folder` or in it.
fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The line, counted from 1, that the byte `offset` of `text` is in.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of these files.
    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        let owned = |&(path, text): &(&str, &str)| (path.to_owned(), text.to_owned());
        Tree { files: files.iter().map(owned).collect() }
    }

    /// `path:line: what` of each problem.
    pub(super) fn heads(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(|p| format!("{}:{}: {}", p.path, p.line, p.what)).collect()
    }

    #[test]
    fn a_problem_is_one_line_with_place_fault_reason_and_remedy() {
        let problem = Problem::new("a/b.rs", 3, "it is wrong", "that hurts", "write it right");
        assert_eq!(problem.to_string(), "a/b.rs:3: it is wrong; that hurts; write it right");
    }

    #[test]
    fn directories_exist_by_their_files() {
        let tree = tree(&[("a/b/c", ""), ("a/b-d", ""), ("e", "")]);
        for path in ["", "a", "a/b", "a/b/c", "a/b-d", "e"] {
            assert!(tree.exists(path), "{path}");
        }
        for path in ["b", "a/", "a/b/", "a/b-", "a/c", "e/f"] {
            assert!(!tree.exists(path), "{path}");
        }
    }

    #[test]
    fn paths_come_apart() {
        assert_eq!((directory("a/b.c"), file_name("a/b.c"), extension("a/b.c")), ("a", "b.c", "c"));
        assert_eq!((directory("b"), file_name("b"), extension("a.b/c")), ("", "b", ""));
        assert!(is_in("dvk/abi/x", "dvk/abi") && is_in("dvk/abi", "dvk/abi"));
        assert!(!is_in("dvk/abix", "dvk/abi"));
    }

    #[test]
    fn problems_of_all_checks_come_in_order() {
        let tree = tree(&[
            ("z.rs", "// SPDX-License-Identifier: MIT OR Apache-2.0\nfn f() { todo!() } \n"),
            ("a.md", "text\n[x](gone.md)\n"),
        ]);
        let places: Vec<_> = check(&tree).iter().map(|p| (p.path.clone(), p.line)).collect();
        let expected = [("a.md", 1), ("a.md", 2), ("z.rs", 2), ("z.rs", 2)];
        assert_eq!(places, expected.map(|(path, line)| (path.to_owned(), line)));
    }

    #[test]
    fn a_checkout_is_read_as_git_sees_it() {
        let root = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            assert!(Command::new("git")
                .args(arguments)
                .current_dir(&root)
                .status()
                .unwrap()
                .success());
        };
        let write = |name: &str, bytes: &[u8]| fs::write(root.path().join(name), bytes).unwrap();
        git(&["init", "-q"]);
        write(".gitignore", b"/built\n");
        write("built", b"x");
        write("new", b"text");
        write("binary", &[0xff, 0xfe]);
        write("removed", b"");
        git(&["add", "removed"]);
        fs::remove_file(root.path().join("removed")).unwrap();
        let tree = Tree::load(root.path()).unwrap();
        let files: Vec<_> = tree.iter().collect();
        assert_eq!(files, [(".gitignore", "/built\n"), ("binary", ""), ("new", "text")]);
        assert!(Tree::load(&root.path().join("absent")).is_err());
    }
}
