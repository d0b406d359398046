// SPDX-License-Identifier: MIT OR Apache-2.0
//! What nodes do with disks: install themselves on one, try an image, give one up that fails.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use dvs_api::{BootImageState, BootStatus};
use dvs_config::Source;
use dvs_image::disk::{self, Part};
use dvs_image::volume::{self, File};
use dvs_netboot::files::UNIFIED;
use dvs_qemu::{access, Cluster};
use dvs_slots::slots::{self, Mark, Slots, FOLDER};

use super::{await_ready, options, PATIENCE};
use crate::artefacts::Artefacts;
use crate::image::{self, What};
use crate::qemu::Boot;
use crate::step::Session;
use crate::test::cluster::program::{self, Ended};

type Scenario = fn(&Session, &Artefacts, &Path) -> Result<(), String>;

/// What is tried, and whether only where there is time for all.
pub(super) const SCENARIOS: [(&str, Scenario, bool); 2] = [
    ("a node installs itself on a disk, boots from it and confirms an image", installs, false),
    ("a disk whose newest image fails boots the one before", falls_back, true),
];

/// How often is looked what has come of something.
const POLL: Duration = Duration::from_millis(500);
/// The disk of a node that has one besides what it boots from.
const DISK: &str = "/dev/vda";

/// A node that has booted from a CD, with an empty disk.
fn installs(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    let attempt = || -> Result<()> {
        let iso = image::path(folder, What::Iso);
        let mut options = options(session, built, Boot::IsoUefi, iso, 1, "install")?;
        options.spare_disks = true;
        let cluster = Cluster::start(options)?;
        await_ready(&cluster, PATIENCE)?;
        let ask = |words: &[&str]| dvsctl(built, &cluster, words);
        let image = image::path(folder, What::Pxe).join(UNIFIED);
        let image = image.to_string_lossy().into_owned();
        let install = |disk, more: &[&str]| {
            ask(&[&["node", "install", "0", disk, "--image", &image], more].concat())
        };
        refused(install("/dev/vdz", &[])?, "this machine has no such disk; it has /dev/vda")?;
        let wrong = built.kernel.image.to_string_lossy().into_owned();
        refused(
            ask(&["node", "install", "0", DISK, "--image", &wrong])?,
            "it is no image of a node",
        )?;
        succeeded(install(DISK, &[])?)?;
        refused(install(DISK, &[])?, "has partitions: dvs-boot, which would be lost")?;
        succeeded(install(DISK, &["--wipe"])?)?;
        let status = status(&ask)?;
        ensure!(
            status.disk.is_none(),
            "a node that has booted from a CD says of its disk: {status:?}"
        );

        cluster.node(0).kill()?;
        let path = cluster.disk(0);
        let mut disk = Cursor::new(fs::read(&path).context("reading the disk")?);
        let config = on_boot_volume(&mut disk, |volume| volume::read(volume, Source::VOLUME_FILE))?;
        let config = config.context("there is no configuration on the disk")?;
        let has = |text: &str| String::from_utf8_lossy(&config).contains(text);
        ensure!(has("token = ") && has("[network.management]"), "the configuration is another one");
        // A newer one, as an upgrade leaves it.
        let content = fs::read(&image).context("reading the image")?;
        let fresh = slots::Image { number: 2, mark: Mark::FRESH };
        let file = format!("{FOLDER}/{fresh}");
        on_boot_volume(&mut disk, |volume| {
            volume::put(volume, File { path: &file, content: &content })
        })?;
        fs::write(&path, disk.into_inner()).context("writing the disk")?;
        cluster.node(0).start()?;
        await_ready(&cluster, PATIENCE)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self::status(&ask)?;
            let images = status.disk.map(|disk| disk.images).unwrap_or_default();
            let states: Vec<_> =
                images.iter().map(|image| (image.number, image.state, image.runs)).collect();
            if states
                == [(1, BootImageState::Confirmed, false), (2, BootImageState::Confirmed, true)]
            {
                break;
            }
            let why = status.why.unwrap_or_default();
            ensure!(
                Instant::now() < deadline,
                "the node has not confirmed the image that it tries: {states:?} {why}"
            );
            sleep(POLL);
        }
        let console = fs::read_to_string(&cluster.description().nodes[0].log).unwrap_or_default();
        ensure!(!console.contains("Failed to rename"), "the boot loader could not count a try");
        Ok(())
    };
    attempt().map_err(|error| format!("{error:#}"))
}

/// A node with a disk on which a newer image, still to be tried, does not get as far as PID 1.
fn falls_back(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    let attempt = || -> Result<()> {
        let path = image::path(folder, What::Disk);
        let disk = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let failing = slots::Image { number: 2, mark: Mark::FRESH };
        let arguments = "console=ttyS0 no_timer_check panic=1 rdinit=/none";
        let content = image::unified_with(session, built, arguments)?;
        let mut disk = Cursor::new(disk);
        let file = format!("{FOLDER}/{failing}");
        on_boot_volume(&mut disk, |volume| {
            volume::put(volume, File { path: &file, content: &content })
        })?;
        let path = folder.join("failing.img");
        fs::write(&path, disk.into_inner())
            .with_context(|| format!("writing {}", path.display()))?;
        let options = options(session, built, Boot::Disk, path.clone(), 1, "fallback")?;
        let cluster = Cluster::start(options)?;
        // Three boots fail before the one that does not.
        await_ready(&cluster, 3 * PATIENCE)?;
        let ask = |words: &[&str]| dvsctl(built, &cluster, words);
        let status = status(&ask)?;
        let images = status.disk.map(|disk| disk.images).unwrap_or_default();
        let states: Vec<_> =
            images.iter().map(|image| (image.number, image.state, image.runs)).collect();
        let expected = [(1, BootImageState::Confirmed, true), (2, BootImageState::GivenUp, false)];
        ensure!(states == expected, "the node became ready with these images: {images:?}");
        let copy = cluster.disk(0);
        let bytes = fs::read(&copy).with_context(|| format!("reading {}", copy.display()))?;
        drop(cluster);
        crate::store::remove(&path)?;
        let names =
            on_boot_volume(&mut Cursor::new(bytes), |volume| volume::names(volume, FOLDER))?;
        let slots = Slots::of_names(names.iter().map(String::as_str));
        let given_up = slots.image(2).is_some_and(|image| image.mark.is_bad());
        ensure!(given_up, "these images are on the disk: {names:?}");
        Ok(())
    };
    attempt().map_err(|error| format!("{error:#}"))
}

/// Does something with the volume that a disk boots from.
fn on_boot_volume<T>(
    disk: &mut Cursor<Vec<u8>>,
    act: impl FnOnce(&mut Part<'_, Cursor<Vec<u8>>>) -> std::io::Result<T>,
) -> Result<T> {
    let range = disk::find(disk, disk::BOOT_PARTITION).context("reading the table of a disk")?;
    let range = range.context("reading the table of a disk: it has no partition to boot from")?;
    act(&mut Part::new(disk, range)).context("using the boot volume of a disk")
}

/// Runs `dvsctl` on a cluster.
fn dvsctl(built: &Artefacts, cluster: &Cluster, words: &[&str]) -> Result<Ended> {
    let mut command = Command::new(built.root.programs.path("dvsctl"));
    command.env("DVSCTL_CONFIG", access::folder(cluster.run()));
    command.env("DVSCTL_CONTEXT", access::context(0)).env_remove("DVSCTL_ENDPOINTS");
    let running = program::start(command.args(words), PATIENCE);
    running
        .and_then(program::Running::end)
        .with_context(|| format!("running dvsctl {}", words.join(" ")))
}

fn succeeded(ended: Ended) -> Result<String> {
    ensure!(ended.succeeded(), "dvsctl failed: {ended}");
    Ok(ended.stdout)
}

fn refused(ended: Ended, why: &str) -> Result<()> {
    ensure!(
        !ended.succeeded() && ended.stderr.contains(why),
        "dvsctl did not say `{why}`: {ended}"
    );
    Ok(())
}

/// What the node says of its slots.
fn status(ask: &dyn Fn(&[&str]) -> Result<Ended>) -> Result<BootStatus> {
    let text = succeeded(ask(&["node", "images", "-o", "json"])?)?;
    let mut all: Vec<BootStatus> =
        serde_json::from_str(&text).context("reading what dvsctl says")?;
    all.pop().context("dvsctl lists no node")
}
