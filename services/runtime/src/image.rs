// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images: what the root file systems of containers are made of.
//!
//! A node keeps each image unpacked, once, under the digest of its manifest; names lead to digests by an index. Containers
//! mount the unpacked tree read-only, with its ids mapped to theirs.

mod archive;
mod bounds;
mod builtin;
mod entries;
mod layer;
mod manifest;
mod store;

use std::path::PathBuf;

use anyhow::Result;

use crate::spec::{Root, Spec};

pub use bounds::Bounds;
pub use manifest::Defaults;
pub use store::{Image, Images, Store};

/// The tree that a root is made of.
///
/// # Errors
/// When there is no such image.
pub(crate) fn root(root: &Root) -> Result<PathBuf> {
    match root {
        Root::Builtin => Store::of_node().builtin(),
        Root::Image(name) => Store::of_node().root(name),
    }
}

/// Adds to a description what its image says of the environment and the directory of processes, and makes the built-in root if it is
/// to be used. The image's command is not taken: whether a container runs it or is kept open is for whoever makes the container to say.
///
/// # Errors
/// When there is no such image.
pub(crate) fn complete(spec: &mut Spec) -> Result<()> {
    if let Root::Image(name) = &spec.root {
        let image = Store::of_node().find(name)?;
        for (name, value) in image.defaults.environment {
            spec.process.environment.entry(name).or_insert(value);
        }
        if spec.process.directory.is_none() {
            spec.process.directory = image.defaults.directory;
        }
        spec.check()?;
    }
    root(&spec.root).map(drop)
}
