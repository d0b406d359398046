// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's source: found, verified and unpacked.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;
use walkdir::WalkDir;

use crate::apt::{Archive, Offer};
use crate::digest::{sha256_of, Digest};
use crate::resolution::Resolution;
use crate::step::{Session, Step};
use crate::store::{self, Store};

/// `kernel/source.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    /// The kernel series, such as `7.2`.
    pub(crate) series: String,
    /// Where Debian has it.
    pub(crate) debian: Debian,
    /// What is needed to build it.
    pub(crate) tools: Tools,
}

/// A recorded source package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Debian {
    suites: Vec<String>,
    component: String,
    version: String,
    sha256: String,
}

/// Least versions of tools.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tools {
    /// The compiler of the kernel's Rust.
    pub(crate) rustc: String,
    /// Major version of clang, lld and the LLVM tools.
    pub(crate) llvm: u32,
    /// The exact version of bindgen that is installed.
    pub(crate) bindgen: String,
}

impl Pins {
    /// Reads `kernel/source.toml`.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub(crate) fn read(session: &Session) -> Result<Self> {
        let path = session.workspace.join("kernel/source.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }

    fn package(&self) -> String {
        format!("linux-source-{}", self.series)
    }
}

/// Where the source comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Debian's archive, as `kernel/source.toml` says.
    Debian,
    /// A tree or tarball of the user's.
    Given(PathBuf),
}

impl Origin {
    /// From the option `--kernel-src`, which clap also reads from `DVS_KERNEL_SRC`.
    pub(crate) fn new(given: Option<&Path>) -> Self {
        given.map_or(Self::Debian, |path| Self::Given(path.to_path_buf()))
    }
}

/// An unpacked source tree in the cache. Others may be building from it, and with other patches: see [`Source::lock_name`].
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Names the tree: its origin.
    pub(crate) key: String,
    /// The entry of the cache; object directories may be put beside the tree.
    pub(crate) entry: PathBuf,
    /// What it is, for people.
    pub(crate) title: String,
}

const KIND: &str = "trees";

impl Source {
    /// The top of the tree.
    pub(crate) fn tree(&self) -> PathBuf {
        self.entry.join("linux")
    }

    /// Where it is kept how the tree has been patched.
    pub(crate) fn patched(&self) -> PathBuf {
        self.entry.join("patched")
    }

    /// The lock to hold while anything is written in the tree or beside it.
    pub(crate) fn lock_name(&self) -> String {
        Store::lock_name(KIND, &self.key)
    }
}

/// Makes the source tree, or finds it made.
///
/// # Errors
/// When the source cannot be fetched, verified, unpacked or patched.
pub(crate) fn prepare(session: &Session, pins: &Pins, origin: &Origin) -> Result<Source> {
    match origin {
        Origin::Debian => from_debian(session, pins),
        Origin::Given(path) => {
            let path = env::current_dir()?.join(path);
            let metadata = fs::metadata(&path)
                .with_context(|| format!("opening the kernel source {}", path.display()))?;
            let (identity, title) = if metadata.is_dir() {
                (tree_identity(&path)?, format!("linux from {}", path.display()))
            } else {
                (sha256_of(&path)?, format!("linux from {}", path.display()))
            };
            unpacked(session, &identity, title, |step, to| {
                if metadata.is_dir() {
                    step.now(&format!("copying {}", path.display()));
                    copy_tree(step, &path, to)
                } else {
                    step.now(&format!("unpacking {}", path.display()));
                    unpack_tarball(step, &path, to)
                }
            })
        }
    }
}

fn from_debian(session: &Session, pins: &Pins) -> Result<Source> {
    // What was resolved once stays, so that later builds need no network and no two of them differ.
    let Debian { version, sha256, .. } = &pins.debian;
    let resolution = Resolution::of(session, &pins.package(), version, sha256)?;
    let known = resolution.known();
    if let Some((version, sha256)) = &known {
        let key = tree_key(sha256);
        if let Some(entry) = session.store.find(KIND, &key) {
            return Ok(Source { key, entry, title: format!("linux {version}") });
        }
    }

    let _lock = session.store.lock("download", || {
        session.notice("kernel source", "waiting for another dvs build that is fetching it");
    })?;
    let downloads = session.store.directory("downloads")?;
    let known_file = known
        .map(|(version, sha256)| (downloads.join(format!("{sha256}.deb")), version, sha256))
        .filter(|(path, _, sha256)| sha256_of(path).is_ok_and(|actual| actual == *sha256));
    let (package, version, sha256) = match known_file {
        Some(known) => known,
        None => {
            let (path, offer) = download(session, pins, &downloads)?;
            resolution.keep(&offer)?;
            (path, offer.version, offer.sha256)
        }
    };
    unpacked(session, &sha256, format!("linux {version}"), |step, to| {
        step.now(&format!("unpacking linux {version}"));
        unpack_package(step, &package, to)
    })
}

/// Fetches the recorded version, or else the newest one, into `downloads`.
fn download(session: &Session, pins: &Pins, downloads: &Path) -> Result<(PathBuf, Offer)> {
    let mut step = session.begin("kernel source", "asking the mirror which versions it has")?;
    let directory = session.store.directory("apt")?;
    let archive = Archive::configure(&directory, &pins.debian.suites, &pins.debian.component)?;
    archive.update(&mut step)?;
    let names = archive.names("linux-source-7.")?;
    let Some(package) = choose_package(&names, &pins.series) else {
        bail!(
            "finding the kernel source: none of {} has linux-source-{} or newer; give a source tree or tarball with `--kernel-src`",
            pins.debian.suites.join(", "),
            pins.series
        );
    };
    if package != pins.package() {
        step.remark(&format!(
            "the archive has no {} any more; trying {package}, which the driver may not compile with",
            pins.package()
        ));
    }
    let Debian { version, sha256, .. } = &pins.debian;
    let offer = archive.preferred(&mut step, &package, version, sha256)?;
    step.now(&format!("downloading {package} {}", offer.version));
    let partial = downloads.join("partial");
    store::remove(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let file = archive.download(&mut step, &offer, &partial)?;
    let actual = sha256_of(&file)?;
    ensure!(
        actual == offer.sha256,
        "verifying {}: its SHA-256 is {actual}, the signed index gives {}",
        file.display(),
        offer.sha256
    );
    let path = downloads.join(format!("{actual}.deb"));
    fs::rename(&file, &path).with_context(|| format!("renaming {}", file.display()))?;
    store::remove(&partial)?;
    step.finish(&format!("{package} {} downloaded and verified", offer.version));
    Ok((path, offer))
}

/// The package of `series`, or else the newest later one.
fn choose_package(names: &[String], series: &str) -> Option<String> {
    let version = |name: &str| {
        let (major, minor) = name.strip_prefix("linux-source-")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let exact = format!("linux-source-{series}");
    if names.contains(&exact) {
        return Some(exact);
    }
    let floor = version(&exact)?;
    names
        .iter()
        .filter_map(|name| Some((version(name)?, name)))
        .filter(|(version, _)| *version > floor)
        .max()
        .map(|(_, name)| name.clone())
}

/// The key of a tree: changes with the source's identity and this recipe. Patches come and go in the tree: see [`crate::patches`].
fn tree_key(identity: &str) -> String {
    let mut digest = Digest::new(KIND, 2);
    digest.text("source", identity);
    digest.finish()
}

/// Finds the tree of `identity`, or makes it: `unpack` fills the directory that it is given.
fn unpacked(
    session: &Session,
    identity: &str,
    title: String,
    unpack: impl FnOnce(&mut Step, &Path) -> Result<()>,
) -> Result<Source> {
    let key = tree_key(identity);
    let _lock = session.store.lock(&Store::lock_name(KIND, &key), || {
        session.notice(
            "kernel source",
            "waiting for another dvs build that works with the same source",
        );
    })?;
    if let Some(entry) = session.store.find(KIND, &key) {
        return Ok(Source { key, entry, title });
    }
    // A tree with its objects takes gigabytes: those of older versions go.
    session.store.prune(KIND, 1)?;
    let mut step = session.begin("kernel source", "preparing")?;
    let entry = session.store.create(KIND, &key, |directory| {
        let tree = directory.join("linux");
        fs::create_dir(&tree).with_context(|| format!("creating {}", tree.display()))?;
        unpack(&mut step, &tree)?;
        ensure!(
            tree.join("scripts/min-tool-version.sh").exists(),
            "{title} is not a Linux source tree: it has no scripts/min-tool-version.sh"
        );
        Ok(())
    })?;
    step.finish(&format!("{title} unpacked"));
    Ok(Source { key, entry, title })
}

/// Debian's source package holds one tarball.
fn unpack_package(step: &mut Step, package: &Path, to: &Path) -> Result<()> {
    let aside = to.with_extension("package");
    store::remove(&aside)?;
    step.run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&aside))?;
    let tarball = WalkDir::new(aside.join("usr/src"))
        .into_iter()
        .filter_map(|entry| Some(entry.ok()?.into_path()))
        .find(|path| path.to_string_lossy().ends_with(".tar.xz"))
        .with_context(|| format!("unpacking {}: there is no tarball in it", package.display()))?;
    unpack_tarball(step, &tarball, to)?;
    store::remove(&aside)
}

fn unpack_tarball(step: &mut Step, tarball: &Path, to: &Path) -> Result<()> {
    step.run(
        Command::new("tar")
            .arg("--extract")
            .arg("--file")
            .arg(tarball)
            .arg("--directory")
            .arg(to)
            .arg("--strip-components=1"),
    )
}

fn copy_tree(step: &mut Step, from: &Path, to: &Path) -> Result<()> {
    step.run(
        Command::new("cp")
            .args(["--archive", "--reflink=auto", "--no-target-directory"])
            .arg(from)
            .arg(to),
    )
}

/// Stands for a tree of the user's without reading all of it: names, sizes and times of its files.
fn tree_identity(tree: &Path) -> Result<String> {
    let mut digest = Digest::new("tree", 1);
    let entries = WalkDir::new(tree)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.file_name() != ".git");
    for entry in entries {
        let entry = entry.with_context(|| format!("listing {}", tree.display()))?;
        let metadata = entry.metadata().with_context(|| format!("listing {}", tree.display()))?;
        if metadata.is_file() {
            let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH)?;
            digest.text("name", &entry.path().to_string_lossy());
            digest.bytes("size", &metadata.len().to_le_bytes());
            digest.bytes("modified_ns", &modified.as_nanos().to_le_bytes());
        }
    }
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(series: &[&str]) -> Vec<String> {
        series.iter().map(|series| format!("linux-source-{series}")).collect()
    }

    #[test]
    fn the_recorded_series_is_preferred_and_then_the_newest_later_one() {
        let choose = |present: &[&str]| choose_package(&names(present), "7.2");
        assert_eq!(choose(&["7.1", "7.2", "7.10"]).as_deref(), Some("linux-source-7.2"));
        assert_eq!(choose(&["7.1", "7.3", "7.10"]).as_deref(), Some("linux-source-7.10"));
        assert_eq!(choose(&["7.1", "7.0"]), None);
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn the_pins_of_this_tree_are_well_formed() {
        let text = include_str!("../../kernel/source.toml");
        let pins: Pins = toml::from_str(text).unwrap();
        assert!(pins.debian.version.starts_with(&format!("{}.", pins.series)));
        assert_eq!(pins.debian.sha256.len(), 64);
    }
}
