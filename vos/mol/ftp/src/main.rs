// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies files to and from file servers. Everything it does is in the library.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use core::time::Duration;
use dvk::{Endpoint, Port, Slot, Timeout};
use dvk_services::{role, Client};
use mol_fs::client::Files;
use mol_fs::run::{self, Servers};
use mol_ftp::find::{self, FileServer, Place};
use mol_ftp::{list, make_directory, remove, table, Remote};
use mol_rs::board::Board;
use rustix::pipe::fcntl_setpipe_size;
use std::ffi::OsString;
use std::io::{self, stdin, stdout, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use vos_transfer::{read_from, unpack, Error, Local, Packer, Raw, Sink, Watched};

/// How long a server is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// What may wait in a pipe, so that the other end goes on while a server is asked. It is the most that everybody may have.
const PIPE_BYTES: usize = 1 << 20;
/// Written to the output at once.
const PIECE: usize = 64 << 10;

/// Copies files and trees of files to and from a file server of MoL
///
/// A path of the server begins at the root of a mount. What is copied to a directory that is there comes into it under its own name.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Copy from the server to a file or directory here
    Get {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        depth: Depth,
        /// What to copy
        path: OsString,
        /// Where to; `-` is standard output
        #[arg(default_value = "-")]
        to: PathBuf,
    },
    /// Copy a file or directory from here to the server
    Put {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        depth: Depth,
        /// What to copy; `-` is standard input
        from: PathBuf,
        /// Where to
        path: OsString,
    },
    /// Copy from the server to standard output, as a stream for `receive`
    Send {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        depth: Depth,
        /// What to copy
        path: OsString,
    },
    /// Copy a stream of `send` on standard input to the server; tell as JSON what has come
    Receive {
        #[command(flatten)]
        at: At,
        /// Where to
        path: OsString,
    },
    /// List a directory
    Ls {
        #[command(flatten)]
        at: At,
        /// The form
        #[arg(short, long, value_enum, default_value_t = Form::Table)]
        output: Form,
        /// The directory
        #[arg(default_value = "/")]
        path: OsString,
    },
    /// Remove files
    Rm {
        #[command(flatten)]
        at: At,
        /// And directories with all that is in them
        #[arg(short, long)]
        recursive: bool,
        /// What to remove
        #[arg(required = true)]
        paths: Vec<OsString>,
    },
    /// Make a directory
    Mkdir {
        #[command(flatten)]
        at: At,
        /// Make those above it as well, and be content if it is there
        #[arg(short, long)]
        parents: bool,
        /// The directory
        path: OsString,
    },
    /// Tell as JSON which file server is asked, and on which nodes it is
    Where {
        #[command(flatten)]
        at: At,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Table,
    /// A JSON value
    Json,
}

#[derive(Args)]
struct Depth {
    /// Copy directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
}

/// A file system of a server.
#[derive(Args)]
struct At {
    /// The device of the container
    #[arg(long, default_value = "/dev/dvk", value_name = "FILE")]
    dvk: PathBuf,
    /// The server: a slot, in which it is found on its own node only, or the group that it serves for [default: the only one of the
    /// manifest]
    #[arg(long, value_name = "SLOT|GROUP")]
    server: Option<Servers>,
    /// Which of its mounts; the first, if it is not said
    #[arg(long, default_value = "")]
    label: String,
}

impl At {
    /// The server, as it was named or as the manifest tells.
    fn server(&self, port: &Port) -> Result<FileServer> {
        if let Some(servers) = &self.server {
            let servers = servers.clone();
            return Ok(FileServer { name: servers.to_string(), servers, nodes: Vec::new() });
        }
        let client = Client::find(port, Timeout::After(PATIENCE));
        let client = client.context("cannot find the container's services")?;
        Ok(find::only(&Board::new(client).look()?)?)
    }

    /// Does something with the files of the server.
    fn with<T>(&self, work: impl FnOnce(&Files<'_, Port>, &str) -> Result<T>) -> Result<T> {
        let port = Port::open(&self.dvk, Slot::Any)?;
        let server = self.server(&port)?.servers.find(&port, PATIENCE)?;
        work(&Files::new(&port, server, 0, 0), &self.label)
    }

    /// Where the server is.
    fn place(&self) -> Result<Place> {
        let port = Port::open(&self.dvk, Slot::Any)?;
        let FileServer { servers, nodes, .. } = self.server(&port)?;
        let endpoint = match &servers {
            Servers::Slot(_) => None,
            Servers::Group(group) => {
                let client = Client::find(&port, Timeout::After(PATIENCE));
                let client = client.context("cannot find the container's services")?;
                role::find(&client, &run::role(group))?
            }
        };
        let endpoint = endpoint.as_ref().map(Endpoint::to_string);
        Ok(Place { server: servers.to_string(), nodes, endpoint })
    }
}

/// Has whatever is at the other end go on for longer. What is no pipe has no need of it.
fn widen(end: impl AsFd) {
    let _ = fcntl_setpipe_size(end, PIPE_BYTES);
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn say(text: &str) -> Result<()> {
    let mut stdout = stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("cannot write the output")
}

fn json(value: &impl serde::Serialize) -> Result<()> {
    say(&format!("{}\n", serde_json::to_string(value)?))
}

/// Tells what a sink has got, on standard error unless that is for programs.
fn copied(
    sink: &mut dyn Sink,
    work: impl FnOnce(&mut dyn Sink) -> Result<(), Error>,
) -> Result<serde_json::Value> {
    let mut watched = Watched::new(sink, |_, _| {});
    work(&mut watched)?;
    let all = watched.copied();
    Ok(serde_json::json!({
        "files": all.files,
        "directories": all.directories,
        "links": all.links,
        "bytes": all.bytes,
    }))
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Get { at, depth, path, to } => at.with(|files, label| {
            let from = Remote::new(files, label, path.as_bytes());
            match to == Path::new("-") {
                true => {
                    let mut out = Raw(BufWriter::with_capacity(PIECE, stdout().lock()));
                    from.send(depth.recursive, &mut out)?;
                }
                false => from.send(depth.recursive, &mut Local::new(&to))?,
            }
            Ok(())
        }),
        Command::Put { at, depth, from, path } => at.with(|files, label| {
            let mut to = Remote::new(files, label, path.as_bytes());
            match from == Path::new("-") {
                true => {
                    widen(stdin());
                    read_from(&mut stdin().lock(), now_s(), &mut to)?;
                }
                false => Local::new(&from).send(depth.recursive, &mut to)?,
            }
            Ok(())
        }),
        Command::Send { at, depth, path } => at.with(|files, label| {
            widen(stdout());
            let mut out = Packer::new(BufWriter::with_capacity(PIECE, stdout().lock()));
            Ok(Remote::new(files, label, path.as_bytes()).send(depth.recursive, &mut out)?)
        }),
        Command::Receive { at, path } => {
            let all = at.with(|files, label| {
                widen(stdin());
                let mut to = Remote::new(files, label, path.as_bytes());
                copied(&mut to, |sink| unpack(&mut stdin().lock(), sink))
            })?;
            json(&all)
        }
        Command::Ls { at, output, path } => {
            let all = at.with(|files, label| Ok(list(files, label, path.as_bytes())?))?;
            match output {
                Form::Table => say(&table(&all)),
                Form::Json => json(&all),
            }
        }
        Command::Rm { at, recursive, paths } => at.with(|files, label| {
            let mut all = paths.iter();
            Ok(all.try_for_each(|path| remove(files, label, path.as_bytes(), recursive))?)
        }),
        Command::Mkdir { at, parents, path } => {
            at.with(|files, label| Ok(make_directory(files, label, path.as_bytes(), parents)?))
        }
        Command::Where { at } => json(&at.place()?),
    }
}

/// Whether it is only that nobody reads any more.
fn is_unread(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !is_unread(&error) {
                eprintln!("mol-ftp: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_one() {
        Arguments::command().debug_assert();
        let parsed = |words: &str| Arguments::try_parse_from(words.split(' ')).is_ok();
        assert!(parsed("mol-ftp get -r /site /tmp/site"));
        assert!(parsed("mol-ftp get --server files /f"));
        assert!(parsed("mol-ftp put - /f"));
        assert!(!parsed("mol-ftp put /f"), "nothing to put");
        assert!(parsed("mol-ftp receive --server 7 --label a /"));
        assert!(!parsed("mol-ftp receive --server 63 /"), "no slot of a server");
        assert!(parsed("mol-ftp rm -r /a /b"));
        assert!(!parsed("mol-ftp rm"));
        assert!(parsed("mol-ftp mkdir -p /a/b"));
        assert!(parsed("mol-ftp ls -o json"));
        assert!(parsed("mol-ftp where"));
    }
}
