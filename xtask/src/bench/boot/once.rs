// SPDX-License-Identifier: MIT OR Apache-2.0
//! One start of a cluster, and of machines that have the same kernel and a shell instead of a node.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use dvs_api::Usage;
use dvs_netboot::files::{INITRAMFS, LINUX, UNIFIED};
use dvs_qemu::accel::{Accelerator, Choice};
use dvs_qemu::machine::{Memory, QEMU};
use dvs_qemu::{access, Cluster, ConsoleReader, Options};
use serde::{Deserialize, Serialize};

use crate::artefacts;
use crate::image;
use crate::initramfs;
use crate::kernel::{Image, Variant};
use crate::qemu::{accelerator, launcher, Boot};
use crate::source::Origin;
use crate::step::Session;

/// How long a cluster may take before it counts as failed rather than slow.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a cluster that is ready is left alone before its memory is read: what it does to become so is over then.
const IDLE: Duration = Duration::from_secs(5);
/// How long a node may take to say what it uses.
const ANSWER: Duration = Duration::from_secs(20);
/// What the machines with a shell say, and the unit after the number; see rootfs/shell-init.sh.
const SHELL: (&str, &str) = ("shell: ", " s");

/// When one start of a cluster reached what, in seconds since the Unix epoch, and the memory it used then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) accelerator: Accelerator,
    /// Bytes that a node has.
    pub(super) memory: u64,
    /// Bytes that it loads to boot.
    pub(super) image: u64,
    /// The QEMUs were started, side by side.
    pub(super) qemu: f64,
    /// All nodes saw all nodes ready.
    pub(super) ready: f64,
    pub(super) nodes: Vec<NodeStart>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NodeStart {
    /// The clock of its kernel began to run.
    pub(super) kernel: f64,
    /// The line was on its console that says that all nodes are ready.
    pub(super) ready: f64,
    /// Bytes of its memory that no program can have any more, the kernel's own included, when it has been idle for a while.
    pub(super) used: u64,
    /// Bytes of it that the host has had to provide; see [`resident`].
    pub(super) touched: Option<u64>,
}

/// Starts a cluster that boots in a way, notes when it reached what, and prints that for the process that measures.
pub(in crate::bench) fn once(
    nodes: usize,
    boot: Boot,
    session: &Session,
    origin: &Origin,
) -> Result<()> {
    let kernel = if boot.image().is_some() { Image::BzImage } else { Image::Vmlinux };
    let built = artefacts::build(session, origin, Variant::Node, kernel, false)?;
    let images = image::folder(session);
    let path = match boot.image() {
        Some(what) => {
            image::build(session, &built, what, &images)?;
            image::path(&images, what)
        }
        None => PathBuf::new(),
    };
    let image = match boot {
        // A virtual machine takes the kernel uncompressed, to be started sooner; what is kept and sent is the compressed one.
        Boot::Direct => {
            let packed =
                crate::kernel::build(session, origin, Variant::Node, Image::BzImage)?.image;
            size(&packed)? + size(&built.root.node)?
        }
        Boot::Pxe => size(&path.join(LINUX))? + size(&path.join(INITRAMFS))?,
        Boot::PxeUefi => size(&path.join(UNIFIED))?,
        Boot::PxeFromIso | Boot::PxeUefiFromIso | Boot::Iso | Boot::IsoUefi | Boot::Disk => {
            size(&path)?
        }
    };
    let mut options = options(session, built.kernel.image, built.root.node, nodes)?;
    (options.boot, options.firmware) = boot.with_image(path);
    options.memory = boot.memory();
    let (accelerator, memory) = (options.accelerator, bytes(options.memory));
    let qemu = now();
    let cluster = Cluster::start(options)?;
    let line = format!(": ready ({nodes} of {nodes} nodes)");
    let (ready, lines) = std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..nodes)
            .map(|node| {
                let (console, line) = (cluster.console(node), &line);
                scope.spawn(move || console.wait_for(line, PATIENCE).map(|_| now()))
            })
            .collect();
        let ready = cluster.wait_ready(PATIENCE).map(|()| now());
        let lines: Vec<_> = watchers.into_iter().map(|watcher| watcher.join()).collect();
        (ready, lines)
    });
    let ready = ready?;
    std::thread::sleep(IDLE);
    let mut starts = Vec::new();
    for (number, line) in lines.into_iter().enumerate() {
        let line = match line {
            Ok(line) => line?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let (usage, at) = usage(&cluster, number)?;
        let pid = cluster.status()?.cluster.nodes[number].pid;
        let touched = pid.and_then(|pid| {
            resident(&fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?, memory)
        });
        let used = memory.saturating_sub(usage.memory_available_bytes);
        starts.push(NodeStart { kernel: at - usage.uptime_s, ready: line, used, touched });
    }
    let start = Start { accelerator, memory, image, qemu, ready, nodes: starts };
    println!("{}", serde_json::to_string(&start)?);
    Ok(())
}

/// Starts as many machines with the same kernel and a shell; the seconds that each kernel says it took until then.
pub(super) fn shells(nodes: usize, session: &Session, origin: &Origin) -> Result<Vec<f64>> {
    let kernel = crate::kernel::build(session, origin, Variant::Node, Image::Vmlinux)?.image;
    let options = options(session, kernel, initramfs::shell(session)?, nodes)?;
    let cluster = Cluster::start(options)?;
    (0..nodes).map(|node| shell(cluster.console(node))).collect()
}

/// What a machine with a shell says.
fn shell(console: &ConsoleReader) -> Result<f64> {
    let (before, after) = SHELL;
    let from = console.wait_for(before, PATIENCE).context("waiting for a bare shell")?;
    console.wait_for_since(from, after, PATIENCE).context("waiting for a bare shell")?;
    let said = console.read(from, Duration::ZERO).bytes;
    let said = String::from_utf8_lossy(&said);
    let seconds = said.split(after).next().and_then(|text| text.trim().parse().ok());
    seconds.with_context(|| format!("a bare shell says `{said}` after `{before}`"))
}

/// What the machines have in common.
fn options(session: &Session, kernel: PathBuf, root: PathBuf, nodes: usize) -> Result<Options> {
    let mut options = Options::new(kernel, root);
    options.nodes = nodes;
    options.launcher = launcher();
    options.logs = Some(session.store.directory("logs")?.join("bench-boot"));
    let cache = &session.workspace.cache;
    options.accelerator = accelerator(Choice::Auto, QEMU, cache, &options.kernel);
    Ok(options)
}

/// What a node uses, and when it said so: in the middle of the question and the answer.
fn usage(cluster: &Cluster, number: usize) -> Result<(Usage, f64)> {
    let clients = access::clients(cluster.run(), cluster.description())?;
    let client = clients.get(number).with_context(|| format!("finding the API of node{number}"))?;
    let url = format!("{}/v1/usage", client.address().base());
    let agent = client.agent(ANSWER);
    let ask = || agent.get(&url).call().and_then(|mut answer| answer.body_mut().read_json());
    // The first answer is of a connection that had to be made.
    let _: Usage = ask().with_context(|| format!("asking node{number} what it uses"))?;
    let asked = now();
    let usage = ask().with_context(|| format!("asking node{number} what it uses"))?;
    Ok((usage, (asked + now()) / 2.0))
}

/// The length of a file.
pub(super) fn size(path: &Path) -> Result<u64> {
    let file = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(file.len())
}

pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn bytes(memory: Memory) -> u64 {
    u64::from(memory.mib) << 20
}

/// How much of a process's mapping of `size` bytes is resident, from `/proc/PID/smaps`.
///
/// A virtual machine's memory is such a mapping. Its guest cannot give pages back (there is no balloon), so this is what it has
/// ever touched: kernel, unpacked root, page tables and all, rounded up to huge pages where the host uses those.
fn resident(smaps: &str, size: u64) -> Option<u64> {
    let mut matches = false;
    for line in smaps.lines() {
        let first = line.split_whitespace().next()?;
        if let Some((start, end)) = first.split_once('-') {
            let number = |text| u64::from_str_radix(text, 16).ok();
            matches =
                number(end).zip(number(start)).is_some_and(|(end, start)| end - start == size);
        } else if let (true, Some(rest)) = (matches, line.strip_prefix("Rss:")) {
            let kib: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
            return Some(kib << 10);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_memory_is_found_by_its_size() {
        let smaps = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0\nSize:  4 kB\nRss:   4 kB\n\
                     7f1000000000-7f1008000000 rw-p 00000000 00:00 0\nSize: 131072 kB\nRss: 70000 kB\n\
                     7f2000000000-7f2008001000 rw-p 00000000 00:00 0\nRss: 8 kB\n";
        assert_eq!(resident(smaps, 128 << 20), Some(70_000 << 10));
        assert_eq!(resident(smaps, 256 << 20), None);
    }
}
