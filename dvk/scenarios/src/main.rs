// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bulk;
mod clients;
mod control;
mod kill;
mod ledger;
mod party;
mod patron;
mod server;
mod witness;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Takes part in a scenario.
#[derive(Parser)]
enum Role {
    /// Make control calls
    Control,
    /// End all processes of a program at once
    Kill {
        /// Name of the program, at most 15 characters
        program: String,
    },
    /// Count what clients say, on this node or on that
    Server {
        /// The container
        #[arg(long)]
        container: u32,
    },
    /// Make one call for each order
    Party {
        /// The container
        #[arg(long)]
        container: u32,
    },
    /// Talk to those on all nodes while faults happen, and write down what came of it
    Witness {
        /// The container
        #[arg(long)]
        container: u32,
        /// This node
        #[arg(long)]
        node: usize,
    },
    /// Make up memory for somebody to copy
    Supply {
        /// The container
        #[arg(long)]
        container: u32,
    },
    /// Copy what a supplier makes up
    Fetch {
        /// The container
        #[arg(long)]
        container: u32,
        /// The supplier
        #[arg(long)]
        supplier: u64,
        /// How many bytes
        #[arg(long)]
        bytes: u64,
    },
    /// Count, under a lock and in a group, together with others of the same container
    Patron {
        /// The device of the container
        #[arg(long, default_value = "/dev/dvk")]
        device: String,
        /// Its name
        #[arg(long)]
        name: String,
        /// How many of them there are
        #[arg(long)]
        parties: u32,
        /// How often each counts
        #[arg(long)]
        rounds: u64,
    },
    /// Say something to the server without rest
    Clients {
        /// The container
        #[arg(long)]
        container: u32,
        /// Number of the first client
        #[arg(long)]
        first: u32,
        /// How many clients
        #[arg(long)]
        count: u32,
        /// The server
        #[arg(long)]
        server: u64,
    },
}

fn main() -> ExitCode {
    let result = match Role::parse() {
        Role::Control => control::run(),
        Role::Kill { program } => kill::run(&program),
        Role::Server { container } => server::run(container),
        Role::Party { container } => party::run(container),
        Role::Witness { container, node } => witness::run(container, node),
        Role::Supply { container } => bulk::supply(container),
        Role::Fetch { container, supplier, bytes } => {
            bulk::fetch(container, dvk::Endpoint::from_raw(supplier), bytes)
        }
        Role::Patron { device, name, parties, rounds } => {
            patron::run(&device, &name, parties, rounds)
        }
        Role::Clients { container, first, count, server } => {
            clients::run(container, first..first + count, dvk::Endpoint::from_raw(server))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells the scenario something.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
