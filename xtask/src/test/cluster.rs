// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scenarios with virtual clusters: what a DVS of several nodes must do, on the real kernel, with power cuts and bad networks.
//!
//! Booting is what costs, so all scenarios but those of the command line share one cluster and leave it as they found it. Nothing is asserted
//! about time but generous limits after which something counts as hanging.

mod admissions;
mod agreement;
mod bed;
mod blocks;
mod cables;
mod captures;
mod command_line;
mod containers;
mod control;
mod copies;
mod dc;
mod disks;
mod elections;
mod exchanges;
pub(crate) mod faults;
mod files;
mod groups;
pub(crate) mod guest;
mod histories;
mod images;
mod lives;
pub(crate) mod mismatch;
mod moves;
mod net;
mod outages;
mod patrons;
mod posix;
pub(super) mod program;
mod promotions;
mod rules;
mod segment;
mod servers;
mod site;
mod strangers;
mod tables;
mod transports;
mod trees;

use std::fs;

use anyhow::{Context, Result};
use dvk_abi::wire::frame::Versions;
use dvs_qemu::machine::{Memory, QEMU};
use dvs_qemu::Options;

use crate::artefacts::{self, Artefacts};
use crate::doctor::{self, Need};
use crate::kernel::{Image, Variant};
use crate::qemu::{accelerator, launcher};
use crate::source::{Origin, Pins};
use crate::step::{Session, Step};
use crate::test::summary::{Outcome, Verdict};
use bed::{Bed, MACHINES, MEMBERS};
use dvk_fuzz::complaint::complaints;
use dvs_api::Transport;
use dvs_qemu::accel::Choice;
use faults::Scripts;
use mismatch::Mismatch;
use transports::much_memory;

const SUITE: &str = "cluster";

/// The node that is a version of the link protocol behind the others, as one that is still to be upgraded is: what holds for all
/// nodes holds for those.
const BEHIND: usize = 3;

/// Decides which frames the faults hit, the same in every run.
const SEED: u64 = 7;

type Scenario = (&'static str, fn(&mut Bed) -> Result<(), Mismatch>);

/// One that is about to be run: its name and what it does.
type Wanted<'a> = (String, Box<dyn Fn(&mut Bed) -> Result<(), Mismatch> + 'a>);

/// In this order, because each leaves the cluster as it found it and the first ones are what the others rest on.
const SCENARIOS: &[Scenario] = &[
    ("four identical nodes find each other", exchanges::nodes_find_each_other),
    ("a test can run programs on every node", guest::programs_run),
    ("containers run, are shut in and leave nothing behind", containers::keep_the_rules),
    ("containers on two nodes share a network", containers::share_a_network),
    ("a Distributed Container spans nodes and leaves nothing behind", dc::span_nodes),
    ("Distributed Containers are apart from each other", dc::are_apart),
    ("images make Distributed Containers with networks of their own", images::make_containers),
    ("a node that comes back has its Distributed Containers again", dc::come_back),
    ("messages are exchanged exactly once", exchanges::exactly_once),
    (
        "a bad network loses, repeats and reorders nothing",
        exchanges::exactly_once_in_spite_of_faults,
    ),
    ("nothing that nodes say can be read on the segment", segment::nothing_is_in_the_clear),
    ("forged and recorded frames change nothing but a counter", segment::forgeries_are_counted),
    ("keys change while messages flow", segment::keys_change_while_messages_flow),
    ("no key survives the dvsd that has made it", segment::no_key_survives_its_run),
    ("the tables of each kernel tell of the cluster", tables::tell_of_the_cluster),
    ("memory is lent and copied between nodes", copies::between_nodes),
    ("copies between nodes survive a bad network", copies::in_spite_of_faults),
    ("a node that loses power ends the copies with it", copies::power_cut),
    ("a rule that does not hold between nodes is reported", rules::failures_are_told),
    ("the rules hold between nodes, over Ethernet", rules::over_ethernet),
    ("a server moves between nodes under load", moves::under_load),
    (
        "a backup takes the place of a server that was cut off, and later of one that lost power",
        promotions::of_backups,
    ),
    ("what the nodes agree on survives any node, and two in turn", agreement::any_node_may_fail),
    ("half of the nodes without a majority refuse changes and heal", agreement::halves),
    ("commands run under a lock one at a time", agreement::one_at_a_time),
    ("what clients see of a key while nodes fail is linearizable", histories::of_a_key),
    ("what clients see of a lock while nodes fail is linearizable", histories::of_a_lock),
    ("members of a group see one stream while nodes fail", groups::one_stream),
    ("programs in a container use its services while the leader's node fails", patrons::count),
    ("nodes look at the network for administrators", net::look_at_the_network),
    ("downloads go on while file servers and a disk's node fail", files::take_over),
    ("trees of files are copied to a file server and back", trees::there_and_back),
    ("a disk of Linux is one of a container, on any node", blocks::of_linux),
    ("servers run again, elsewhere and where they are wanted", servers::run_again),
    ("programs on four nodes go through a barrier together", elections::barrier),
    ("the lead goes to another node when its node loses power", elections::change_of_lead),
    ("a leader is drained and undrained while messages flow", lives::drain),
    ("a node that is asked to restarts without being missed", lives::reboot),
    ("a node that was removed stays out until it is let in again", lives::remove),
    ("a link changes its transport while messages flow", transports::while_messages_flow),
    ("much memory is copied intact over ethernet", |bed| much_memory(bed, Transport::Ethernet)),
    ("much memory is copied intact over tipc", |bed| much_memory(bed, Transport::Tipc)),
    ("much memory is copied intact over tcp", |bed| much_memory(bed, Transport::Tcp)),
    ("much memory is copied intact over udp", |bed| much_memory(bed, Transport::Udp)),
    ("much memory is copied intact over quic", |bed| much_memory(bed, Transport::Quic)),
    ("a node that loses power comes back with what was chosen for its link", transports::power_cut),
    ("a node that loses power is down, the others go on, and it comes back", outages::power_cut),
    ("a node that restarts unnoticed is a new one to the others", outages::unnoticed_restart),
    ("a node that stalls is down and comes back", outages::stall),
    ("nodes that lose sight of each other find each other again", outages::partitions),
    ("a node that does not hear another one fails neither silently nor forever", outages::deafness),
    ("strangers on the segment do no harm and are told why", strangers::do_no_harm),
    ("machines are let in with join tokens, as long as these are valid", admissions::let_in),
];

/// The same for runs that may be long.
const LONG_SCENARIOS: &[Scenario] = &[
    ("the rules hold between nodes, over TIPC", rules::over_tipc),
    ("the rules hold between nodes, over TCP", rules::over_tcp),
    ("the rules hold between nodes, over UDP", rules::over_udp),
    ("the rules hold between nodes, over QUIC", rules::over_quic),
    // A replica that was put behind on a slow host does not always come into step again in the time that it is given here.
    ("a disk with replicas loses nothing while its servers fail", disks::take_over),
];

/// Runs all scenarios, or those whose name contains `only`; there are more, and some do more, if it may be `long`. With `scripts`, only
/// these scripts of faults are played.
///
/// # Errors
/// When something does not build or the cluster's machines cannot be started. Failing scenarios are outcomes, not errors.
pub(crate) fn run(
    session: &Session,
    origin: &Origin,
    only: Option<&str>,
    long: bool,
    scripts: Option<Scripts>,
) -> Result<Vec<Outcome>> {
    let needs = [Need::Qemu, Need::Captures];
    doctor::require(session, &needs, &Pins::read(session)?.tools)?;
    let built = artefacts::build(session, origin, Variant::Node, Image::Vmlinux, true)?;
    let mut step = session.begin("test cluster", "running scenarios with virtual clusters")?;
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let mut outcomes = Vec::new();
    let scripted: Vec<_> = scripts.into_iter().flat_map(|scripts| scripts.all()).collect();
    let scripted = scripted
        .iter()
        .map(|faults| -> Wanted<'_> { (faults.name(), Box::new(|bed: &mut Bed| faults.run(bed))) });
    let fixed = if scripts.is_none() { SCENARIOS } else { &[] };
    let longer = if scripts.is_none() && long { LONG_SCENARIOS } else { &[] };
    let fixed = fixed.iter().chain(longer);
    let fixed = fixed.map(|(name, run)| -> Wanted<'_> { ((*name).to_owned(), Box::new(run)) });
    let shared: Vec<_> = fixed.chain(scripted).filter(|(name, _)| wanted(name)).collect();
    if !shared.is_empty() {
        outcomes.extend(share_a_cluster(session, &built, &shared, long, &mut step)?);
    }
    let alone = if scripts.is_none() { command_line::SCENARIOS } else { &[] };
    let alone_longer = if scripts.is_none() && long { command_line::LONG_SCENARIOS } else { &[] };
    let alone = alone.iter().chain(alone_longer);
    for (name, scenario) in alone.filter(|(name, _)| wanted(name)) {
        step.now(name);
        let verdict = scenario(session, origin).map_err(|mismatch| mismatch.to_string());
        outcomes.push(Outcome::of(SUITE, name, verdict));
    }
    step.finish(&format!("{} scenarios with virtual clusters were run", outcomes.len()));
    Ok(outcomes)
}

/// Runs scenarios one after the other on one cluster.
fn share_a_cluster(
    session: &Session,
    built: &Artefacts,
    scenarios: &[Wanted<'_>],
    long: bool,
    step: &mut Step,
) -> Result<Vec<Outcome>> {
    let logs = session.store.directory("logs")?.join(SUITE);
    crate::store::remove(&logs)?;
    fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
    let kernel = &built.kernel.image;
    let initramfs = built.root.test.as_ref().context("packing the overlay for tests")?;
    let mut options = Options::new(kernel, initramfs);
    options.agent = true;
    options.nodes = MACHINES;
    options.bootstrap_expect = Some(MEMBERS as u32);
    options.seed = SEED;
    // A node's memory is enough for what a node is for; here the programs of the tests are in it as well, as files and running.
    options.memory = Memory { mib: 192 };
    options.logs = Some(logs);
    // Warnings of the kernel are failures here, so they must not be kept quiet.
    options.append = vec!["loglevel=5".to_owned()];
    options.append_to = strangers::kernel_arguments();
    options.join_tokens = admissions::join_tokens()?;
    options
        .append_to
        .insert(BEHIND, vec![format!("dvk.newest_version={}", Versions::SUPPORTED.max - 1)]);
    options.launcher = launcher();
    options.accelerator = accelerator(Choice::Auto, QEMU, &session.workspace.cache, kernel);
    step.now("starting the cluster");
    let mut bed = Bed::start(options, built.root.programs.path("dvsctl"), long)?;
    let mut outcomes = Vec::new();
    let mut usable = true;
    for (name, scenario) in scenarios {
        if !usable {
            let verdict = Verdict::Skipped;
            outcomes.push(Outcome { suite: SUITE.to_owned(), name: name.clone(), verdict });
            continue;
        }
        step.now(name);
        let began = std::time::Instant::now();
        let verdict = bed
            .await_all_ready("waiting for the cluster before the scenario")
            .and_then(|()| scenario(&mut bed))
            .map_err(|mismatch| bed.report(&mismatch));
        let how = if verdict.is_ok() { "passed" } else { "failed" };
        step.remark(&format!("{how}: {name} ({:.1} s)", began.elapsed().as_secs_f64()));
        for note in bed.take_notes() {
            step.remark(&note);
        }
        if verdict.is_err() {
            usable = bed.recover().is_ok();
        }
        outcomes.push(Outcome::of(SUITE, name, verdict));
    }
    outcomes.push(kernels_are_content(&bed));
    Ok(outcomes)
}

/// No kernel of the cluster may have complained, whatever was done to it.
fn kernels_are_content(bed: &Bed) -> Outcome {
    let mut found = Vec::new();
    for node in 0..MACHINES {
        let log = bed.console_log(node);
        match fs::read(&log) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                found.extend(
                    complaints(&text).into_iter().map(|line| format!("node{node}: {line}")),
                );
            }
            Err(error) => found.push(format!("reading {}: {error}", log.display())),
        }
    }
    if !found.is_empty() {
        found.push(format!("console logs: {}", bed.logs().display()));
    }
    let verdict = if found.is_empty() { Ok(()) } else { Err(found.join("\n")) };
    Outcome::of(SUITE, "the kernels do not complain", verdict)
}
