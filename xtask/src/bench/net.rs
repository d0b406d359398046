// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast processes on two nodes talk: the program `dvk-bench` on both nodes of a virtual cluster, by turns over each of the DVK's
//! transports and by sockets, all over the same network device.

mod figures;
mod pair;
mod profile;
mod rounds;
mod table;

use anyhow::{ensure, Context, Result};
use dvk_bench::{Carrier, Work};
use dvs_qemu::accel::{Accelerator, Choice};
use dvs_qemu::machine::{Memory, QEMU};
use dvs_qemu::Options;

use super::{plot, Output};
use crate::artefacts;
use crate::doctor::{self, Need};
use crate::kernel::{Image, Variant};
use crate::qemu::{accelerator, launcher};
use crate::source::{Origin, Pins};
use crate::step::Session;
use figures::Figures;
use pair::Pair;
use profile::Profile;
use rounds::{Effort, Rounds};

/// The root takes half of it at most, programs for tests included.
const MEMORY: Memory = Memory { mib: 256 };

/// Arguments of `cargo xtask bench net`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fewer and shorter repetitions: figures to look at, not to quote
    #[arg(long)]
    quick: bool,
    /// Only these ways
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WAY,…")]
    only: Vec<Carrier>,
    /// Measure nothing, but say where the instructions of this way go, by function of the kernels
    #[arg(long, value_enum, value_name = "WAY", conflicts_with_all = ["quick", "only"])]
    profile: Option<Carrier>,
    /// Profile fetching blocks of as many bytes instead of round trips
    #[arg(long, value_name = "BYTES", requires = "profile", conflicts_with = "store")]
    fetch: Option<u32>,
    /// Profile storing blocks of as many bytes instead of round trips
    #[arg(long, value_name = "BYTES", requires = "profile")]
    store: Option<u32>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Measures, prints and draws. Whether something is fast is not asked.
pub(super) fn run(arguments: &Arguments, session: &Session, origin: &Origin) -> Result<()> {
    doctor::require(session, &[Need::Qemu], &Pins::read(session)?.tools)?;
    let built = artefacts::build(session, origin, Variant::Node, Image::Vmlinux, true)?;
    let mut step = session.begin("bench net", "starting two nodes")?;
    let root = built.root.test.as_ref().context("packing the overlay for tests")?;
    let kernel = &built.kernel.image;
    let dvsctl = built.root.programs.path("dvsctl");
    let mut options = Options::new(kernel, root);
    options.nodes = 2;
    options.memory = MEMORY;
    options.agent = true;
    // A switch would cost every frame more than most of what is compared.
    options.wire = true;
    // All are to use the same device, so nothing may be protected.
    options.insecure = true;
    options.logs = Some(session.store.directory("logs")?.join("bench-net"));
    options.launcher = launcher();
    options.accelerator = accelerator(Choice::Auto, QEMU, &session.workspace.cache, kernel);
    if let Some(carrier) = arguments.profile {
        let work = match (arguments.fetch, arguments.store) {
            (Some(bytes), _) => Work::Fetch(bytes),
            (None, Some(bytes)) => Work::Store(bytes),
            (None, None) => Work::RoundTrip,
        };
        ensure!(carrier.can(work), "profiling {carrier}: it cannot do {work}");
        options.accelerator = Accelerator::Metering;
        let mut pair = Pair::start(options, dvsctl)?;
        step.now(&format!("watching {work} by {carrier}"));
        let profile = Profile::take(&mut pair, kernel, carrier, work)?;
        step.finish(&format!("a profile of {work} by {carrier}"));
        return super::print(arguments.output, &profile, Profile::table, &[]);
    }
    let host = options.accelerator;
    let mut rounds = Rounds::new(Effort::of(arguments.quick), &arguments.only);
    let mut pair = Pair::start(options.clone(), dvsctl.clone())?;
    rounds.take(&mut pair, |doing| step.now(doing))?;
    drop(pair);
    step.now("starting two nodes whose instructions are counted");
    options.accelerator = Accelerator::Metering;
    let mut pair = Pair::start(options, dvsctl)?;
    rounds.count(&mut pair, |doing| step.now(doing))?;
    drop(pair);
    for (carrier, why) in rounds.missing() {
        step.remark(&format!("{carrier} was not measured: {why}"));
    }
    let figures = Figures::new(host, rounds.into_samples());
    step.finish(&format!("{} measurements", figures.measurements.len()));
    let plots = plot::save(
        &session.workspace.target.join("bench"),
        [
            ("net-message-rate.svg", figures.message_rates()),
            ("net-copy-throughput.svg", figures.throughput()),
        ],
    )?;
    super::print(arguments.output, &figures, table::text, &plots)
}
