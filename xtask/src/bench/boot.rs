// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long it takes from a command to a cluster that is ready, by each way to boot, and what a node costs.
//!
//! Each run is a `cargo xtask` of its own, so that what a user waits for is in the figure: cargo, the check that everything is
//! built, and the start of the machines. What the same kernel takes to a bare shell, on as many machines at a time, is measured beside it.

mod once;

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use clap::ValueEnum;
use dvs_qemu::accel::Accelerator;
use serde::Serialize;

use super::Output;
use crate::artefacts;
use crate::doctor::{self, Need};
use crate::image;
use crate::kernel::{self, Image, Variant};
use crate::qemu::Boot;
use crate::source::{Origin, Pins};
use crate::step::Session;
pub(super) use once::once;
use once::{now, Start};

/// Arguments of `cargo xtask bench boot`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of nodes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    nodes: u16,
    /// Number of runs, of which the median is printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// How the nodes boot; all ways if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    boot: Vec<Boot>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Medians over the runs, as they are printed. Times are wall-clock seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Figures {
    nodes: usize,
    runs: u32,
    accelerator: Accelerator,
    kernel_bytes: u64,
    initramfs_bytes: u64,
    kernel_and_initramfs_bytes: u64,
    /// From the start of the kernel's clock to a shell that is the first process, on as many machines at a time.
    kernel_to_shell_s: f64,
    /// By the name of the way.
    boot: BTreeMap<String, Way>,
}

/// One way to boot. Each figure of nodes is the median over nodes and runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Way {
    /// From the command to a cluster whose nodes all see each other ready.
    command_to_ready_s: f64,
    /// The slowest of the runs.
    command_to_ready_max_s: f64,
    /// From the start of a node's QEMU: firmware and boot loader included.
    power_on_to_ready_s: f64,
    /// From the start of the kernel's clock.
    kernel_to_ready_s: f64,
    /// How many times what a bare shell takes.
    kernel_to_ready_per_shell: f64,
    /// What a node loads, or the image that it is on.
    image_bytes: u64,
    memory_configured_bytes: u64,
    /// What no program of an idle node can have any more of it, the kernel's own included.
    memory_used_bytes: u64,
    /// What a node has touched of it; `null` where the host does not say.
    memory_touched_bytes: Option<u64>,
}

/// Measures and prints.
pub(super) fn run(arguments: &Arguments, session: &Session, origin: &Origin) -> Result<()> {
    let ways = if arguments.boot.is_empty() { Boot::value_variants() } else { &arguments.boot[..] };
    let needs = [Need::Qemu, Need::Images, Need::Firmware];
    let needs = if ways == [Boot::Direct] { &needs[..1] } else { &needs };
    doctor::require(session, needs, &Pins::read(session)?.tools)?;
    // What is measured is warm: building is no part of it.
    let built = artefacts::build(session, origin, Variant::Node, Image::BzImage, false)?;
    kernel::build(session, origin, Variant::Node, Image::Vmlinux)?;
    for what in ways.iter().filter_map(|way| way.image()) {
        image::build(session, &built, what, &image::folder(session))?;
    }
    let sizes = (once::size(&built.kernel.image)?, once::size(&built.root.node)?);
    let nodes = usize::from(arguments.nodes);
    let mut step = session.begin("bench boot", "starting machines")?;
    let mut shells = Vec::new();
    let mut starts: Vec<(Boot, f64, Start)> = Vec::new();
    for run in 1..=arguments.runs {
        step.now(&format!("run {run} of {}: bare shells", arguments.runs));
        shells.extend(once::shells(nodes, session, origin)?);
        for &way in ways {
            step.now(&format!("run {run} of {}: {}", arguments.runs, way.name()));
            let (began, start) = start(nodes, way, session, origin)?;
            starts.push((way, began, start));
        }
    }
    step.finish(&format!("{} runs of {nodes} nodes", arguments.runs));
    let figures = figures(&starts, &shells, arguments, sizes);
    super::print(arguments.output, &figures, Figures::table, &[])
}

/// Has a command of its own start a cluster; when that was begun, and what came of it.
fn start(nodes: usize, way: Boot, session: &Session, origin: &Origin) -> Result<(f64, Start)> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&session.workspace.root)
        .args(["--quiet", "xtask", "bench", "boot-once", &nodes.to_string(), &way.name()])
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

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

fn figures(
    starts: &[(Boot, f64, Start)],
    shells: &[f64],
    arguments: &Arguments,
    (kernel, initramfs): (u64, u64),
) -> Figures {
    let shell = median(shells.iter().copied());
    let mut boot = BTreeMap::new();
    for (way, _, _) in starts {
        let runs: Vec<_> = starts.iter().filter(|(other, _, _)| other == way).collect();
        boot.entry(way.name()).or_insert_with(|| Way::of(&runs, shell));
    }
    Figures {
        nodes: usize::from(arguments.nodes),
        runs: arguments.runs,
        accelerator: starts.first().map_or(Accelerator::Tcg, |(_, _, start)| start.accelerator),
        kernel_bytes: kernel,
        initramfs_bytes: initramfs,
        kernel_and_initramfs_bytes: kernel + initramfs,
        kernel_to_shell_s: millis(shell),
        boot,
    }
}

fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl Way {
    fn of(runs: &[&(Boot, f64, Start)], shell: f64) -> Self {
        let commands = || runs.iter().map(|(_, began, start)| start.ready - began);
        let nodes = || runs.iter().flat_map(|(_, _, s)| s.nodes.iter().map(|node| (s.qemu, node)));
        let touched: Vec<_> =
            nodes().filter_map(|(_, node)| node.touched).map(|bytes| bytes as f64).collect();
        let kernel = median(nodes().map(|(_, node)| node.ready - node.kernel));
        Self {
            command_to_ready_s: millis(median(commands())),
            command_to_ready_max_s: millis(commands().fold(f64::NAN, f64::max)),
            power_on_to_ready_s: millis(median(nodes().map(|(qemu, node)| node.ready - qemu))),
            kernel_to_ready_s: millis(kernel),
            kernel_to_ready_per_shell: (kernel / shell * 100.0).round() / 100.0,
            image_bytes: runs.first().map_or(0, |(_, _, start)| start.image),
            memory_configured_bytes: runs.first().map_or(0, |(_, _, start)| start.memory),
            memory_used_bytes: median(nodes().map(|(_, node)| node.used as f64)) as u64,
            memory_touched_bytes: (!touched.is_empty()).then(|| median(touched) as u64),
        }
    }
}

impl Figures {
    fn table(&self) -> String {
        let Self { nodes, accelerator, runs, .. } = self;
        let megabytes = |value: u64| format!("{:.2} MB", value as f64 / 1e6);
        let mut text = format!(
            "{nodes} nodes, {accelerator}, median of {runs} runs\nkernel {}, initramfs {}, both {}\nkernel to a bare shell {:.2} s\n\n",
            megabytes(self.kernel_bytes),
            megabytes(self.initramfs_bytes),
            megabytes(self.kernel_and_initramfs_bytes),
            self.kernel_to_shell_s,
        );
        let mut row = |cells: [&str; 9]| {
            let [way, rest @ ..] = cells;
            let rest = rest.map(|cell| format!("{cell:>11}")).concat();
            text += &format!("{way:<9}{rest}\n");
        };
        row(["seconds", "command", "slowest", "power on", "kernel", "per shell", "", "memory", ""]);
        row(["", "to ready", "run", "to ready", "to ready", "", "image", "used", "touched"]);
        for (name, way) in &self.boot {
            let seconds = |value: f64| format!("{value:.2}");
            let mebibytes = |value: u64| format!("{:.1} MiB", value as f64 / f64::from(1 << 20));
            row([
                name,
                &seconds(way.command_to_ready_s),
                &seconds(way.command_to_ready_max_s),
                &seconds(way.power_on_to_ready_s),
                &seconds(way.kernel_to_ready_s),
                &seconds(way.kernel_to_ready_per_shell),
                &megabytes(way.image_bytes),
                &mebibytes(way.memory_used_bytes),
                &way.memory_touched_bytes.map_or("unknown".to_owned(), mebibytes),
            ]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use once::NodeStart;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn figures_are_medians_over_runs_and_nodes() {
        let node = |at: f64| NodeStart {
            kernel: at + 1.0,
            ready: at + 5.0,
            used: 50 << 20,
            touched: Some(64 << 20),
        };
        let run = |way, began: f64, took: f64| {
            let nodes = vec![node(began + 1.0), node(began + 1.2)];
            let (qemu, ready) = (began + 1.0, began + took);
            let (accelerator, memory, image) = (Accelerator::Tcg, 128 << 20, 12);
            (way, began, Start { accelerator, memory, image, qemu, ready, nodes })
        };
        let arguments = Arguments { nodes: 2, runs: 3, boot: vec![], output: Output::Json };
        let starts = [
            run(Boot::Iso, 100.0, 7.0),
            run(Boot::Pxe, 150.0, 50.0),
            run(Boot::Iso, 200.0, 9.0),
            run(Boot::Iso, 300.0, 8.0),
        ];
        let figures = figures(&starts, &[2.0, 4.0, 9.0], &arguments, (5, 7));
        assert_eq!((figures.kernel_to_shell_s, figures.kernel_and_initramfs_bytes), (4.0, 12));
        assert_eq!(figures.boot["pxe"].command_to_ready_s, 50.0);
        let iso = &figures.boot["iso"];
        assert_eq!((iso.command_to_ready_s, iso.command_to_ready_max_s), (8.0, 9.0));
        assert_eq!((iso.power_on_to_ready_s, iso.kernel_to_ready_s), (5.1, 4.0));
        assert_eq!((iso.kernel_to_ready_per_shell, iso.image_bytes), (1.0, 12));
        assert_eq!((iso.memory_used_bytes, iso.memory_touched_bytes), (50 << 20, Some(64 << 20)));
        assert!(figures.table().starts_with("2 nodes, translated (TCG), median of 3 runs\n"));
    }
}
