// SPDX-License-Identifier: MIT OR Apache-2.0
//! What nodes do with disks: install themselves on one, try an image, give one up that fails.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use dvs_api::{BootImage, BootImageState, BootStatus};
use dvs_bootdisk::volume::hash_of;
use dvs_config::Source;
use dvs_image::disk::{self, Part};
use dvs_image::volume::{self, File};
use dvs_image::{uki, watchdog};
use dvs_netboot::files::UNIFIED;
use dvs_qemu::{access, Cluster, Remote};
use dvs_slots::record::{self, Entry, Record};
use dvs_slots::slots::{self, Mark, Slots, FOLDER};

use super::{await_ready, options, PATIENCE};
use crate::artefacts::Artefacts;
use crate::image::{self, What};
use crate::initramfs;
use crate::qemu::Boot;
use crate::step::Session;
use crate::test::cluster::program::{self, Ended};

type Scenario = fn(&Session, &Artefacts, &Path) -> Result<(), String>;

/// What is tried, and whether only where there is time for all.
pub(super) const SCENARIOS: [(&str, Scenario, bool); 9] = [
    ("a node installs itself on a disk, boots from it and confirms an image", installs, false),
    ("whoever sits at a serial console installs a node from a CD", installs_by_menu, true),
    ("a disk boots the image before one whose kernel is refused", kernel_refused, true),
    ("a disk boots the image before one without PID 1", no_init, true),
    ("a disk boots the image before one with a damaged root", damaged_root, true),
    ("a disk boots the image before one whose PID 1 ends", init_ends, true),
    ("a disk boots the image before one whose PID 1 hangs", init_hangs, true),
    (
        "a disk boots the image before one whose PID 1 feeds the watchdog no more",
        init_hangs_later,
        true,
    ),
    ("a disk boots the image before two that fail, and a good one after them", two_fail, true),
];

/// How often is looked what has come of something.
const POLL: Duration = Duration::from_millis(500);
/// Seconds after which an image that hangs is restarted here.
const HANG_S: u32 = 20;
/// What is told of an image that has not got as far as its services.
const SILENT: &str = "never said that it works";
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

/// A node that has booted from a CD, with an empty disk: by the menu of its console, which shows what comes of each key.
fn installs_by_menu(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    let attempt = || -> Result<()> {
        let iso = image::path(folder, What::Iso);
        let mut options = options(session, built, Boot::IsoUefi, iso, 1, "install-by-menu")?;
        options.spare_disks = true;
        let cluster = Cluster::start(options)?;
        await_ready(&cluster, PATIENCE)?;
        let screen = cluster.console(0);
        let mut keyboard = Remote::new(cluster.run().to_owned()).console(0)?;
        let mut seen = screen.end();
        let mut press = |keys: &str, shown: &str| -> Result<()> {
            keyboard.write_all(keys.as_bytes()).context("typing")?;
            seen = screen
                .wait_for_since(seen, shown, PATIENCE)
                .with_context(|| format!("waiting for what {keys:?} leads to"))?;
            Ok(())
        };
        press("\r", "Enter: menu   Esc: leave")?;
        press("\r", "2  Install this node on a disk")?;
        press("2", DISK)?;
        press("\r", "Type vda to go on")?;
        // Another name than the disk's is not enough.
        press("vdb\r", "That is not the name of this disk.")?;
        press("\x7f\x7f\x7fvda\r", "/dev/vda boots this node from now on")?;
        press("\x1b", "2  Install this node on a disk")?;
        press("\x1b", "Enter: menu   Esc: leave")?;
        press("\x1b", "\x1b[J")?;

        cluster.node(0).kill()?;
        cluster.node(0).start()?;
        await_ready(&cluster, PATIENCE)?;
        let images = images(&|words: &[&str]| dvsctl(built, &cluster, words))?;
        let states: Vec<_> =
            images.iter().map(|image| (image.number, image.state, image.runs)).collect();
        ensure!(
            states == [(1, BootImageState::Confirmed, true)],
            "the node has not booted from its disk: {states:?}"
        );
        Ok(())
    };
    attempt().map_err(|error| format!("{error:#}"))
}

/// An image that does not work.
struct Failing {
    /// What it is made from, where the image is found and what its parts are.
    make: fn(&Session, &Artefacts) -> Result<Vec<u8>>,
    /// Part of the cause that is told of it.
    cause: &'static str,
}

/// The command line of an image that is told how to begin.
fn arguments(rest: &str) -> String {
    // Its watchdog comes soon, so that three starts do not take long.
    let watched = watchdog::arguments(HANG_S);
    format!("console=ttyS0 no_timer_check panic=1 {watched} {rest}")
}

fn begins_with(session: &Session, built: &Artefacts, rest: &str) -> Result<Vec<u8>> {
    image::unified_with(session, built, &arguments(rest))
}

/// An image in which busybox is PID 1, told what to do.
fn begins_with_busybox(session: &Session, built: &Artefacts, rest: &str) -> Result<Vec<u8>> {
    let mut built = built.clone();
    built.root.node = initramfs::shell(session)?;
    begins_with(session, &built, &format!("rdinit={BUSYBOX} -- {rest}"))
}

/// A good image with a byte of its root changed, in the middle.
fn with_damaged_root(session: &Session, built: &Artefacts) -> Result<Vec<u8>> {
    // Parts of it may be there, PID 1 as well.
    let arguments = arguments(&format!("quiet dvs_trial={}", 2 * HANG_S));
    let mut image = image::unified_with(session, built, &arguments)?;
    let range = uki::position(&image, ".initrd").context("looking into an image")?;
    let range = range.context("an image has no root")?;
    image[range.start + range.len() / 2] ^= 0xff;
    Ok(image)
}

/// A good image whose kernel does not begin as a kernel does, so that systemd's stub gives up.
fn with_damaged_kernel(session: &Session, built: &Artefacts) -> Result<Vec<u8>> {
    let mut image = image::unified_with(session, built, &arguments("quiet"))?;
    let range = uki::position(&image, ".linux").context("looking into an image")?;
    let range = range.context("an image has no kernel")?;
    image[range].iter_mut().take(4096).for_each(|byte| *byte = 0);
    Ok(image)
}

/// Of the root that machines have which have a shell and nothing else.
const BUSYBOX: &str = "/bin/busybox";

const DAMAGED_KERNEL: Failing = Failing { make: with_damaged_kernel, cause: SILENT };
const NO_INIT: Failing =
    Failing { make: |session, built| begins_with(session, built, "rdinit=/none"), cause: SILENT };
const DAMAGED_ROOT: Failing = Failing { make: with_damaged_root, cause: SILENT };
const INIT_ENDS: Failing =
    Failing { make: |session, built| begins_with_busybox(session, built, "true"), cause: SILENT };
const INIT_HANGS: Failing = Failing {
    make: |session, built| begins_with_busybox(session, built, "sleep 100000"),
    cause: SILENT,
};
/// It takes the watchdog over, as PID 1 does, and feeds it no more.
const INIT_HANGS_LATER: Failing = Failing {
    make: |session, built| {
        let script =
            format!("{BUSYBOX} mount -t devtmpfs d /dev; exec 3>/dev/watchdog0; exec {BUSYBOX} sleep 100000");
        begins_with_busybox(session, built, &format!("sh -c \"{script}\""))
    },
    cause: SILENT,
};

fn kernel_refused(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    told(give_up(session, built, folder, "kernel-refused", &[DAMAGED_KERNEL]))
}

fn no_init(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    told(give_up(session, built, folder, "no-init", &[NO_INIT]))
}

fn damaged_root(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    told(give_up(session, built, folder, "damaged-root", &[DAMAGED_ROOT]))
}

fn init_ends(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    told(give_up(session, built, folder, "init-ends", &[INIT_ENDS]))
}

fn init_hangs(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    told(give_up(session, built, folder, "init-hangs", &[INIT_HANGS]))
}

fn init_hangs_later(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    told(give_up(session, built, folder, "init-hangs-later", &[INIT_HANGS_LATER]))
}

fn two_fail(session: &Session, built: &Artefacts, folder: &Path) -> Result<(), String> {
    told(give_up(session, built, folder, "two-fail", &[NO_INIT, INIT_HANGS]))
}

fn told(result: Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("{error:#}"))
}

/// A node with a disk of which newer images fail, one after the other: it comes back with the one that it has confirmed each time, and
/// tells why. A good one that comes after them is confirmed.
fn give_up(
    session: &Session,
    built: &Artefacts,
    folder: &Path,
    name: &str,
    failing: &[Failing],
) -> Result<()> {
    let path = image::path(folder, What::Disk);
    let options = options(session, built, Boot::Disk, path, 1, name)?;
    let cluster = Cluster::start(options)?;
    await_ready(&cluster, PATIENCE)?;
    let ask = |words: &[&str]| dvsctl(built, &cluster, words);
    let mut number = 1;
    for failing in failing {
        number += 1;
        put(&cluster, number, &(failing.make)(session, built)?)?;
        // Three boots fail before the one that does not.
        await_ready(&cluster, 3 * PATIENCE)?;
        let images = self::images(&ask)?;
        let confirmed = images.first().is_some_and(|image| {
            (image.number, image.state, image.runs) == (1, BootImageState::Confirmed, true)
        });
        let given_up = images.iter().any(|image| {
            let cause = image.cause.as_deref().unwrap_or_default();
            (image.number, image.state) == (number, BootImageState::GivenUp)
                && cause.contains(failing.cause)
        });
        ensure!(confirmed && given_up, "the node became ready with these images: {images:?}");
    }
    number += 1;
    let good = image::path(folder, What::Pxe).join(UNIFIED);
    let good = fs::read(&good).with_context(|| format!("reading {}", good.display()))?;
    put(&cluster, number, &good)?;
    await_ready(&cluster, PATIENCE)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let images = self::images(&ask)?;
        let last = images.last().map(|image| (image.number, image.state, image.runs));
        if last == Some((number, BootImageState::Confirmed, true)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the good image is not confirmed: {images:?}");
        sleep(POLL);
    }
}

/// Switches node 0 off, puts a new image on its disk in place of one that was given up, and switches it on.
fn put(cluster: &Cluster, number: slots::Number, content: &[u8]) -> Result<()> {
    cluster.node(0).kill()?;
    let path = cluster.disk(0);
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut disk = Cursor::new(bytes);
    let fresh = slots::Image { number, mark: Mark::FRESH };
    on_boot_volume(&mut disk, |volume| {
        let names = volume::names(volume, FOLDER)?;
        let slots = Slots::of_names(names.iter().map(String::as_str));
        for bad in (2..number).filter_map(|number| slots.image(number)) {
            volume::remove(volume, &format!("{FOLDER}/{bad}"))?;
        }
        volume::put(volume, File { path: &format!("{FOLDER}/{fresh}"), content })?;
        // As a node that installs an image remembers it.
        let text = volume::read(volume, record::FILE)?.unwrap_or_default();
        let mut record = Record::parse(&String::from_utf8_lossy(&text));
        let (version, sha256) = (format!("0.{number}.0"), hash_of(content));
        record.add(Entry { number, version, sha256, trouble: None });
        if !text.is_empty() {
            volume::remove(volume, record::FILE)?;
        }
        volume::put(volume, File { path: record::FILE, content: record.to_toml().as_bytes() })
    })?;
    fs::write(&path, disk.into_inner()).with_context(|| format!("writing {}", path.display()))?;
    cluster.node(0).start()?;
    Ok(())
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
    access::reach(&mut command, cluster.run(), Some(0));
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

/// The images that the node says it has.
fn images(ask: &dyn Fn(&[&str]) -> Result<Ended>) -> Result<Vec<BootImage>> {
    Ok(status(ask)?.disk.map(|disk| disk.images).unwrap_or_default())
}

/// What the node says of its slots.
fn status(ask: &dyn Fn(&[&str]) -> Result<Ended>) -> Result<BootStatus> {
    let text = succeeded(ask(&["node", "images", "-o", "json"])?)?;
    let mut all: Vec<BootStatus> =
        serde_json::from_str(&text).context("reading what dvsctl says")?;
    all.pop().context("dvsctl lists no node")
}
