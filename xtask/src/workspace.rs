// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things are: this checkout, its build directory, and the user's cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, Context, Result};

/// The three places that the pipeline reads and writes.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// Cargo's target directory: `$CARGO_TARGET_DIR`, else `target` in the checkout.
    pub(crate) target: PathBuf,
    /// What outlives and is shared between checkouts: `$XDG_CACHE_HOME/dvs`, else `~/.cache/dvs`.
    pub(crate) cache: PathBuf,
}

impl Workspace {
    /// The checkout that this program was built from. Nothing is created.
    ///
    /// # Errors
    /// When neither `XDG_CACHE_HOME` nor `HOME` says where the cache is.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .ok_or_else(|| anyhow!("{} has no parent directory", manifest.display()))?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(path) => root.join(path),
            None => root.join("target"),
        };
        Ok(Self { cache: cache_directory()?, root, target })
    }

    /// A path in the checkout.
    pub(crate) fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }
}

fn cache_directory() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(
            env::var_os("HOME")
                .filter(|home| !home.is_empty())
                .context("finding the cache directory: set HOME or XDG_CACHE_HOME")?,
        )
        .join(".cache"),
    };
    Ok(base.join("dvs"))
}
