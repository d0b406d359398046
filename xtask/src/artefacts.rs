// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that a node boots, built.

use anyhow::Result;

use crate::initramfs::{self, Root};
use crate::kernel::{self, Image, Kernel, Variant};
use crate::release;
use crate::source::Origin;
use crate::step::Session;

/// A kernel and the root that it unpacks.
#[derive(Clone, Debug)]
pub(crate) struct Artefacts {
    /// The kernel.
    pub(crate) kernel: Kernel,
    /// The root, and the programs in it.
    pub(crate) root: Root,
}

/// Builds what a node of `variant` boots from `image`, or finds it built; `test` asks for the overlay for tests as well.
///
/// # Errors
/// When a part fails; see [`kernel::build`] and [`initramfs::build`].
pub(crate) fn build(
    session: &Session,
    origin: &Origin,
    variant: Variant,
    image: Image,
    test: bool,
) -> Result<Artefacts> {
    of_version(session, origin, variant, image, test, release::VERSION)
}

/// The same of a given version: what nodes are upgraded to, or from.
///
/// # Errors
/// As [`build`].
pub(crate) fn of_version(
    session: &Session,
    origin: &Origin,
    variant: Variant,
    image: Image,
    test: bool,
    version: &str,
) -> Result<Artefacts> {
    // Programs first: their mistakes show in seconds, a kernel takes minutes.
    let root = initramfs::build(session, test, version)?;
    let kernel = kernel::build(session, origin, variant, image)?;
    Ok(Artefacts { kernel, root })
}
