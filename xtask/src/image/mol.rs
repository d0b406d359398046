// SPDX-License-Identifier: MIT OR Apache-2.0
//! What containers of the virtual OS MoL are made of: its servers as static programs, and a shell for those who look around.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::oci::{self, About};
use super::sbom::Bill;
use super::What;
use crate::manifest::Manifest;
use crate::package;
use crate::release;
use crate::step::Session;
use crate::userspace;

/// What a container of it runs. `dvsctl` does not take the command of an image; others do.
const COMMAND: [&str; 2] = ["/bin/mol-rs", "run"];

/// What the archive is called, in a folder of its own.
pub(super) fn file_name() -> String {
    format!("mol-{}.oci.tar", release::VERSION)
}

/// Compiles the programs and packs them; returns the folder of the archive. What was there before is replaced.
///
/// # Errors
/// When a program does not compile, or busybox is not to be had.
pub(super) fn build(session: &Session, images: &Path) -> Result<PathBuf> {
    let root = &session.workspace.root;
    let manifest = Manifest::read(root)?;
    // Apart from what nodes run: features that its servers ask of a library are theirs alone.
    let programs = userspace::build(session, &[manifest.mol.packages()])?;
    let layer = manifest.mol.archive(root, &programs, |pin| package::unpacked(session, pin));
    let layer = layer.context("packing the image of MoL")?;
    let about = About {
        title: "MoL, a virtual operating system of several servers",
        version: release::VERSION,
        command: &COMMAND,
        environment: &["PATH=/bin"],
    };
    let mut bill = Bill::of("mol", release::VERSION);
    bill.programs(root, &manifest.mol.packages())?;
    manifest.mol.pins().for_each(|pin| bill.package(pin));
    super::replace(session, images, What::Mol, |_, _, folder| {
        bill.write(folder)?;
        super::write(&folder.join(file_name()), &oci::archive(&layer, about)?)
    })
}
