// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the benchmarks of MoL have in common: two nodes with servers, ways to move bytes, and what comes of measuring them.

pub(super) mod figures;
mod nodes;
mod table;
mod way;

use anyhow::{bail, Result};
use dvs_qemu::accel::Choice;
use dvs_qemu::machine::{Memory, QEMU};
use dvs_qemu::Options;

use crate::artefacts;
use crate::doctor::{self, Need};
use crate::initramfs;
use crate::kernel::{Image, Variant};
use crate::qemu::{accelerator, launcher};
use crate::source::{Origin, Pins};
use crate::step::Session;

pub(super) use nodes::Nodes;
pub(super) use table::text;
pub(super) use way::Way;

/// Of the ways of a benchmark, all, or those that are wanted.
///
/// # Errors
/// When one is wanted that the benchmark does not have.
pub(super) fn chosen(only: &[Way], all: &[Way]) -> Result<Vec<Way>> {
    if let Some(other) = only.iter().find(|way| !all.contains(way)) {
        let names: Vec<_> = all.iter().map(|way| way.name()).collect();
        bail!("measuring {other}: this benchmark has {}", names.join(", "));
    }
    Ok(all.iter().copied().filter(|way| only.is_empty() || only.contains(way)).collect())
}

/// What is built for two nodes, and how they are started.
pub(super) struct Bed {
    options: Options,
    dvsctl: std::path::PathBuf,
}

impl Bed {
    /// Builds everything for nodes with as much memory; `name` is that of the folder of their logs.
    pub(super) fn build(
        session: &Session,
        origin: &Origin,
        memory: Memory,
        name: &str,
    ) -> Result<Self> {
        doctor::require(session, &[Need::Qemu], &Pins::read(session)?.tools)?;
        let built = artefacts::build(session, origin, Variant::Node, Image::Vmlinux, true)?;
        let root = initramfs::for_benchmarks(session, &built.root)?;
        let kernel = &built.kernel.image;
        let mut options = Options::new(kernel, root);
        options.nodes = 2;
        options.memory = memory;
        options.agent = true;
        // A switch would cost every frame more than most of what is compared.
        options.wire = true;
        // All are to use the same device, so nothing may be protected.
        options.insecure = true;
        options.logs = Some(session.store.directory("logs")?.join(name));
        options.launcher = launcher();
        options.accelerator = accelerator(Choice::Auto, QEMU, &session.workspace.cache, kernel);
        Ok(Self { options, dvsctl: built.root.programs.path("dvsctl") })
    }

    /// What runs the nodes.
    pub(super) fn accelerator(&self) -> dvs_qemu::accel::Accelerator {
        self.options.accelerator
    }

    /// Starts the nodes.
    pub(super) fn start(&self) -> Result<Nodes> {
        Nodes::start(self.options.clone(), self.dvsctl.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_chosen_from_those_that_there_are() {
        let all = [Way::VddLocal, Way::NbdLocal, Way::Copy];
        assert_eq!(chosen(&[], &all).unwrap(), all);
        assert_eq!(chosen(&[Way::Copy, Way::VddLocal], &all).unwrap(), [Way::VddLocal, Way::Copy]);
        let error = chosen(&[Way::Copy, Way::WebA], &all).unwrap_err().to_string();
        assert_eq!(error, "measuring web-a: this benchmark has vdd-local, nbd-local, copy");
    }
}
