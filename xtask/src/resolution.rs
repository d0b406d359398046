// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which version of a package was taken where the archive no longer had the recorded one. It is kept, so that later builds need no
//! network and no two of them differ.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::apt::Offer;
use crate::digest::Digest;
use crate::step::Session;

/// What a recorded package became here.
#[derive(Debug)]
pub(crate) struct Resolution {
    path: PathBuf,
}

impl Resolution {
    /// That of a package as it is recorded.
    ///
    /// # Errors
    /// When the cache has no place for it.
    pub(crate) fn of(
        session: &Session,
        package: &str,
        version: &str,
        sha256: &str,
    ) -> Result<Self> {
        let mut digest = Digest::new("resolution", 1);
        digest.text("package", package);
        digest.text("version", version);
        digest.text("sha256", sha256);
        Ok(Self { path: session.store.directory("resolutions")?.join(digest.finish()) })
    }

    /// Version and hash of what was taken, if it was asked for before.
    pub(crate) fn known(&self) -> Option<(String, String)> {
        parse(&fs::read_to_string(&self.path).ok()?)
    }

    /// Keeps what was taken.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep(&self, offer: &Offer) -> Result<()> {
        fs::write(&self.path, format!("{} {}\n", offer.version, offer.sha256))
            .with_context(|| format!("writing {}", self.path.display()))
    }
}

fn parse(text: &str) -> Option<(String, String)> {
    let (version, sha256) = text.trim_end().split_once(' ')?;
    (sha256.len() == 64).then(|| (version.to_owned(), sha256.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_resolution_is_no_resolution() {
        let sha256 = "0".repeat(64);
        assert_eq!(parse(&format!("7.2.13-1 {sha256}\n")), Some(("7.2.13-1".to_owned(), sha256)));
        assert_eq!(parse("7.2.13-1 0123"), None);
        assert_eq!(parse(""), None);
    }
}
