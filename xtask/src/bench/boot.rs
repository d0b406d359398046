// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long it takes from a command to a cluster that is ready, and what a node costs.
//!
//! Each run is a `cargo xtask` of its own, so that what a user waits for is in the figure: cargo, the check that everything is
//! built, and the start of the machines.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{ensure, Context, Result};
use dvs_qemu::accel::{Accelerator, Choice};
use dvs_qemu::machine::{Memory, QEMU};
use dvs_qemu::{Cluster, ConsoleReader, Options};
use serde::{Deserialize, Serialize};

use super::Output;
use crate::artefacts;
use crate::doctor::{self, Need};
use crate::kernel::{self, Image, Variant};
use crate::qemu::{accelerator, launcher};
use crate::source::{Origin, Pins};
use crate::step::Session;

/// How long a cluster may take before it counts as failed rather than slow.
const PATIENCE: Duration = Duration::from_secs(300);
/// Lets the kernel say its name on the console and little else, so that its start can be seen.
const LOGLEVEL: &str = "loglevel=6";

/// Arguments of `cargo xtask bench boot`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of nodes
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    /// Number of runs, of which the median is printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// When one start of a cluster reached what, in seconds since the Unix epoch, and the memory it used then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Start {
    accelerator: Accelerator,
    memory: Memory,
    /// The QEMUs were started, side by side.
    qemu: f64,
    /// All nodes saw all nodes ready.
    ready: f64,
    nodes: Vec<NodeStart>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NodeStart {
    /// The kernel's first line was on the console.
    kernel: f64,
    /// PID 1's first line was.
    init: f64,
    /// The line was that says that all nodes are ready.
    ready: f64,
    /// Bytes of the guest's memory that the host has had to provide; see [`resident`].
    touched: Option<u64>,
}

/// Medians over the runs, as they are printed. Times are wall-clock seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Figures {
    nodes: usize,
    runs: u32,
    accelerator: Accelerator,
    /// From the command to a cluster whose nodes all see each other ready.
    command_to_ready_s: f64,
    /// The slowest of the runs.
    command_to_ready_max_s: f64,
    /// From the start of a node's QEMU, each the median over nodes and runs.
    qemu_to_kernel_s: f64,
    qemu_to_init_s: f64,
    qemu_to_ready_s: f64,
    memory_configured_bytes: u64,
    /// What a node has touched of it by then; `null` where the host does not say.
    memory_touched_bytes: Option<u64>,
    kernel_bytes: u64,
    initramfs_bytes: u64,
    kernel_and_initramfs_bytes: u64,
}

/// Measures and prints.
pub(super) fn run(arguments: &Arguments, session: &Session, origin: &Origin) -> Result<()> {
    doctor::require(session, &[Need::Qemu], &Pins::read(session)?.tools)?;
    // What is measured is warm: building is not part of it, and the size is that of the compressed kernel.
    let built = artefacts::build(session, origin, Variant::Node, Image::Vmlinux, false)?;
    let boot = kernel::build(session, origin, Variant::Node, Image::BzImage)?;
    let size = |path: &Path| {
        fs::metadata(path)
            .map(|file| file.len())
            .with_context(|| format!("reading {}", path.display()))
    };
    let sizes = (size(&boot.image)?, size(&built.root.node)?);
    let mut step = session.begin("bench boot", "starting clusters")?;
    let mut starts = Vec::new();
    for run in 1..=arguments.runs {
        step.now(&format!("run {run} of {}", arguments.runs));
        starts.push(start(arguments.nodes, session, origin)?);
    }
    step.finish(&format!("{} runs of {} nodes", arguments.runs, arguments.nodes));
    let figures = figures(&starts, arguments, sizes);
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string(&figures)?),
        Output::Table => print!("{}", figures.table()),
    }
    Ok(())
}

/// Has a command of its own start a cluster; when that was begun, and what came of it.
fn start(nodes: usize, session: &Session, origin: &Origin) -> Result<(f64, Start)> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&session.workspace.root)
        .args(["xtask", "bench", "boot-once", &nodes.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if let Origin::Given(path) = origin {
        command.env("DVS_KERNEL_SRC", path);
    }
    let began = now();
    let output = command.output().context("running cargo xtask bench boot-once")?;
    ensure!(
        output.status.success(),
        "a run failed: cargo xtask bench boot-once: {}",
        output.status
    );
    let start = serde_json::from_slice(&output.stdout).context("reading the figures of a run")?;
    Ok((began, start))
}

/// Starts a cluster, notes when it reached what, and prints that for [`start`].
pub(super) fn once(nodes: usize, session: &Session, origin: &Origin) -> Result<()> {
    let built = artefacts::build(session, origin, Variant::Node, Image::Vmlinux, false)?;
    let mut options = Options::new(built.kernel.image, built.root.node);
    options.nodes = nodes;
    options.append = vec![LOGLEVEL.to_owned()];
    options.launcher = launcher();
    options.logs = Some(session.store.directory("logs")?.join("bench-boot"));
    options.accelerator =
        accelerator(Choice::Auto, QEMU, &session.workspace.cache, &options.kernel);
    let (accelerator, memory) = (options.accelerator, options.memory);
    let qemu = now();
    let cluster = Cluster::start(options)?;
    let (ready, lines) = std::thread::scope(|scope| {
        let watchers: Vec<_> = (0..nodes)
            .map(|node| {
                let console = cluster.console(node);
                scope.spawn(move || lines(console, nodes))
            })
            .collect();
        let ready = cluster.wait_ready(PATIENCE).map(|()| now());
        let lines: Vec<_> = watchers.into_iter().map(|watcher| watcher.join()).collect();
        (ready, lines)
    });
    let ready = ready?;
    let mut starts = Vec::new();
    for (number, line) in lines.into_iter().enumerate() {
        let [kernel, init, ready] = match line {
            Ok(line) => line?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let pid = cluster.status()?.cluster.nodes[number].pid;
        let touched = pid.and_then(|pid| {
            resident(&fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?, bytes(memory))
        });
        starts.push(NodeStart { kernel, init, ready, touched });
    }
    println!(
        "{}",
        serde_json::to_string(&Start { accelerator, memory, qemu, ready, nodes: starts })?
    );
    Ok(())
}

/// When the three lines came. A console that stays silent is given up when the readiness is.
fn lines(console: &ConsoleReader, nodes: usize) -> dvs_qemu::Result<[f64; 3]> {
    let at = |text: &str| console.wait_for(text, PATIENCE).map(|_| now());
    let kernel = at("Linux version ")?;
    let init = at(": starting (cluster ")?;
    Ok([kernel, init, at(&format!(": ready ({nodes} of {nodes} nodes)"))?])
}

fn now() -> f64 {
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

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

fn figures(runs: &[(f64, Start)], arguments: &Arguments, sizes: (u64, u64)) -> Figures {
    let commands = || runs.iter().map(|(began, start)| start.ready - began);
    let nodes = || runs.iter().flat_map(|(_, s)| s.nodes.iter().map(|node| (s.qemu, node)));
    let touched: Vec<_> = nodes().filter_map(|(_, node)| node.touched).map(|b| b as f64).collect();
    let (kernel, initramfs) = sizes;
    let millis = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
    Figures {
        nodes: arguments.nodes,
        runs: arguments.runs,
        accelerator: runs.first().map_or(Accelerator::Tcg, |(_, start)| start.accelerator),
        command_to_ready_s: millis(median(commands())),
        command_to_ready_max_s: millis(commands().fold(f64::NAN, f64::max)),
        qemu_to_kernel_s: millis(median(nodes().map(|(qemu, node)| node.kernel - qemu))),
        qemu_to_init_s: millis(median(nodes().map(|(qemu, node)| node.init - qemu))),
        qemu_to_ready_s: millis(median(nodes().map(|(qemu, node)| node.ready - qemu))),
        memory_configured_bytes: runs.first().map_or(0, |(_, start)| bytes(start.memory)),
        memory_touched_bytes: (!touched.is_empty()).then(|| median(touched) as u64),
        kernel_bytes: kernel,
        initramfs_bytes: initramfs,
        kernel_and_initramfs_bytes: kernel + initramfs,
    }
}

impl Figures {
    fn table(&self) -> String {
        let seconds = |value: f64| format!("{value:.2} s");
        let megabytes = |value: u64| format!("{:.2} MB", value as f64 / 1e6);
        let mebibytes = |value: u64| format!("{} MiB", value >> 20);
        let rows = [
            ("command to all ready", seconds(self.command_to_ready_s)),
            ("  slowest run", seconds(self.command_to_ready_max_s)),
            ("QEMU to kernel", seconds(self.qemu_to_kernel_s)),
            ("QEMU to PID 1", seconds(self.qemu_to_init_s)),
            ("QEMU to ready", seconds(self.qemu_to_ready_s)),
            ("memory of a node", mebibytes(self.memory_configured_bytes)),
            ("  touched of it", self.memory_touched_bytes.map_or("unknown".into(), mebibytes)),
            ("kernel (bzImage)", megabytes(self.kernel_bytes)),
            ("initramfs", megabytes(self.initramfs_bytes)),
            ("  both", megabytes(self.kernel_and_initramfs_bytes)),
        ];
        let Self { nodes, accelerator, runs, .. } = self;
        let head = format!("{nodes} nodes, {accelerator}, median of {runs} runs\n");
        rows.iter().fold(head, |text, (name, value)| text + &format!("{name:<22}{value:>12}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn the_guests_memory_is_found_by_its_size() {
        let smaps = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0\nSize:  4 kB\nRss:   4 kB\n\
                     7f1000000000-7f1008000000 rw-p 00000000 00:00 0\nSize: 131072 kB\nRss: 70000 kB\n\
                     7f2000000000-7f2008001000 rw-p 00000000 00:00 0\nRss: 8 kB\n";
        assert_eq!(resident(smaps, 128 << 20), Some(70_000 << 10));
        assert_eq!(resident(smaps, 256 << 20), None);
    }

    #[test]
    fn figures_are_medians_over_runs_and_nodes() {
        let node = |at: f64| NodeStart {
            kernel: at + 1.0,
            init: at + 2.0,
            ready: at + 5.0,
            touched: Some(64 << 20),
        };
        let run = |began: f64, took: f64| {
            let memory = Memory::default();
            let nodes = vec![node(began + 1.0), node(began + 1.2)];
            let (qemu, ready) = (began + 1.0, began + took);
            (began, Start { accelerator: Accelerator::Tcg, memory, qemu, ready, nodes })
        };
        let arguments = Arguments { nodes: 2, runs: 3, output: Output::Json };
        let figures =
            figures(&[run(100.0, 7.0), run(200.0, 9.0), run(300.0, 8.0)], &arguments, (5, 7));
        assert_eq!((figures.command_to_ready_s, figures.command_to_ready_max_s), (8.0, 9.0));
        assert_eq!((figures.qemu_to_kernel_s, figures.qemu_to_ready_s), (1.1, 5.1));
        assert_eq!(figures.memory_touched_bytes, Some(64 << 20));
        assert_eq!(figures.kernel_and_initramfs_bytes, 12);
        assert!(figures.table().starts_with("2 nodes, translated (TCG), median of 3 runs\n"));
    }
}
