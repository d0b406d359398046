// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys of cached artefacts: a hash over everything that an artefact is made from.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use crate::tree;

/// A hash being fed with labelled inputs.
///
/// Every label and value goes in with its length, so that no two different sequences of inputs give the same stream.
#[derive(Clone)]
pub(crate) struct Digest(Sha256);

impl Digest {
    /// Starts the key of one kind of artefact. Raise `version` when the recipe changes without its inputs changing.
    pub(crate) fn new(kind: &str, version: u32) -> Self {
        let mut digest = Self(Sha256::new());
        digest.bytes("kind", kind.as_bytes());
        digest.bytes("version", &version.to_le_bytes());
        digest
    }

    fn chunk(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Feeds a labelled value.
    pub(crate) fn bytes(&mut self, label: &str, value: &[u8]) {
        self.chunk(label.as_bytes());
        self.chunk(value);
    }

    /// Feeds a labelled text.
    pub(crate) fn text(&mut self, label: &str, value: &str) {
        self.bytes(label, value.as_bytes());
    }

    /// Feeds the content of a file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn file(&mut self, label: &str, path: &Path) -> Result<()> {
        self.text(label, &sha256_of(path)?);
        Ok(())
    }

    /// Feeds the names and contents of the files under `directory` that [`tree::files`] finds.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub(crate) fn tree(&mut self, label: &str, directory: &Path, skip: &[&str]) -> Result<()> {
        let files = tree::files(directory, skip)?;
        self.bytes(label, &(files.len() as u64).to_le_bytes());
        for relative in files {
            self.chunk(relative.as_os_str().as_bytes());
            self.file("content", &directory.join(&relative))?;
        }
        Ok(())
    }

    /// The key: 24 hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize()[..12])
    }
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hash.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The SHA-256 of these bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn of(inputs: &[(String, Vec<u8>)]) -> String {
        let mut digest = Digest::new("test", 1);
        for (label, value) in inputs {
            digest.bytes(label, value);
        }
        digest.finish()
    }

    proptest! {
        /// Equal inputs give equal keys, different inputs different ones, wherever the boundaries between them lie.
        #[test]
        fn keys_tell_inputs_apart(
            one in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0u8..2, 0..3)), 0..4),
            two in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0u8..2, 0..3)), 0..4),
        ) {
            prop_assert_eq!(of(&one) == of(&two), one == two);
        }
    }

    #[test]
    fn sha256_is_the_standard_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("abc");
        fs::write(&path, "abc").unwrap();
        assert_eq!(
            sha256_of(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_tree_changes_with_names_and_contents() {
        let key = |name: &str, content: &str| {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("d")).unwrap();
            fs::write(directory.path().join("d").join(name), content).unwrap();
            let mut digest = Digest::new("test", 1);
            digest.tree("t", directory.path(), &[]).unwrap();
            digest.finish()
        };
        assert_eq!(key("a", "x"), key("a", "x"));
        assert_ne!(key("a", "x"), key("b", "x"));
        assert_ne!(key("a", "x"), key("a", "y"));
    }
}
