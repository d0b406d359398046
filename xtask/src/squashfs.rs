// SPDX-License-Identifier: MIT OR Apache-2.0
//! Read-only file systems that stay compressed (squashfs), the same bytes for the same content.

use std::fs::{self, File};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::cpio::Archive;
use crate::image::oci;

/// Of the package squashfs-tools; its sibling for archives, `sqfstar`, knows no compression level in the version of Debian 12.
const PROGRAM: &str = "mksquashfs";
/// How much is compressed together. More is smaller, and has the kernel unpack more for each page that is wanted.
const BLOCK: &str = "128K";
/// Compression level of zstd. The higher ones take three times as long for hundredths of the size.
const LEVEL: &str = "19";
/// How the image begins.
const MAGIC: &[u8] = b"hsqs";

/// The image of a root.
///
/// # Errors
/// When the root has devices, or the program that makes it fails.
pub(crate) fn image(root: &Archive) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("creating a folder for a file system image")?;
    let (tar, image) = (folder.path().join("root.tar"), folder.path().join("root.squashfs"));
    fs::write(&tar, oci::layer(root)?).with_context(|| format!("writing {}", tar.display()))?;
    let input = File::open(&tar).with_context(|| format!("opening {}", tar.display()))?;
    let mut command = Command::new(PROGRAM);
    // Together with times on the command line, it is refused.
    command.env_remove("SOURCE_DATE_EPOCH").stdin(input);
    command.arg("-").arg(&image).args([
        "-tar",
        "-quiet",
        "-no-progress",
        "-reproducible",
        "-exit-on-error",
        "-no-xattrs",
    ]);
    command.args(["-mkfs-time", "0", "-all-time", "0", "-all-root", "-b", BLOCK]);
    command.args(["-root-mode", "755", "-root-uid", "0", "-root-gid", "0", "-root-time", "0"]);
    command.args(["-comp", "zstd", "-Xcompression-level", LEVEL]);
    let output = command
        .output()
        .with_context(|| format!("running {PROGRAM} to make a file system image"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("making a file system image: {PROGRAM}: {}: {}", output.status, said.trim());
    }
    let bytes = fs::read(&image).with_context(|| format!("reading {}", image.display()))?;
    ensure!(
        bytes.starts_with(MAGIC),
        "making a file system image: {PROGRAM} has made something else"
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::Node;

    fn root() -> Archive {
        let mut root = Archive::default();
        let content: Vec<u8> = (0..600_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        root.add("/usr/bin/program", 0o755, Node::File(content)).unwrap();
        root.add("/usr/bin/name", 0o777, Node::Link("program".into())).unwrap();
        root.add("/tmp", 0o1777, Node::Directory).unwrap();
        root
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_twice() {
        assert_eq!(image(&root()).unwrap(), image(&root()).unwrap());
    }

    #[test]
    fn what_is_in_the_image_is_what_was_put_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::write(&path, image(&root()).unwrap()).unwrap();
        let said = |arguments: &[&str]| {
            let output = Command::new("unsquashfs").args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let list = said(&["-lln", "-UTC", path.to_str().unwrap()]);
        let list = String::from_utf8(list).unwrap();
        let words = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(
            words.collect::<Vec<_>>(),
            [
                "drwxr-xr-x 0/0 37 1970-01-01 00:00 squashfs-root",
                "drwxrwxrwt 0/0 3 1970-01-01 00:00 squashfs-root/tmp",
                "drwxr-xr-x 0/0 26 1970-01-01 00:00 squashfs-root/usr",
                "drwxr-xr-x 0/0 42 1970-01-01 00:00 squashfs-root/usr/bin",
                "lrwxrwxrwx 0/0 7 1970-01-01 00:00 squashfs-root/usr/bin/name -> program",
                "-rwxr-xr-x 0/0 600000 1970-01-01 00:00 squashfs-root/usr/bin/program",
            ]
        );
        let content = said(&["-cat", path.to_str().unwrap(), "usr/bin/program"]);
        let sound = root();
        let file = sound.entries().find(|(name, _, _)| *name == "usr/bin/program").unwrap();
        assert_eq!(file.2, &Node::File(content));
    }

    #[test]
    fn devices_are_refused() {
        let mut root = root();
        root.add("/dev/null", 0o666, Node::Device { major: 1, minor: 3 }).unwrap();
        assert!(image(&root).unwrap_err().to_string().contains("dev/null"));
    }
}
