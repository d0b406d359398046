// SPDX-License-Identifier: MIT OR Apache-2.0
//! The images of a node: each unpacked under its digest, and an index of names.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::archive::Archive;
use super::bounds::{Bounds, Left};
use super::builtin;
use super::layer::Target;
use super::manifest::Defaults;
use crate::fault::{refuse, Kind};
use crate::place::{directory, lock, Place};
use crate::spec::{check_name, Root};

/// Where a node keeps images.
const IMAGES: &str = "/run/dvs/images";

/// A place for images.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The digest of its manifest, or of its configuration if it came in the older format.
    pub digest: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// How many devices it had, which containers do not get.
    pub devices: u64,
    /// What it says of processes.
    pub defaults: Defaults,
}

/// All images by name.
pub type Images = BTreeMap<String, Image>;

impl Store {
    /// The images of this node.
    pub(crate) fn of_node() -> Self {
        Self::at(IMAGES)
    }

    /// A place of its own.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Takes the image in an archive in, under a name that may be taken. An image that is there already is not unpacked again.
    ///
    /// # Errors
    /// When the archive is damaged, is not allowed, or is more than the bounds; then nothing is left of it.
    pub fn import(&self, archive: &Path, name: &str, bounds: Bounds) -> Result<Image> {
        check_name("the image", name)?;
        let archive = Archive::open(archive)?;
        let found = archive.image(bounds)?;
        let _lock = lock(&self.path)?;
        let mut index = self.index()?;
        let known = index.values().find(|image| image.digest == found.digest).cloned();
        let image = match known {
            Some(image) => image,
            None => {
                let image = self.made(&found.digest, |root| {
                    let mut left = Left::of(bounds);
                    let mut target = Target::at(root)?;
                    archive.unpack(&found, &mut target, &mut left)?;
                    Ok(Image {
                        digest: found.digest.clone(),
                        bytes: bounds.bytes - left.bytes(),
                        devices: target.devices(),
                        defaults: found.defaults()?,
                    })
                });
                image?
            }
        };
        let replaced = index.insert(name.to_owned(), image.clone());
        if let Some(old) = replaced {
            self.keep_if_needed(&index, &old.digest, name)?;
        }
        self.set_index(&index)?;
        Ok(image)
    }

    /// All images by name.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Images> {
        self.index()
    }

    /// The image of a name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: &str) -> Result<Image> {
        check_name("the image", name)?;
        match self.index()?.remove(name) {
            Some(image) => Ok(image),
            None => refuse(
                Kind::NotFound,
                format!(
                    "looking for the image {name}: this node has none of this name; import it first"
                ),
            ),
        }
    }

    /// The unpacked tree of an image.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn root(&self, name: &str) -> Result<PathBuf> {
        Ok(self.tree(&self.find(name)?.digest))
    }

    /// Removes a name, and the image if it has no other and no container is made of it.
    ///
    /// # Errors
    /// When there is none of this name, or a container needs it.
    pub fn remove(&self, name: &str) -> Result<()> {
        let _lock = lock(&self.path)?;
        let mut index = self.index()?;
        let Some(image) = index.remove(name) else {
            let message = format!("removing the image {name}: this node has none of this name");
            return refuse(Kind::NotFound, message);
        };
        self.keep_if_needed(&index, &image.digest, name)?;
        self.set_index(&index)
    }

    /// Makes the root of containers without an image, unless it is there, and says where it is.
    ///
    /// # Errors
    /// When this node has no busybox.
    pub(crate) fn builtin(&self) -> Result<PathBuf> {
        let _lock = lock(&self.path)?;
        let root = self.tree(builtin::NAME);
        if !root.exists() {
            self.made(builtin::NAME, builtin::fill)?;
        }
        Ok(root)
    }

    fn tree(&self, digest: &str) -> PathBuf {
        self.path.join(digest).join("root")
    }

    /// Has a directory of the store filled; it is there when that went well, and not before.
    fn made<T>(&self, name: &str, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let (partial, whole) = (self.path.join("partial"), self.path.join(name));
        // Both may be left of a process that was killed.
        removed(&partial)?;
        removed(&whole)?;
        let root = partial.join("root");
        directory(&partial)?;
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&root)
            .with_context(|| format!("creating {}", root.display()))?;
        let filled = fill(&root);
        if filled.is_err() {
            removed(&partial)?;
            return filled;
        }
        fs::rename(&partial, &whole).with_context(|| format!("renaming {}", partial.display()))?;
        filled
    }

    /// Removes an image that has lost the name `lost`, unless it has another one.
    fn keep_if_needed(&self, index: &Images, digest: &str, lost: &str) -> Result<()> {
        if index.values().any(|image| image.digest == digest) {
            return Ok(());
        }
        for container in Place::names()? {
            let needs = Place::of(&container)?.spec();
            // One without a description is on its way in or out.
            let needs = needs.is_ok_and(|spec| spec.root == Root::Image(lost.to_owned()));
            if needs {
                let message =
                    format!("removing the image {lost}: the container {container} is made of it");
                return refuse(Kind::State, message);
            }
        }
        removed(&self.path.join(digest))
    }

    fn index(&self) -> Result<Images> {
        let path = self.path.join("index.json");
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("understanding {}", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Images::new()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    fn set_index(&self, index: &Images) -> Result<()> {
        let (path, partial) = (self.path.join("index.json"), self.path.join("index.partial"));
        let text = serde_json::to_string(index).context("writing the index of images")?;
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("writing {}", path.display()))
    }
}

fn removed(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
