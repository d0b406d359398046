// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clusters that move to another image, node by node, while they are used; and images that do not work, which they go back from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use dvs_api::{Node, UpgradePhase, Upgrades};
use dvs_bundle::SigningKey;
use dvs_image::uki;
use dvs_qemu::accel::Choice;
use dvs_qemu::machine::{Memory, QEMU};
use dvs_qemu::{access, Cluster, Options};

use crate::artefacts;
use crate::cpio;
use crate::doctor::{self, Need};
use crate::image::{self, What};
use crate::kernel::{Image, Variant};
use crate::qemu::{accelerator, launcher};
use crate::release;
use crate::source::{Origin, Pins};
use crate::step::Session;
use crate::test::summary::Outcome;

const SUITE: &str = "upgrades";
/// A majority is left while one is away.
const NODES: usize = 3;
/// The version that is upgraded to.
const NEXT: &str = "9.0.0";
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a client may have to wait until the nodes take a write.
const PAUSE: Duration = Duration::from_secs(60);
/// Seconds that a node may take for a step, on a slow and busy host.
const STEP_S: &str = "300";
/// The same where an image fails: seven tenths of it are spent waiting for that.
const FAILING_STEP_S: &str = "150";
/// A node's own, and what an upgrade takes: the bundle, its parts, and the kernel's copy of these.
const MEMORY: Memory = Memory { mib: 256 };

/// Runs all of it; what takes long only if `long`.
///
/// # Errors
/// When something does not build.
pub(super) fn run(
    session: &Session,
    origin: &Origin,
    only: Option<&str>,
    long: bool,
) -> Result<Vec<Outcome>> {
    let needs = [Need::Qemu, Need::Images];
    doctor::require(session, &needs, &Pins::read(session)?.tools)?;
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let mut outcomes = Vec::new();
    let name = "three nodes are upgraded one by one while they are used";
    let fails = "images that do not work are given up, and the cause is told";
    let fails_too = wanted(fails) && (long || only.is_some());
    if !wanted(name) && !fails_too {
        return Ok(outcomes);
    }
    let bed = Bed::start(session, origin)?;
    let mut step = session.begin("test upgrades", name)?;
    let mut play = |name: &str, scenario: fn(&Bed) -> Result<()>| {
        step.now(name);
        let began = Instant::now();
        let verdict = scenario(&bed).map_err(|error| format!("{error:#}\n{}", bed.consoles()));
        let how = if verdict.is_ok() { "passed" } else { "failed" };
        step.remark(&format!("{how}: {name} ({:.1} s)", began.elapsed().as_secs_f64()));
        outcomes.push(Outcome::of(SUITE, name, verdict));
    };
    if wanted(name) {
        play(name, upgraded_in_use);
    }
    if fails_too {
        play(fails, given_up);
    }
    let count = outcomes.len();
    step.finish(&format!("{count} tests of upgrades were run"));
    Ok(outcomes)
}

struct Bed {
    cluster: Cluster,
    dvsctl: PathBuf,
    /// The bundle of [`NEXT`].
    bundle: PathBuf,
    /// What is in it.
    unified: Vec<u8>,
    folder: PathBuf,
}

impl Bed {
    fn start(session: &Session, origin: &Origin) -> Result<Self> {
        let (node, kernel) = (Variant::Node, Image::BzImage);
        let built = artefacts::build(session, origin, node, kernel, false)?;
        let next = artefacts::of_version(session, origin, node, kernel, false, NEXT)?;
        let folder = session.workspace.target.join("images-next");
        let made = image::build(session, &next, What::Bundle, &folder)?;
        let bundle = image::path(&folder, What::Bundle);
        ensure!(bundle.starts_with(&made), "the bundle is not in {}", made.display());
        let mut image = Vec::new();
        let key = release::signing_key()?;
        let trusted = dvs_bundle::TrustedKeys::parse(&key.public().to_string())?;
        let bytes = fs::read(&bundle).with_context(|| format!("reading {}", bundle.display()))?;
        dvs_bundle::verify(&mut &*bytes, &trusted, std::env::consts::ARCH, |piece| {
            image.extend_from_slice(piece);
            Ok(())
        })?;
        let logs = session.store.directory("logs")?.join(SUITE);
        crate::store::remove(&logs)?;
        let mut options = Options::new(&built.kernel.image, &built.root.node);
        options.nodes = NODES;
        options.memory = MEMORY;
        options.launcher = launcher();
        options.logs = Some(logs);
        let cache = &session.workspace.cache;
        options.accelerator = accelerator(Choice::Auto, QEMU, cache, &built.kernel.image);
        let cluster = Cluster::start(options)?;
        let dvsctl = built.root.programs.path("dvsctl");
        let bed = Self { cluster, dvsctl, bundle, unified: image, folder };
        bed.cluster.wait_ready(PATIENCE).with_context(|| bed.consoles())?;
        Ok(bed)
    }

    fn consoles(&self) -> String {
        let nodes = self.cluster.description().nodes.iter();
        let lines = nodes.map(|node| {
            let lines = crate::qemu::last_lines(&node.log, 12).join("\n  ");
            format!("{}:\n  {lines}\n", node.log.display())
        });
        lines.collect()
    }

    /// `dvsctl` with the APIs of all nodes.
    fn command(&self, words: &[&str]) -> Command {
        let urls: Vec<_> = (0..NODES).map(|node| self.cluster.api(node)).collect();
        let mut command = Command::new(&self.dvsctl);
        access::reach(&mut command, self.cluster.run(), Some(0));
        command.args(words).args(["--endpoint", &urls.join(",")]);
        command
    }

    /// Runs `dvsctl`; what it has said if it succeeds.
    fn dvsctl(&self, words: &[&str]) -> Result<String> {
        let said = self.command(words).output().context("running dvsctl")?;
        let (out, err) =
            (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        ensure!(said.status.success(), "dvsctl {}: {}\n{out}\n{err}", words.join(" "), said.status);
        Ok(out.into_owned())
    }

    /// The same where it is to fail; what it has said of why.
    fn refused(&self, words: &[&str]) -> Result<String> {
        let said = self.command(words).output().context("running dvsctl")?;
        let err = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(
            said.status.code() == Some(1),
            "dvsctl {}: {}\n{err}",
            words.join(" "),
            said.status
        );
        Ok(err)
    }

    /// Writes a number, as a client does that tries again while the nodes elect a leader, which takes long only on a busy host.
    fn write(&self, number: u32) -> Result<()> {
        let deadline = Instant::now() + PAUSE;
        loop {
            match self.dvsctl(&["kv", "put", "counter", &number.to_string()]) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// One that is paused is a failure of the command, and told nevertheless.
    fn upgrades(&self) -> Result<Upgrades> {
        let said = self.command(&["upgrade", "status", "-o", "json"]).output();
        let said = said.context("running dvsctl")?;
        serde_json::from_slice(&said.stdout).context("reading what dvsctl says of upgrades")
    }

    fn versions(&self) -> Result<Vec<String>> {
        let nodes: Vec<Node> =
            serde_json::from_str(&self.dvsctl(&["node", "list", "-o", "json"])?)?;
        Ok(nodes.into_iter().map(|node| node.version.unwrap_or_default()).collect())
    }

    /// Writes a bundle of an image that is no good.
    fn failing(&self, name: &str, version: &str, image: &[u8]) -> Result<PathBuf> {
        let release = format!("{version}+badbadbadbad");
        let key = release::signing_key()?;
        let bundle = dvs_bundle::write(&release, std::env::consts::ARCH, image, &key)?;
        let path = self.folder.join(name);
        fs::write(&path, bundle).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path of a bundle is no text")
}

/// A client writes all the time, and every write comes through, whichever node is away.
fn upgraded_in_use(bed: &Bed) -> Result<()> {
    bed.write(0)?;
    let ends = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<u32> {
            let mut count = 0;
            while !ends.load(Ordering::Relaxed) {
                count += 1;
                bed.write(count)?;
            }
            Ok(count)
        });
        let upgraded = bed.dvsctl(&["upgrade", text(&bed.bundle)?, "--patience", STEP_S]);
        ends.store(true, Ordering::Relaxed);
        let written = writer.join().map_err(|_| anyhow::anyhow!("the writer has panicked"))?;
        upgraded.context("upgrading the cluster")?;
        written.context("writing while the cluster is upgraded")
    })?;
    ensure!(written > 5, "only {written} writes were made meanwhile");
    let counter = bed.dvsctl(&["kv", "get", "counter"])?;
    ensure!(counter.trim() == written.to_string(), "{written} was written, and {counter} is read");
    let versions = bed.versions()?;
    let is_next = |version: &String| version.starts_with(&format!("{NEXT}+"));
    ensure!(versions.len() == NODES && versions.iter().all(is_next), "{versions:?}");
    let current = bed.upgrades()?.current.context("there is no upgrade")?;
    ensure!(current.phase == UpgradePhase::Complete, "{current:#?}");
    let restarted = current.nodes.iter().all(|node| node.restarts == 1);
    ensure!(restarted, "each node restarts once: {current:#?}");
    // PID 1 hears of it a moment after the nodes have agreed.
    let deadline = Instant::now() + PATIENCE;
    for node in bed.cluster.description().nodes.iter().take(NODES) {
        while !fs::read_to_string(&node.log)?.contains("dvs: the image is confirmed") {
            ensure!(
                Instant::now() < deadline,
                "{} tells of no confirmed image",
                node.log.display()
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

/// Images that fail one way or another: each node ends on one that works, in the cluster, and the status says why.
fn given_up(bed: &Bed) -> Result<()> {
    let before = bed.versions()?;
    let stranger = SigningKey::generate()?;
    let foreign = dvs_bundle::write("9.1.0+ab", std::env::consts::ARCH, &bed.unified, &stranger)?;
    let path = bed.folder.join("foreign.dvs");
    fs::write(&path, foreign)?;
    let why = bed.refused(&["upgrade", text(&path)?])?;
    ensure!(why.contains("no key that is trusted here has signed the bundle"), "{why}");
    let older = bed.failing("older.dvs", "0.0.1", &bed.unified)?;
    let why = bed.refused(&["upgrade", text(&older)?])?;
    ensure!(why.contains("--allow-downgrade"), "{why}");
    let files = |files: &[(&str, &[u8])]| -> Result<Vec<u8>> {
        let mut archive = cpio::Archive::default();
        for (path, content) in files {
            archive.add(path, 0o755, cpio::Node::File(content.to_vec()))?;
        }
        with_archive(&bed.unified, &archive.bytes())
    };
    let no_init = files(&[("/init", b"no program")])?;
    let no_daemon = files(&[("/usr/bin/dvsd", b"no program")])?;
    for (name, image, version) in
        [("no-init.dvs", no_init, "9.1.1"), ("no-daemon.dvs", no_daemon, "9.1.2")]
    {
        let bundle = bed.failing(name, version, &image)?;
        let words = ["upgrade", text(&bundle)?, "--nodes", "1", "--patience", FAILING_STEP_S];
        let why = bed.refused(&words).with_context(|| format!("upgrading to {name}"))?;
        let expected = format!("instead of {version}+badbadbadbad");
        ensure!(
            why.contains("node 1: it came back with") && why.contains(&expected),
            "{name}: {why}"
        );
        bed.cluster.wait_ready(PATIENCE)?;
        bed.dvsctl(&["upgrade", "cancel"])?;
    }
    // What was switched on anew has what it booted first; going back gives it what the others run.
    if before.iter().any(|version| version.starts_with(NEXT)) {
        bed.dvsctl(&["rollback", "--patience", STEP_S])?;
        let versions = bed.versions()?;
        ensure!(versions == before, "{before:?} before, {versions:?} now");
    }
    let told = bed.upgrades()?;
    let all = told.past.into_iter().chain(told.current);
    let failed: Vec<_> =
        all.filter(|upgrade| upgrade.nodes.iter().any(|node| node.cause.is_some())).collect();
    ensure!(failed.len() == 2, "both failures are remembered: {failed:#?}");
    Ok(())
}

/// A unified kernel image with more in its root.
fn with_archive(image: &[u8], archive: &[u8]) -> Result<Vec<u8>> {
    let root = uki::section(image, ".initrd")?.context("the image has no root")?;
    let linux = uki::section(image, ".linux")?.context("the image has no kernel")?;
    let mut root = root.to_vec();
    root.resize(root.len().next_multiple_of(4), 0);
    root.extend_from_slice(archive);
    let sections = [
        uki::Section { name: ".initrd", content: &root },
        uki::Section { name: ".linux", content: linux },
    ];
    // Nobody starts it by UEFI here.
    uki::build(&uki::sample_stub(), &sections).context("making an image that fails")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_given_more_in_its_root() {
        let section = |name, content| uki::Section { name, content };
        let image = uki::build(
            &uki::sample_stub(),
            &[section(".initrd", b"root!"), section(".linux", b"linux")],
        )
        .unwrap();
        let more = with_archive(&image, b"more").unwrap();
        let part = |name| uki::section(&more, name).unwrap();
        assert_eq!(part(".initrd"), Some(&b"root!\0\0\0more"[..]));
        assert_eq!(part(".linux"), Some(&b"linux"[..]));
    }
}
