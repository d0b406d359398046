// SPDX-License-Identifier: MIT OR Apache-2.0
//! What machines boot from: every way ends in a cluster, and the same tree gives the same bytes.

mod disks;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use dvs_qemu::accel::Choice;
use dvs_qemu::machine::QEMU;
use dvs_qemu::{Cluster, Options};

use crate::artefacts::{self, Artefacts};
use crate::doctor::{self, Need};
use crate::image::{self, What};
use crate::kernel::{Image, Variant};
use crate::qemu::{accelerator, launcher, Boot};
use crate::source::{Origin, Pins};
use crate::step::Session;
use crate::test::summary::Outcome;

const SUITE: &str = "images";

/// The ways to boot, and whether one is only tried where there is time for all. [`Boot::Direct`] is what all other scenarios do.
const WAYS: [(&str, Boot, bool); 7] = [
    ("two nodes boot over the network by BIOS", Boot::Pxe, false),
    ("a node that has booted from a CD boots another one by BIOS", Boot::PxeFromIso, false),
    ("a node that has booted from a CD boots another one by UEFI", Boot::PxeUefiFromIso, true),
    ("two nodes boot over the network by UEFI", Boot::PxeUefi, true),
    ("two nodes boot from a CD by BIOS", Boot::Iso, true),
    ("two nodes boot from a CD by UEFI", Boot::IsoUefi, true),
    ("two nodes boot from disks, on which their configuration is", Boot::Disk, true),
];

/// Enough to have to find each other.
const NODES: usize = 2;
/// Firmware included, on a slow and busy host; three times as long for an image that fails.
const PATIENCE: Duration = Duration::from_secs(600);
/// How much of a console is shown when a node does not become ready.
const LINES_SHOWN: usize = 12;

/// Makes all images twice, and boots clusters from them: by all ways if `long`.
///
/// # Errors
/// When something does not build. Nodes that do not become ready are outcomes, not errors.
pub(super) fn run(
    session: &Session,
    origin: &Origin,
    only: Option<&str>,
    long: bool,
) -> Result<Vec<Outcome>> {
    let needs = [Need::Qemu, Need::Images, Need::Firmware];
    doctor::require(session, &needs, &Pins::read(session)?.tools)?;
    let built = artefacts::build(session, origin, Variant::Node, Image::BzImage, false)?;
    let folder = image::folder(session);
    for &what in What::value_variants() {
        image::build(session, &built, what, &folder)?;
    }
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let mut outcomes = Vec::new();
    let name = "images made twice are the same";
    if wanted(name) {
        let same = made_twice(session, &built, &folder)?;
        outcomes.push(Outcome::of(SUITE, name, same));
    }
    let mut step = session.begin("test images", "booting from images")?;
    for (name, boot, only_long) in WAYS {
        // Whoever names one wants it.
        if !wanted(name) || (only_long && !long && only.is_none()) {
            continue;
        }
        step.now(name);
        let began = Instant::now();
        let verdict = becomes_ready(session, &built, boot, &folder);
        let how = if verdict.is_ok() { "passed" } else { "failed" };
        step.remark(&format!("{how}: {name} ({:.1} s)", began.elapsed().as_secs_f64()));
        outcomes.push(Outcome::of(SUITE, name, verdict));
    }
    for (name, scenario, only_long) in disks::SCENARIOS {
        if !wanted(name) || (only_long && !long && only.is_none()) {
            continue;
        }
        step.now(name);
        let began = Instant::now();
        let verdict = scenario(session, &built, &folder);
        let how = if verdict.is_ok() { "passed" } else { "failed" };
        step.remark(&format!("{how}: {name} ({:.1} s)", began.elapsed().as_secs_f64()));
        outcomes.push(Outcome::of(SUITE, name, verdict));
    }
    step.finish(&format!("{} tests of images were run", outcomes.len()));
    Ok(outcomes)
}

/// Makes all images once more and compares them with those in `folder`.
fn made_twice(session: &Session, built: &Artefacts, folder: &Path) -> Result<Result<(), String>> {
    let again = session.workspace.target.join("images-again");
    let mut differences = Vec::new();
    for &what in What::value_variants() {
        let second = image::build(session, built, what, &again)?;
        let manifest = |folder: &Path| {
            let path = folder.join(image::MANIFEST);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let first = folder.join(second.file_name().unwrap_or_default());
        if manifest(&first)? != manifest(&second)? {
            differences.push(format!(
                "{} and {} differ (`cmp` tells where)",
                first.display(),
                second.display()
            ));
        }
    }
    if differences.is_empty() {
        crate::store::remove(&again)?;
        return Ok(Ok(()));
    }
    Ok(Err(differences.join("\n")))
}

/// What a cluster of `nodes` is made of that boot one way from `image`; its logs are in a folder of that name.
fn options(
    session: &Session,
    built: &Artefacts,
    boot: Boot,
    image: PathBuf,
    nodes: usize,
    name: &str,
) -> Result<Options> {
    let logs = session.store.directory("logs")?.join(SUITE).join(name);
    crate::store::remove(&logs)?;
    let mut options = Options::new(&built.kernel.image, &built.root.node);
    options.nodes = nodes;
    (options.boot, options.firmware) = boot.with_image(image);
    options.memory = boot.memory();
    options.launcher = launcher();
    options.logs = Some(logs);
    let cache = &session.workspace.cache;
    options.accelerator = accelerator(Choice::Auto, QEMU, cache, &built.kernel.image);
    Ok(options)
}

/// Waits until all nodes are ready; if they do not become so, the error shows what they said last.
fn await_ready(cluster: &Cluster, patience: Duration) -> Result<()> {
    cluster.wait_ready(patience).with_context(|| {
        let consoles = cluster.description().nodes.iter().map(|node| {
            let lines = crate::qemu::last_lines(&node.log, LINES_SHOWN).join("\n  ");
            format!("{}:\n  {lines}\n", node.log.display())
        });
        format!("the last lines of the consoles:\n{}", consoles.collect::<String>())
    })
}

/// Starts a cluster that boots one way, waits until its nodes are ready, and ends it.
fn becomes_ready(
    session: &Session,
    built: &Artefacts,
    boot: Boot,
    folder: &Path,
) -> Result<(), String> {
    let attempt = || -> Result<()> {
        let image = boot.image().map(|what| image::path(folder, what)).unwrap_or_default();
        let options = options(session, built, boot, image, NODES, &boot.name())?;
        await_ready(&Cluster::start(options)?, PATIENCE)
    };
    attempt().map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_boot_an_image_is_tested() {
        let mut tested: Vec<_> = WAYS.map(|(_, boot, _)| boot.name()).into();
        tested.push(Boot::Direct.name());
        tested.sort();
        let seeded = [Boot::PxeFromIso, Boot::PxeUefiFromIso];
        let all = Boot::value_variants().iter().copied().chain(seeded);
        let mut all: Vec<_> = all.map(|boot| boot.name()).collect();
        all.sort();
        assert_eq!(tested, all);
    }
}
