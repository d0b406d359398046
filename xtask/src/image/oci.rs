// SPDX-License-Identifier: MIT OR Apache-2.0
//! Archives of OCI images (the OCI image specification, 1.1) of one layer: the same bytes for the same content.

use std::io::{self, Write as _};

use anyhow::{bail, Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{json, Value};

use crate::cpio::{Archive, Node};
use crate::digest::sha256;

/// What processes of the image are like, and what it is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    /// What it is.
    pub(crate) title: &'a str,
    /// Its version, which also is its tag.
    pub(crate) version: &'a str,
    /// What is run where nothing else is said: a program and its arguments.
    pub(crate) command: &'a [&'a str],
    /// The environment, each as `NAME=VALUE`.
    pub(crate) environment: &'a [&'a str],
}

/// What is said by its digest.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: sha256(&bytes), bytes }
    }

    fn document(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

/// Packs a root as an image. Nothing in it says when or where it was made.
///
/// # Errors
/// When the root has devices, which are for those who run containers to give.
pub(crate) fn archive(root: &Archive, about: About<'_>) -> Result<Vec<u8>> {
    let plain = layer(root)?;
    let diff_id = format!("sha256:{}", sha256(&plain));
    let layer = Blob::new(compressed(&plain).context("compressing the layer of an image")?);
    let config = Blob::document(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Env": about.environment, "Cmd": about.command, "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    }));
    let manifest = Blob::document(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("config.v1+json"),
        "layers": [layer.descriptor("layer.v1.tar+gzip")],
        "annotations": {
            "org.opencontainers.image.title": about.title,
            "org.opencontainers.image.version": about.version,
        },
    }));
    let mut chosen = manifest.descriptor("manifest.v1+json");
    chosen["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    chosen["annotations"] = json!({ "org.opencontainers.image.ref.name": about.version });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [chosen],
    });
    let layout = json!({ "imageLayoutVersion": "1.0.0" });
    let mut blobs = [layer, config, manifest];
    blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
    let write = || -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, document) in [("oci-layout", layout), ("index.json", index)] {
            file(&mut archive, name, 0o644, document.to_string().as_bytes())?;
        }
        for blob in &blobs {
            file(&mut archive, &format!("blobs/sha256/{}", blob.digest), 0o644, &blob.bytes)?;
        }
        archive.into_inner()
    };
    write().context("packing an image")
}

/// A root as a tar archive: the layer, uncompressed.
///
/// # Errors
/// As [`archive`].
pub(crate) fn layer(root: &Archive) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, mode, node) in root.entries() {
        let added = match node {
            Node::Directory => {
                let mut header = header(tar::EntryType::Directory, mode, 0);
                archive.append_data(&mut header, format!("{name}/"), io::empty())
            }
            Node::File(content) => file(&mut archive, name, mode, content),
            Node::Link(target) => {
                archive.append_link(&mut header(tar::EntryType::Symlink, mode, 0), name, target)
            }
            Node::Device { .. } => bail!("packing /{name}: an image has no devices"),
        };
        added.with_context(|| format!("packing /{name}"))?;
    }
    archive.into_inner().context("packing the layer of an image")
}

fn file(
    archive: &mut tar::Builder<Vec<u8>>,
    name: &str,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
    archive.append_data(&mut header, name, content)
}

/// Everything belongs to root, and is of 1970.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use dvs_runtime::{Bounds, Defaults, Store};

    const ABOUT: About<'_> = About {
        title: "a shop",
        version: "1.2.3",
        command: &["/bin/shop", "open"],
        environment: &["PATH=/bin"],
    };

    fn root() -> Archive {
        let mut root = Archive::default();
        root.add("/tmp", 0o1777, Node::Directory).unwrap();
        root.add("/bin/shop", 0o755, Node::File(vec![7; 100_000])).unwrap();
        root.add("/bin/sh", 0o777, Node::Link("shop".into())).unwrap();
        root.add("/etc/motd", 0o640, Node::File(b"hello".to_vec())).unwrap();
        root
    }

    #[test]
    fn nodes_take_the_image_as_it_was_meant() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.oci.tar");
        fs::write(&path, archive(&root(), ABOUT).unwrap()).unwrap();
        let store = Store::at(directory.path().join("images"));
        let image = store.import(&path, "shop", Bounds::default()).unwrap();
        let environment = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        let command = ABOUT.command.iter().map(|word| (*word).to_owned()).collect();
        let directory = Some("/".to_owned());
        assert_eq!(image.defaults, Defaults { command, environment, directory, user: None });
        assert_eq!((image.bytes, image.devices), (100_005, 0));
        let tree = store.root("shop").unwrap();
        let mode = |name: &str| {
            fs::symlink_metadata(tree.join(name)).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!(fs::read(tree.join("bin/shop")).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::read_link(tree.join("bin/sh")).unwrap(), std::path::Path::new("shop"));
        assert_eq!(["bin", "bin/shop", "etc/motd", "tmp"].map(mode), [0o755, 0o755, 0o640, 0o1777]);
    }

    #[test]
    fn a_damaged_layer_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.oci.tar");
        let mut bytes = archive(&root(), ABOUT).unwrap();
        // The layer is the only thing that is compressed.
        let start = bytes.windows(2).position(|pair| pair == [0x1f, 0x8b]).unwrap();
        bytes[start + 40] ^= 1;
        fs::write(&path, bytes).unwrap();
        let store = Store::at(directory.path().join("images"));
        store.import(&path, "shop", Bounds::default()).unwrap_err();
    }

    #[test]
    fn the_same_root_gives_the_same_bytes_and_nothing_says_when() {
        let once = archive(&root(), ABOUT).unwrap();
        assert_eq!(once, archive(&root(), ABOUT).unwrap());
        let mut other = root();
        other.add("/srv", 0o755, Node::Directory).unwrap();
        assert_ne!(once, archive(&other, ABOUT).unwrap());
        let mut members = tar::Archive::new(&once[..]);
        let names: Vec<_> = members
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let owner = (header.uid().unwrap(), header.gid().unwrap());
                assert_eq!((header.mtime().unwrap(), owner), (0, (0, 0)));
                entry.path().unwrap().display().to_string()
            })
            .collect();
        assert_eq!(names[..2], ["oci-layout", "index.json"]);
        assert!(names[2..].is_sorted() && names.len() == 5, "{names:?}");
        // Byte 4 to 7 of gzip are a time.
        let start = once.windows(2).position(|pair| pair == [0x1f, 0x8b]).unwrap();
        assert_eq!(once[start + 4..start + 8], [0; 4]);
    }

    #[test]
    fn devices_are_refused() {
        let mut root = root();
        root.add("/dev/null", 0o666, Node::Device { major: 1, minor: 3 }).unwrap();
        let error = archive(&root, ABOUT).unwrap_err().to_string();
        assert_eq!(error, "packing /dev/null: an image has no devices");
    }
}
