// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this checkout gives to a virtual cluster: images to boot, tools for the host, and places for logs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Boot;
use crate::artefacts;
use crate::doctor::{self, Need};
use crate::image::{self, What};
use crate::kernel::{Image, Variant};
use crate::manifest::Manifest;
use crate::source::{Origin, Pins};
use crate::step::Session;
use crate::userspace;

const KERNEL: &str = "vmlinux";
const INITRAMFS: &str = "initramfs";
const TOOL: &str = "dvsctl";

/// What a node boots.
#[derive(Clone, Debug, Default)]
pub(super) struct Images {
    /// bzImage or vmlinux.
    pub(super) kernel: PathBuf,
    /// The root image.
    pub(super) initramfs: PathBuf,
}

/// This checkout, with what the rest of xtask needs to build it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checkout<'a> {
    pub(super) session: &'a Session,
    pub(super) origin: &'a Origin,
}

impl Checkout<'_> {
    /// Sees to it that QEMU is installed, together with what builds the images if they are to be built: one installation
    /// rather than two.
    pub(super) fn require_qemu(&self, and_build: bool, boot: Boot) -> Result<()> {
        let mut needs = vec![Need::Qemu];
        if and_build {
            needs.extend([Need::Userspace, Need::Kernel]);
        }
        if boot.is_uefi() {
            needs.push(Need::Firmware);
        }
        if boot.image() == Some(What::Iso) {
            needs.push(Need::Images);
        }
        doctor::require(self.session, &needs, &Pins::read(self.session)?.tools)
    }

    /// Where the image is that machines boot from.
    pub(super) fn image(&self, boot: Boot) -> PathBuf {
        boot.image().map(|what| image::path(&image::folder(self.session), what)).unwrap_or_default()
    }

    /// Builds the images, also the one that machines boot from, and `dvsctl`; the images, and the directory that `dvsctl` is in.
    pub(super) fn build(&self, boot: Boot) -> Result<(Images, PathBuf)> {
        let what = boot.image();
        let kernel = if what.is_some() { Image::BzImage } else { Image::Vmlinux };
        let built = artefacts::build(self.session, self.origin, Variant::Node, kernel, false)?;
        if let Some(what) = what {
            image::build(self.session, &built, what, &image::folder(self.session))?;
        }
        let tools = directory_of(&built.root.programs.path(TOOL));
        let images = Images { kernel: built.kernel.image, initramfs: built.root.node };
        if what.is_none() {
            self.remember(&images)?;
        }
        Ok((images, tools))
    }

    /// Builds only `dvsctl`, for images that come from elsewhere; the directory that it is in.
    pub(super) fn tools(&self) -> Result<PathBuf> {
        // With all that nodes run, since `dvsctl` alone would be compiled with other libraries.
        let manifest = Manifest::read(&self.session.workspace.root)?;
        Ok(directory_of(&userspace::of_node(self.session, &manifest, false)?.path(TOOL)))
    }

    /// The images that were built last; if there are none, where a link to them will be.
    pub(super) fn last_built(&self) -> Images {
        let image = |name| {
            let link = self.directory().join(name);
            fs::canonicalize(&link).unwrap_or(link)
        };
        Images { kernel: image(KERNEL), initramfs: image(INITRAMFS) }
    }

    /// Links to the images from the build directory, since they are in the cache under names that nobody can guess.
    fn remember(&self, images: &Images) -> Result<()> {
        let directory = self.directory();
        fs::create_dir_all(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        for (name, image) in [(KERNEL, &images.kernel), (INITRAMFS, &images.initramfs)] {
            let link = directory.join(name);
            let new = directory.join(format!("{name}.{}", std::process::id()));
            std::os::unix::fs::symlink(image, &new)
                .and_then(|()| fs::rename(&new, &link))
                .with_context(|| format!("linking {} to {}", link.display(), image.display()))?;
        }
        Ok(())
    }

    /// Where answers that outlive a checkout are remembered.
    pub(super) fn cache(&self) -> &Path {
        &self.session.workspace.cache
    }

    /// Where console logs go, a directory for each cluster.
    pub(super) fn directory(&self) -> PathBuf {
        self.session.workspace.target.join("qemu")
    }
}

fn directory_of(program: &Path) -> PathBuf {
    program.parent().unwrap_or(Path::new("/")).to_owned()
}
