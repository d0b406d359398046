// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs of util-linux for MINIX file systems.

use std::io::Write;
use std::process::Command;

/// What `program` says with these arguments and a file with `image`, and the file afterwards.
fn run(program: &str, arguments: &[&str], image: &[u8]) -> (bool, String, Vec<u8>) {
    let mut file = tempfile::NamedTempFile::new().expect("making a file for an image");
    file.write_all(image).expect("writing an image");
    let mut path = std::env::var("PATH").unwrap_or_default();
    path.push_str(":/usr/sbin:/sbin");
    let output = Command::new(program)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .args(arguments)
        .arg(file.path())
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "running {program}: {error}; it is in util-linux: `cargo xtask doctor --install`"
            )
        });
    let said = [output.stdout, output.stderr].concat();
    let after = std::fs::read(file.path()).expect("reading an image");
    (output.status.success(), String::from_utf8_lossy(&said).into_owned(), after)
}

/// An empty file system of `bytes` bytes as `mkfs.minix` makes it.
pub(crate) fn mkfs(arguments: &[&str], bytes: usize) -> Vec<u8> {
    let (good, said, image) = run("mkfs.minix", arguments, &vec![0; bytes]);
    assert!(good, "mkfs.minix {arguments:?}: {said}");
    image
}

/// What `fsck.minix` has to say against an image; nothing if it is sound.
pub(crate) fn fsck(image: &[u8]) -> Option<String> {
    let (good, said, _) = run("fsck.minix", &["-f"], image);
    // It says more than its exit status does, so whatever it says counts.
    let complaints: Vec<_> =
        said.lines().filter(|line| !line.starts_with("Forcing filesystem check")).collect();
    (!good || !complaints.is_empty()).then(|| complaints.join("\n"))
}

#[test]
fn fsck_sees_what_is_wrong() {
    let mut image = mkfs(&["-3"], 1 << 20);
    assert_eq!(fsck(&image), None);
    // A block that nobody has is marked as used.
    image[3 * 1024 + 2] |= 1;
    let complaint = fsck(&image).expect("a complaint");
    assert!(complaint.contains("marked in use, no file uses it"), "{complaint}");
}
