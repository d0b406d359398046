// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node has as its initial root: PID 1 and the root, which is an image of the programs and files of `rootfs/manifest.toml`, as a
//! compressed cpio archive. The same content gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dvs_image::root::{Checksum, CHECKSUM, IMAGE};

use crate::cpio::{Archive, Node};
use crate::digest::Digest;
use crate::manifest::{Layer, Manifest};
use crate::package;
use crate::release::{self, Release};
use crate::squashfs;
use crate::step::Session;
use crate::userspace::{self, Programs};

/// Compression level of zstd: from 16 on it looks for the best sequence of matches, which makes programs a quarter smaller; the highest
/// ones need more memory to unpack than the smallest nodes have.
const LEVEL: i32 = 17;

/// How many archives the cache keeps.
const KEPT: usize = 16;

/// What a node's user space is made of, built.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// The archive that every node boots.
    pub(crate) node: PathBuf,
    /// The same followed by the overlay for tests, if that was asked for.
    pub(crate) test: Option<PathBuf>,
    /// The programs, which run on the host as well.
    pub(crate) programs: Programs,
    /// What a node that runs it says it is.
    pub(crate) release: Release,
}

/// Compiles the programs and packs them, as an image of `version`.
///
/// # Errors
/// When a program does not compile, a file is missing, or the cache cannot be written.
pub(crate) fn build(session: &Session, test: bool, version: &str) -> Result<Root> {
    let root = &session.workspace.root;
    let manifest = Manifest::resolved(session)?;
    let programs = userspace::of_node(session, &manifest, test)?;
    for (binary, source) in manifest.c_programs(test) {
        userspace::build_c(session, &programs, &binary, &source)?;
    }
    let archive = |layer: &Layer| {
        let archive = layer.archive(root, &programs, |pin| package::unpacked(session, pin));
        archive.context("packing the root image")
    };
    let (initial, mut image) = (archive(&manifest.initial)?, archive(&manifest.node)?);
    let key = release::signing_key()?;
    let release = Release::of(session, version, &[initial.bytes(), image.bytes()], &key)?;
    release.add_to(&mut image, &key)?;
    let node = node(session, initial, &image)?;
    let test = match test {
        true => Some(laid_over(session, &node, &archive(&manifest.test)?.bytes())?),
        false => None,
    };
    Ok(Root { node, test, programs, release })
}

/// Packs the initial root of a node, with the image of its root.
fn node(session: &Session, mut initial: Archive, image: &Archive) -> Result<PathBuf> {
    let mut digest = Digest::new("initramfs", 2);
    digest.bytes("initial", &initial.bytes());
    digest.bytes("image", &image.bytes());
    packed(session, &digest.finish(), || {
        let image = squashfs::image(image)?;
        let checksum = Checksum::of(&image[..]).context("summing the root image up")?;
        initial.add(CHECKSUM, 0o444, Node::File(format!("{checksum}\n").into_bytes()))?;
        initial.add(IMAGE, 0o444, Node::File(image))?;
        compressed(&initial.bytes())
    })
}

/// Packs the root of a machine that has a shell and nothing else.
///
/// # Errors
/// As [`build`].
pub(crate) fn shell(session: &Session) -> Result<PathBuf> {
    let root = &session.workspace.root;
    // It has no program of this workspace.
    let programs = Programs::in_directory(root);
    let layer = Manifest::read(root)?.shell;
    let archive = layer.archive(root, &programs, |pin| package::unpacked(session, pin));
    let archive = archive.context("packing the root of a bare shell")?.bytes();
    let mut digest = Digest::new("initramfs", 1);
    digest.bytes("archive", &archive);
    packed(session, &digest.finish(), || compressed(&archive))
}

/// Lays the files of the manifest's layer for benchmarks over a packed archive.
///
/// # Errors
/// When a file is missing, or the cache cannot be written.
pub(crate) fn for_benchmarks(session: &Session, root: &Root) -> Result<PathBuf> {
    with_layer(session, root, &Manifest::read(&session.workspace.root)?.bench)
        .context("packing what is compared with")
}

/// Lays the files of the manifest's layer for a suite of tests of file systems over a packed archive.
///
/// # Errors
/// When a file is missing, a program cannot be built, or the cache cannot be written.
pub(crate) fn for_posix(session: &Session, root: &Root) -> Result<PathBuf> {
    with_layer(session, root, &Manifest::read(&session.workspace.root)?.posix)
        .context("packing a suite of tests of file systems")
}

fn with_layer(session: &Session, root: &Root, layer: &Layer) -> Result<PathBuf> {
    let below = root.test.as_ref().context("laying files over the overlay for tests")?;
    let unpacked = |pin: package::Pin<'_>| package::unpacked(session, pin);
    let mut archive = layer.archive(&session.workspace.root, &root.programs, unpacked)?;
    layer.add_installed(session, &mut archive)?;
    laid_over(session, below, &archive.bytes())
}

/// Lays an archive over a packed one: what the kernel unpacks one after the other, PID 1 lays over the root.
fn laid_over(session: &Session, below: &Path, archive: &[u8]) -> Result<PathBuf> {
    let mut digest = Digest::new("initramfs", 1);
    digest.file("below", below)?;
    digest.bytes("archive", archive);
    packed(session, &digest.finish(), || {
        let mut bytes = fs::read(below).with_context(|| format!("reading {}", below.display()))?;
        bytes.extend(compressed(archive)?);
        Ok(bytes)
    })
}

/// Finds what is packed under a key in the cache, or packs it.
fn packed(session: &Session, key: &str, pack: impl FnOnce() -> Result<Vec<u8>>) -> Result<PathBuf> {
    const FILE: &str = "initramfs.cpio.zst";
    if let Some(entry) = session.store.find("initramfs", key) {
        return Ok(entry.join(FILE));
    }
    let _lock = session.store.lock("initramfs", || {
        session.notice("root image", "waiting for another dvs build");
    })?;
    let step = session.begin("root image", "packing")?;
    let entry = session.store.create("initramfs", key, |directory| {
        let path = directory.join(FILE);
        fs::write(&path, pack()?).with_context(|| format!("writing {}", path.display()))
    })?;
    session.store.prune("initramfs", KEPT)?;
    let path = entry.join(FILE);
    let size = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
    step.finish(&format!("root image packed: {:.1} MB", size as f64 / 1e6));
    Ok(path)
}

/// The kernel unpacks archives that are compressed on their own one after the other.
fn compressed(archive: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(archive, LEVEL).context("compressing the root image")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio;

    #[test]
    fn the_same_content_gives_the_same_bytes_twice() {
        let archive = || {
            let mut archive = cpio::Archive::default();
            let content: Vec<u8> =
                (0..300_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
            archive.add("/init", 0o755, cpio::Node::File(content)).unwrap();
            archive.add("/dev/console", 0o600, cpio::Node::Device { major: 5, minor: 1 }).unwrap();
            archive.bytes()
        };
        let once = compressed(&archive()).unwrap();
        assert_eq!(once, compressed(&archive()).unwrap());
        assert_eq!(zstd::stream::decode_all(&once[..]).unwrap(), archive());
    }
}
