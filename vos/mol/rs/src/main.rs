// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reincarnation server as a program. Everything it does is in the library.

#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use dvk::{Port, Slot, Timeout};
use dvk_services::{Client, Direct};
use mol_rs::asking;
use mol_rs::board::Board;
use mol_rs::error::Error;
use mol_rs::manifest::Manifest;
use mol_rs::run;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the container's services may take to answer first.
const LIMIT: Timeout = Timeout::from_millis(10_000);

/// MoL's reincarnation server: runs the servers of a virtual OS on the nodes of its container, and runs them again
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    /// The device of the container
    #[arg(long, default_value = "/dev/dvk", global = true, value_name = "FILE")]
    dvk: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the servers that belong on this node; one per node, as the command of the container
    Run,
    /// Check a manifest, and have it hold on all nodes
    Load {
        /// The manifest; `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only check it
        #[arg(long)]
        dry_run: bool,
        /// Wait until all servers run
        #[arg(long)]
        wait: bool,
        /// Nodes on which mol-rs has to run before, such as 0,2
        #[arg(long, value_name = "NODES", value_delimiter = ',')]
        on: Vec<u32>,
        #[command(flatten)]
        limit: Limit,
    },
    /// Print the manifest that holds
    Manifest,
    /// Show where each server is, and how
    Show {
        /// The form: `table` or `json`
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        output: String,
    },
    /// Move a server of which there is one to another node, and wait until it runs there
    Move {
        /// The server
        name: String,
        /// The node
        #[arg(long, value_name = "N")]
        to: u32,
        #[command(flatten)]
        limit: Limit,
    },
    /// End a server on all nodes, until it is started again
    Stop {
        /// The server
        name: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// Run a server again that was stopped
    Start {
        /// The server
        name: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// Wait until all servers run
    Wait {
        /// Nodes on which mol-rs has to run by then as well, such as 0,2
        #[arg(long, value_name = "NODES", value_delimiter = ',')]
        on: Vec<u32>,
        #[command(flatten)]
        limit: Limit,
    },
    /// Print where the virtual OS is reached
    Url,
    /// Become a server
    #[command(hide = true)]
    Enter {
        #[arg(last = true, required = true)]
        words: Vec<OsString>,
    },
}

#[derive(Args, Clone, Copy)]
struct Limit {
    /// Seconds to wait at most
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 60)]
    timeout_s: u64,
}

impl Limit {
    fn time(self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

fn main() -> ExitCode {
    let Arguments { dvk, command } = Arguments::parse();
    if let Command::Enter { words } = &command {
        let error = run::enter(words);
        eprintln!(
            "cannot run {}: {error}",
            words.first().map_or("".into(), |it| it.to_string_lossy())
        );
        return ExitCode::from(127);
    }
    match execute(&dvk, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(dvk: &Path, command: Command) -> Result<(), Error> {
    match command {
        Command::Run => run::run(dvk),
        Command::Load { file, dry_run, wait, on, limit } => {
            let text = read(&file)?;
            Manifest::read(&text)?;
            if dry_run {
                return Ok(());
            }
            ask(dvk, |board| {
                asking::wait_for_nodes(board, &on, limit.time())?;
                board.load(&text)?;
                if wait {
                    asking::wait_for_all(board, &on, limit.time(), |text| eprintln!("{text}"))?;
                }
                Ok(())
            })
        }
        Command::Manifest => ask(dvk, |board| {
            let (text, _) = board.look()?.manifest.ok_or(Error::NoManifest)?;
            print!("{text}");
            Ok(())
        }),
        Command::Show { output } => ask(dvk, |board| {
            let rows = asking::rows(&board.look()?)?;
            match output.as_str() {
                "json" => println!("{}", serde_json::to_string(&rows).unwrap_or_default()),
                _ => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    print!("{}", asking::table(&rows, now.as_millis() as u64));
                }
            }
            Ok(())
        }),
        Command::Move { name, to, limit } => {
            ask(dvk, |board| asking::go(board, &name, to, limit.time()))
        }
        Command::Stop { name, limit } => {
            ask(dvk, |board| asking::switch(board, &name, false, limit.time()))
        }
        Command::Start { name, limit } => {
            ask(dvk, |board| asking::switch(board, &name, true, limit.time()))
        }
        Command::Wait { on, limit } => ask(dvk, |board| {
            asking::wait_for_all(board, &on, limit.time(), |text| eprintln!("{text}"))
        }),
        Command::Url => ask(dvk, |board| {
            let manifest = board.look()?.manifest()?;
            println!("{}", manifest.address().ok_or(Error::NoUrl)?);
            Ok(())
        }),
        Command::Enter { .. } => Ok(()),
    }
}

fn read(file: &Path) -> Result<String, Error> {
    let failed = |error| Error::Read { path: file.to_path_buf(), error };
    if file != Path::new("-") {
        return std::fs::read_to_string(file).map_err(failed);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn ask(
    dvk: &Path,
    work: impl FnOnce(&Board<Direct<'_>>) -> Result<(), Error>,
) -> Result<(), Error> {
    let port = Port::open(dvk, Slot::Any)?;
    let found = Client::find(&port, LIMIT);
    let what = "find the container's services";
    let client = found.map_err(|error| Error::Services { what, error })?;
    work(&Board::new(client))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_one() {
        Arguments::command().debug_assert();
        let parsed = |words: &str| Arguments::try_parse_from(words.split(' '));
        assert!(parsed("mol-rs run").is_ok());
        assert!(parsed("mol-rs load - --wait --timeout 5").is_ok());
        assert!(parsed("mol-rs move web --to 2").is_ok());
        assert!(parsed("mol-rs move web").is_err(), "nowhere");
        assert!(parsed("mol-rs show -o xml").is_err());
        assert!(parsed("mol-rs enter -- /bin/a --b").is_ok());
    }
}
