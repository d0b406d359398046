// SPDX-License-Identifier: MIT OR Apache-2.0
//! Binary packages of Debian that are in the image of a node, each recorded by version and hash, and unpacked in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::apt::Archive;
use crate::digest::sha256_of;
use crate::resolution::Resolution;
use crate::step::{Session, Step};
use crate::store;

/// A recorded package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pin<'a> {
    /// Its name.
    pub(crate) package: &'a str,
    /// The suite that has it.
    pub(crate) suite: &'a str,
    /// The component of the suite.
    pub(crate) component: &'a str,
    /// The one version that is used; of a package whose suite replaces versions, see [`resolved`].
    pub(crate) version: &'a str,
    /// The hash of its .deb file.
    pub(crate) sha256: &'a str,
    /// The file of this checkout that records all this.
    pub(crate) recorded: &'static str,
}

/// The component of Debian's that most packages are in.
pub(crate) const FREE: &str = "main";

/// What the cache calls unpacked packages.
const KIND: &str = "packages";

/// Version and hash of what takes a package's place whose suite replaces versions: the recorded one while it is there, then the newest.
///
/// # Errors
/// When the archive cannot be asked, or has no such package.
pub(crate) fn resolved(session: &Session, pin: Pin<'_>) -> Result<(String, String)> {
    let recorded = || (pin.version.to_owned(), pin.sha256.to_owned());
    if session.store.find(KIND, pin.sha256).is_some() {
        return Ok(recorded());
    }
    let resolution = Resolution::of(session, pin.package, pin.version, pin.sha256)?;
    let kept = resolution.known().filter(|(_, sha256)| session.store.find(KIND, sha256).is_some());
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let mut step = session.begin("packages", &format!("asking the mirror for {}", pin.package))?;
    let offer = archive(session, pin, &mut step)?.preferred(
        &mut step,
        pin.package,
        pin.version,
        pin.sha256,
    )?;
    resolution.keep(&offer)?;
    step.finish(&format!("{} {} is taken", pin.package, offer.version));
    Ok((offer.version, offer.sha256))
}

/// The lists of the suite that has a package, as they are now.
fn archive(session: &Session, pin: Pin<'_>, step: &mut Step) -> Result<Archive> {
    // Apart from where the kernel's source is looked for, so that neither forgets the other's lists.
    let directory = session.store.directory("apt-packages")?;
    let archive = Archive::configure(&directory, &[pin.suite.to_owned()], pin.component)?;
    archive.update(step)?;
    Ok(archive)
}

/// Finds the package unpacked, or fetches, verifies and unpacks it; its files are below the path that is returned.
///
/// # Errors
/// When the recorded version is not to be had, or is not what was recorded.
pub(crate) fn unpacked(session: &Session, pin: Pin<'_>) -> Result<PathBuf> {
    if let Some(entry) = session.store.find(KIND, pin.sha256) {
        return Ok(entry);
    }
    let _lock = session.store.lock("download", || {
        session.notice("packages", "waiting for another dvs build that is fetching something");
    })?;
    let file = session.store.directory("downloads")?.join(format!("{}.deb", pin.sha256));
    if !sha256_of(&file).is_ok_and(|actual| actual == pin.sha256) {
        download(session, pin, &file).with_context(|| {
            format!(
                "fetching {} for the image; or put its package at {}",
                pin.package,
                file.display()
            )
        })?;
    }
    let mut step = session.begin("packages", &format!("unpacking {}", pin.package))?;
    let entry = session.store.create(KIND, pin.sha256, |directory| {
        step.run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(directory))
    })?;
    step.finish(&format!("{} {} unpacked", pin.package, pin.version));
    Ok(entry)
}

fn download(session: &Session, pin: Pin<'_>, to: &Path) -> Result<()> {
    let mut step = session.begin("packages", &format!("asking the mirror for {}", pin.package))?;
    let archive = archive(session, pin, &mut step)?;
    let offers = archive.offers(pin.package)?;
    let Some(offer) = offers.iter().find(|offer| offer.version == pin.version) else {
        let offered: Vec<_> = offers
            .iter()
            .map(|offer| format!("{} (SHA-256 {})", offer.version, offer.sha256))
            .collect();
        anyhow::bail!(
            "{} {} is no longer offered, but {}; record that in {}",
            pin.package,
            pin.version,
            offered.join(", "),
            pin.recorded
        );
    };
    ensure!(
        offer.sha256 == pin.sha256,
        "the archive's signed index gives SHA-256 {} for {} {}, and {} records {}",
        offer.sha256,
        pin.package,
        pin.version,
        pin.recorded,
        pin.sha256
    );
    let partial = session.store.directory("downloads")?.join("partial-package");
    store::remove(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let file = archive.download(&mut step, offer, &partial)?;
    let actual = sha256_of(&file)?;
    ensure!(actual == pin.sha256, "the SHA-256 of {} is {actual}", file.display());
    fs::rename(&file, to).with_context(|| format!("renaming {}", file.display()))?;
    store::remove(&partial)?;
    step.finish(&format!("{} {} downloaded and verified", pin.package, pin.version));
    Ok(())
}
