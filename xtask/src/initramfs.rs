// SPDX-License-Identifier: MIT OR Apache-2.0
//! The initial root of a node: programs and files of `rootfs/manifest.toml` as a compressed cpio archive, the same bytes for
//! the same content.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::digest::Digest;
use crate::manifest::{Layer, Manifest};
use crate::package;
use crate::release::{self, Release};
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
    let manifest = Manifest::read(root)?;
    let programs = userspace::build(session, &manifest.packages(test))?;
    for (binary, source) in manifest.c_programs(test) {
        userspace::build_c(session, &programs, &binary, &source)?;
    }
    let archive = |layer: &Layer| -> Result<_> {
        let archive = layer.archive(root, &programs, |pin| package::unpacked(session, pin));
        Ok(archive.context("packing the root image")?.bytes())
    };
    let mut archives = vec![archive(&manifest.node)?];
    let key = release::signing_key()?;
    let release = Release::of(session, version, &archives, &key)?;
    archives.push(release.archive(&key)?);
    let node = kept(session, &archives)?;
    let test = match test {
        true => {
            archives.push(archive(&manifest.test)?);
            Some(kept(session, &archives)?)
        }
        false => None,
    };
    Ok(Root { node, test, programs, release })
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
    kept(session, &[archive.context("packing the root of a bare shell")?.bytes()])
}

/// Lays the files of the manifest's layer for benchmarks over a packed archive.
///
/// # Errors
/// When a file is missing, or the cache cannot be written.
pub(crate) fn for_benchmarks(session: &Session, root: &Root) -> Result<PathBuf> {
    let manifest = Manifest::read(&session.workspace.root)?;
    let below =
        root.test.as_ref().context("laying files for benchmarks over the overlay for tests")?;
    let unpacked = |pin: package::Pin<'_>| package::unpacked(session, pin);
    let layer = manifest.bench.archive(&session.workspace.root, &root.programs, unpacked);
    let layer = layer.context("packing what is compared with")?.bytes();
    let mut digest = Digest::new("initramfs", 1);
    digest.file("below", below)?;
    digest.bytes("archive", &layer);
    packed(session, &digest.finish(), || {
        let mut bytes = fs::read(below).with_context(|| format!("reading {}", below.display()))?;
        bytes.extend(compressed(&[layer])?);
        Ok(bytes)
    })
}

/// Finds the compressed form of `archives`, laid one over the other, in the cache, or makes it.
fn kept(session: &Session, archives: &[Vec<u8>]) -> Result<PathBuf> {
    let mut digest = Digest::new("initramfs", 1);
    for archive in archives {
        digest.bytes("archive", archive);
    }
    packed(session, &digest.finish(), || compressed(archives))
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

/// Each archive in a frame of its own; the kernel unpacks one after the other.
fn compressed(archives: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for archive in archives {
        bytes.extend(zstd::bulk::compress(archive, LEVEL).context("compressing the root image")?);
    }
    Ok(bytes)
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
        let once = compressed(&[archive(), archive()]).unwrap();
        assert_eq!(once, compressed(&[archive(), archive()]).unwrap());
        assert_eq!(zstd::stream::decode_all(&once[..]).unwrap(), [archive(), archive()].concat());
    }
}
