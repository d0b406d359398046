// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: runs tests of every kind and adds up their results.

pub(crate) mod cluster;
mod host;
mod images;
mod kernel;
mod summary;
mod tap;
mod upgrades;

use std::process::ExitCode;

use anyhow::Result;

use self::cluster::faults::Scripts;
use crate::kernel::Variant;
use crate::source::Origin;
use crate::step::{self, Session};
use summary::{Outcome, Summary};

/// The kernels that are tested: what users run, and what finds most mistakes.
const KERNELS: [Variant; 2] = [Variant::Node, Variant::Debug];

/// Arguments of `cargo xtask test`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Test {
    #[command(subcommand)]
    part: Option<Part>,
}

/// One kind of tests; without it, all of them.
#[derive(Clone, Debug, clap::Subcommand)]
enum Part {
    /// On the host: everything that `cargo test` finds
    Host,
    /// In virtual machines: the conformance program on the kernel of the nodes, and with the driver's unit tests on the debug kernel
    Kernel {
        /// Only on this kernel
        #[arg(long, value_enum)]
        kernel: Option<Variant>,
        /// Only the conformance cases whose name matches
        #[arg(long, value_name = "GLOB")]
        only: Option<String>,
    },
    /// With virtual clusters: scenarios of several nodes, with power cuts and bad networks
    Cluster {
        /// Only the scenarios whose name contains this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Give scenarios the time for more of what they do; the rules between nodes are tried over all transports then
        #[arg(long)]
        long: bool,
        /// Only faults by script, so many of them
        #[arg(long, value_name = "NUMBER")]
        scenarios: Option<u64>,
        /// What the scripts follow from
        #[arg(long, default_value_t = 1, requires = "scenarios")]
        seed: u64,
    },
    /// With machines that boot from images: over the network, from CDs and disks, by BIOS and UEFI; and clusters that are upgraded
    Images {
        /// Only those whose name contains this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// All ways to boot rather than the most different ones
        #[arg(long)]
        long: bool,
    },
}

impl Test {
    /// Runs the tests and prints the counts, on the last line of standard output.
    pub(crate) fn run(&self, session: &Session, origin: &Origin) -> ExitCode {
        let mut summary = Summary::default();
        let mut add = |suite: &str, result: Result<Vec<Outcome>>| {
            // A suite that could not be run is a failure, and no reason to leave out the others.
            summary.extend(result.unwrap_or_else(|error| {
                vec![Outcome::of(suite, "run the suite", Err(step::report(&error)))]
            }));
        };
        match &self.part {
            Some(Part::Host) => add("host", host::run(session)),
            Some(Part::Kernel { kernel, only }) => {
                for variant in kernel.map_or(KERNELS.to_vec(), |only| vec![only]) {
                    let result = kernel::run(session, origin, variant, only.as_deref());
                    add(kernel::suite(variant), result);
                }
            }
            Some(Part::Cluster { only, long, scenarios, seed }) => {
                let scripts = scenarios.map(|count| Scripts { seed: *seed, count });
                add("cluster", cluster::run(session, origin, only.as_deref(), *long, scripts));
            }
            Some(Part::Images { only, long }) => {
                add("images", images::run(session, origin, only.as_deref(), *long));
                add("upgrades", upgrades::run(session, origin, only.as_deref(), *long));
            }
            None => {
                add("host", host::run(session));
                for variant in KERNELS {
                    add(kernel::suite(variant), kernel::run(session, origin, variant, None));
                }
                add("cluster", cluster::run(session, origin, None, false, None));
                add("images", images::run(session, origin, None, false));
                add("upgrades", upgrades::run(session, origin, None, false));
            }
        }
        print!("{}", summary.report());
        if summary.is_success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
