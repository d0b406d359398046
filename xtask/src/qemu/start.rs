// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting a cluster and staying with it.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use dvs_qemu::accel::{choose, foresee, kvm_boots, Accelerator, Choice, Host};
use dvs_qemu::access;
use dvs_qemu::cluster::{free_ports, require_program};
use dvs_qemu::front::check_free;
use dvs_qemu::launch::PARENT;
use dvs_qemu::machine::{shell_quoted, QEMU};
use dvs_qemu::readiness::{wait_ready, Progress};
use dvs_qemu::run_directory::{preview, root, Description};
use dvs_qemu::{Cluster, Options, Power, Remote};

use super::checkout::{Checkout, Images};
use super::screen::{self, PrefixedLines, ProgressLine};
use super::signals::{exit_status, Signals};
use super::supervise::detach;
use super::{command, demo, Boot, Start};

/// How long a guest may take to prove that KVM works.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// How many console lines of a node that isn't ready are shown.
const LINES_SHOWN: usize = 12;

/// A cluster that runs, here or in a process of its own.
struct Running {
    remote: Remote,
    description: Description,
    here: Option<Cluster>,
}

pub(super) fn run(start: &Start, checkout: &Checkout<'_>) -> Result<ExitCode> {
    let boot = start.boot()?;
    let given = start.kernel.is_some() || start.initramfs.is_some();
    if given && boot != Boot::Direct {
        bail!("--kernel and --initramfs are for --boot direct: the other ways to boot have images");
    }
    if start.dry_run {
        return dry_run(start, checkout);
    }
    // What would fail at the end of a long build had better fail before it.
    options(start, checkout, Images::given(start).unwrap_or_default(), 0)?.check()?;
    demo::check(start.demo, start.nodes)?;
    let published = demo::published(start.demo, &start.publish);
    check_free(&published)?;
    if start.qemu == QEMU {
        checkout.require_qemu(Images::given(start).is_none(), boot)?;
    }
    require_program(&start.qemu)?;
    let (images, tools) = match Images::given(start) {
        Some(images) => (images, checkout.tools()?),
        None => {
            let (images, tools) = checkout.build(boot)?;
            (images.overruled_by(start), tools)
        }
    };
    let demo = start.demo.map(|demo| demo.prepare(checkout.session)).transpose()?;
    let signals = Signals::catch()?;
    let seed = match start.seed {
        Some(seed) => seed,
        // Short enough to be typed again.
        None => u64::from(getrandom::u32().context("drawing a seed")?),
    };
    let mut options = options(start, checkout, images, seed)?;
    options.accelerator = accelerator(start.accel, &start.qemu, checkout.cache(), &options.kernel);
    let started = Instant::now();
    let faults = options.faults;
    let running = Running::start(options, start.keep)?;
    let cluster = &running.description;
    eprintln!(
        "cluster {}: {} nodes, {}, {faults}, seed {seed}",
        cluster.name, start.nodes, cluster.accelerator
    );
    eprint!("{}", screen::nodes(cluster));
    for publish in &cluster.published {
        eprintln!("{publish}");
    }
    // Where node 0 boots the others, they begin when it is done, one after the other.
    let turns = if start.seed_node.is_some() { 3 } else { 1 };
    let ready = running.await_ready(start.ready_timeout * turns, &signals);
    if let Some(signal) = signals.take() {
        running.end(start.keep);
        return Ok(ExitCode::from(exit_status(signal)));
    }
    match &ready {
        Ok(()) => eprintln!("ready after {:.1} s", started.elapsed().as_secs_f64()),
        // Somebody who watches can still look around; a command has nothing to run on.
        Err(error) if start.exec.is_none() && !start.keep && demo.is_none() => {
            eprintln!("warning: {error}")
        }
        Err(_) => {
            running.end(start.keep);
            return ready.map(|()| ExitCode::SUCCESS);
        }
    }
    let shown = demo.zip(published.first()).map(|(demo, &publish)| {
        demo.set_up(running.remote.run(), &tools, start.nodes, publish, &signals)
    });
    if let Some(signal) = signals.take() {
        running.end(start.keep);
        return Ok(ExitCode::from(exit_status(signal)));
    }
    let url = match shown.transpose() {
        Ok(url) => url,
        Err(error) => {
            running.end(start.keep);
            return Err(error);
        }
    };
    if let Some(text) = &start.exec {
        let (run, url) = (running.remote.run(), url.as_deref());
        let status = command::run(text, cluster, run, &tools, url, &signals);
        running.end(start.keep);
        return Ok(ExitCode::from(status?));
    }
    eprint!("{}", screen::hints(cluster, running.remote.run(), &tools));
    match &running.here {
        Some(here) if url.is_some() => {
            eprintln!("Ctrl-C ends the cluster");
            show_url(url.as_deref());
            await_end(here, &signals);
        }
        Some(here) => {
            eprintln!("consoles follow; Ctrl-C ends the cluster");
            watch(here, &signals);
        }
        None => {
            eprintln!(
                "it keeps running; end it with: cargo xtask qemu stop --name {}",
                cluster.name
            );
            show_url(url.as_deref());
        }
    }
    running.end(start.keep);
    Ok(ExitCode::SUCCESS)
}

impl Running {
    fn start(options: Options, keep: bool) -> Result<Running> {
        let (run, here) = if keep {
            (detach(&options)?, None)
        } else {
            let cluster = Cluster::start(options)?;
            (cluster.run().to_owned(), Some(cluster))
        };
        let remote = Remote::new(run);
        Ok(Running { description: remote.describe()?, remote, here })
    }

    /// Waits until all nodes see all nodes ready; shows progress, and what the others said if that fails.
    fn await_ready(&self, timeout: Duration, signals: &Signals) -> Result<()> {
        let nodes = &self.description.nodes;
        let apis = access::clients(self.remote.run(), &self.description)?;
        let mut line = ProgressLine::new();
        let mut last = vec![Progress::default(); nodes.len()];
        let mut lost = None;
        let waited = wait_ready(&apis, timeout, |all| {
            line.show(all);
            last.copy_from_slice(all);
            lost = self.lost_node();
            signals.seen().is_none() && lost.is_none()
        });
        line.clear();
        if waited.is_ok() || signals.seen().is_some() {
            return Ok(());
        }
        for (n, node) in nodes.iter().enumerate() {
            let ready = last[n].ready >= nodes.len();
            if lost.map_or(!ready, |lost| lost == n) {
                eprintln!("last lines of node{n}'s console ({}):", node.log.display());
                for text in screen::last_lines(&node.log, LINES_SHOWN) {
                    eprintln!("n{n}| {text}");
                }
            }
        }
        match lost {
            Some(n) => bail!("node{n} went off before it was ready"),
            None => Ok(waited?),
        }
    }

    /// A node that has no power.
    fn lost_node(&self) -> Option<usize> {
        let status = self.remote.status().ok()?;
        status.nodes.iter().position(|node| node.power == Power::Off)
    }

    /// Ends the cluster if it is here; one that is kept goes on.
    fn end(self, keep: bool) {
        if keep {
            eprintln!("cluster {} keeps running", self.description.name);
        }
        drop(self.here);
    }
}

/// The last line, and the only one on standard output.
fn show_url(url: Option<&str>) {
    if let Some(url) = url {
        println!("{url}");
    }
}

/// Waits until a signal comes or somebody else ends the cluster.
fn await_end(cluster: &Cluster, signals: &Signals) {
    while signals.seen().is_none() && !cluster.has_ended() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Shows all consoles until a signal comes or somebody else ends the cluster.
fn watch(cluster: &Cluster, signals: &Signals) {
    let mut nodes: Vec<_> = (0..cluster.len())
        .map(|n| (cluster.console(n), cluster.console(n).end(), PrefixedLines::new(n)))
        .collect();
    while signals.seen().is_none() && !cluster.has_ended() {
        for (console, position, lines) in &mut nodes {
            let passage = console.read(*position, Duration::ZERO);
            *position = passage.end;
            eprint!("{}", lines.add(&passage.bytes));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn options(start: &Start, checkout: &Checkout<'_>, images: Images, seed: u64) -> Result<Options> {
    let name = start.name.as_deref().unwrap_or("unnamed");
    let way = start.boot()?;
    let (boot, firmware) = way.with_image(checkout.image(way));
    Ok(Options {
        name: start.name.clone(),
        nodes: start.nodes,
        segments: start.segments,
        qemu: start.qemu.clone(),
        memory: start.memory.unwrap_or(demo::memory(start.demo, way.memory())),
        boot,
        firmware,
        spare_disks: false,
        cpus: start.cpus,
        faults: start.faults.faults(),
        seed,
        pcap: start.pcap.as_deref().map(std::path::absolute).transpose()?,
        // Apart by process, so that clusters without a name don't write into each other's logs.
        logs: Some(checkout.directory().join(format!("{name}-{}", std::process::id()))),
        token: start.token.clone(),
        insecure: start.insecure,
        append: start.append.clone(),
        publish: demo::published(start.demo, &start.publish),
        launcher: launcher(),
        ..Options::new(images.kernel, images.initramfs)
    })
}

/// This very program, even if it is being rebuilt meanwhile.
pub(crate) fn launcher() -> Vec<String> {
    ["/proc/self/exe", "qemu", "launch", PARENT, "--"].map(str::to_owned).to_vec()
}

/// What runs the guests of the program `qemu`. The answer to whether KVM works is remembered in `cache`.
pub(crate) fn accelerator(choice: Choice, qemu: &str, cache: &Path, kernel: &Path) -> Accelerator {
    choose(choice, &Host::look(qemu), cache, || {
        eprintln!("trying whether KVM works here; the answer is remembered");
        kvm_boots(qemu, kernel, PROBE_PATIENCE)
    })
}

/// Prints what would be run, as far as that can be known without building and without trying KVM.
fn dry_run(start: &Start, checkout: &Checkout<'_>) -> Result<ExitCode> {
    let images = checkout.last_built().overruled_by(start);
    let mut options = options(start, checkout, images, start.seed.unwrap_or(0))?;
    options.check()?;
    let host = Host::look(&start.qemu);
    options.accelerator = foresee(start.accel, &host, checkout.cache());
    let run = preview(&root(), start.name.as_deref());
    let each = 1 + options.publish.len();
    let ports = free_ports(start.nodes * each)?;
    for (node, ports) in ports.chunks(each).enumerate() {
        let machine = options.machine(node, &run, ports[0], None, &ports[1..]);
        println!("{}", shell_quoted(&machine.command()));
    }
    for publish in &options.publish {
        eprintln!("{publish}");
    }
    Ok(ExitCode::SUCCESS)
}

impl Images {
    /// Both images if the command line names both.
    fn given(start: &Start) -> Option<Images> {
        let images = start.kernel.clone().zip(start.initramfs.clone());
        images.map(|(kernel, initramfs)| Images { kernel, initramfs })
    }

    /// With what the command line names instead.
    fn overruled_by(self, start: &Start) -> Images {
        Images {
            kernel: start.kernel.clone().unwrap_or(self.kernel),
            initramfs: start.initramfs.clone().unwrap_or(self.initramfs),
        }
    }
}
