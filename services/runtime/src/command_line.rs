// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program can be told.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use dvs_exec::Request;
use serde::Serialize;

use crate::image::{Bounds, Store};
use crate::spec::Spec;
use crate::{assemble, container, dial, enter, exec, fault, ids, init, keeper};

/// Makes, runs and ends the containers of this node.
#[derive(Debug, Parser)]
#[command(name = "dvs-runtime", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a container from a description in JSON, and leave its command for `start`.
    Create {
        /// The description; standard input if it is not given.
        #[arg(long, value_name = "FILE")]
        spec: Option<PathBuf>,
    },
    /// Give a container the limits and peers of a description that is the same otherwise.
    Update {
        /// The description; standard input if it is not given.
        #[arg(long, value_name = "FILE")]
        spec: Option<PathBuf>,
    },
    /// Start the command of a container.
    Start { name: String },
    /// Run a command in a container for who is at the other end of standard input, which is a socket. The crate `dvs-exec` says what goes
    /// over it.
    Exec { name: String },
    /// Connect to a port of a container, and hand the connection out through standard input, which is a socket.
    Dial { name: String, port: u16 },
    /// Send a signal to a container: KILL ends all of it, STOP and CONT let all of it rest and go on, others go to its command.
    Kill {
        name: String,
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Remove a container that has ended, and all that it was made of.
    Delete {
        name: String,
        /// End it first.
        #[arg(long)]
        force: bool,
    },
    /// Print all containers in JSON.
    List,
    /// Print what became of a container so far, in JSON.
    Status { name: String },
    /// Print what a container uses, in JSON.
    Stats { name: String },
    /// Print the newest of what the command of a container has written.
    Logs {
        name: String,
        /// What was written after so many bytes, as far as it is kept. The first line says after how many it really begins.
        #[arg(long, value_name = "BYTES")]
        from: Option<u64>,
    },
    /// The images of this node.
    #[command(subcommand)]
    Image(ImageAction),
    #[command(hide = true)]
    Keep { name: String },
    #[command(hide = true)]
    Assemble { name: String },
    #[command(hide = true)]
    Hold,
    #[command(hide = true)]
    Init,
    #[command(hide = true)]
    Enter { name: String, request: String },
}

#[derive(Debug, Subcommand)]
enum ImageAction {
    /// Take an image in from an archive: oci-archive, or docker-archive.
    Import {
        archive: PathBuf,
        /// What it is called from now on.
        #[arg(long)]
        name: String,
        /// The most bytes that it may have unpacked.
        #[arg(long, value_name = "BYTES", default_value_t = Bounds::default().bytes)]
        max_bytes: u64,
    },
    /// Print all images in JSON.
    List,
    /// Remove an image that no container is made of.
    Remove { name: String },
}

/// The program: does what its arguments say.
pub fn main() -> ExitCode {
    match act(Arguments::parse().action) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(fault::kind(&error).status())
        }
    }
}

fn act(action: Action) -> Result<ExitCode> {
    match action {
        Action::Create { spec } => container::create(read_spec(spec)?)?,
        Action::Update { spec } => container::update(read_spec(spec)?)?,
        Action::Start { name } => container::start(&name)?,
        Action::Exec { name } => exec::serve(&name)?,
        Action::Dial { name, port } => dial::dial(&name, port)?,
        Action::Kill { name, signal } => container::kill(&name, &signal)?,
        Action::Delete { name, force } => container::delete(&name, force)?,
        Action::List => print(&container::list()?)?,
        Action::Status { name } => print(&container::status(&name)?)?,
        Action::Stats { name } => print(&container::stats(&name)?)?,
        Action::Logs { name, from } => {
            let mut log = container::log(&name)?;
            let mut text = Vec::new();
            if let Some(from) = from {
                log = log.from(from);
                text = format!("{}\n", log.begins).into_bytes();
            }
            text.extend(log.bytes);
            io::stdout().write_all(&text).context("printing the log")?;
        }
        Action::Image(ImageAction::Import { archive, name, max_bytes }) => {
            let bounds = Bounds { bytes: max_bytes, ..Bounds::default() };
            print(&Store::of_node().import(&archive, &name, bounds)?)?;
        }
        Action::Image(ImageAction::List) => print(&Store::of_node().list()?)?,
        Action::Image(ImageAction::Remove { name }) => Store::of_node().remove(&name)?,
        Action::Keep { name } => keeper::keep(&name)?,
        Action::Assemble { name } => assemble::assemble(&name)?,
        Action::Hold => ids::hold()?,
        Action::Init => init::be()?,
        Action::Enter { name, request } => {
            let request: Request =
                serde_json::from_str(&request).context("understanding what is to be run")?;
            return Ok(enter::enter(&name, &request));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The longest description that is read.
const SPEC_MAX: u64 = 1 << 20;

fn read_spec(path: Option<PathBuf>) -> Result<Spec> {
    let mut text = String::new();
    match path {
        Some(path) => {
            let file = std::fs::File::open(&path)
                .with_context(|| format!("opening the description {}", path.display()))?;
            file.take(SPEC_MAX).read_to_string(&mut text)
        }
        None => io::stdin().take(SPEC_MAX).read_to_string(&mut text),
    }
    .context("reading the description of a container")?;
    Spec::parse(&text)
}

fn print(what: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(what).context("printing the answer")?;
    writeln!(io::stdout(), "{text}").context("printing the answer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
