// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file server as a program. Everything it does is in the library.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use dvk::Port;
use mol_fs::client::Files;
use mol_fs::run::transfer::{self, with_files, TransferError};
use mol_fs::run::{self, is_label, Checked, Plan, RunError, Servers, Source};
use std::io::{stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

/// MoL's file server, and what is done with its files: file systems in the formats of MINIX
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve file systems
    Serve {
        /// The device of the container
        #[arg(long, default_value = "/dev/dvk", value_name = "FILE")]
        dvk: PathBuf,
        /// Bind this server slot, by which clients on this node find the server (0 to 62); else any slot
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..63))]
        slot: Option<u32>,
        /// Serve for this group, by which clients on all nodes find the server. Of several, one serves; the others wait until it is
        /// gone, and one of them takes over
        #[arg(long, value_name = "NAME", conflicts_with = "slot", value_parser = group)]
        group: Option<Servers>,
        /// A disk that can be mounted, and its label: an image file or block device; or `vdd:SLOT/MINOR`, a device of the disk
        /// server in a slot; or `vdd:GROUP/MINOR`, one with replicas on the disk servers of a group
        #[arg(long = "disk", value_name = "LABEL=PATH", required = true, value_parser = disk)]
        disks: Vec<(String, Source)>,
        /// Mount it at once
        #[arg(long = "mount", value_name = "LABEL[:read-only]", value_parser = mount)]
        mounts: Vec<(String, bool)>,
        /// Make a file system on what is mounted at once, if its first MiB and its last 128 KiB have zeros only
        #[arg(long)]
        make_missing: bool,
        /// How much of each disk is kept in memory, in MiB
        #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..65_536))]
        cache: u32,
    },
    /// Make an empty file system. What is there is lost
    Make {
        /// An image file or block device
        path: PathBuf,
        /// Make the file, with this many KiB
        #[arg(long, value_name = "KIB")]
        size: Option<u32>,
        /// Bytes of a block: a power of two from 1024 to 32768
        #[arg(long, default_value_t = 1024, value_name = "BYTES")]
        block: u32,
        /// For how many files there is room; one for three blocks if it is not said
        #[arg(long, default_value_t = 0, value_name = "N")]
        inodes: u32,
    },
    /// Find out whether a file system that is not mounted is sound
    Check {
        /// An image file or block device
        path: PathBuf,
        /// Clear up what a power cut left
        #[arg(long)]
        clear_up: bool,
    },
    /// List a directory of a server
    List {
        #[command(flatten)]
        at: At,
        /// The directory
        #[arg(default_value = "/")]
        path: String,
    },
    /// Copy a file of a server to standard output
    Get {
        #[command(flatten)]
        at: At,
        /// The file
        path: String,
    },
    /// Copy standard input to a file of a server, which is on stable storage then
    Put {
        #[command(flatten)]
        at: At,
        /// The file
        path: String,
    },
    /// Remove a file, or an empty directory, of a server
    Remove {
        #[command(flatten)]
        at: At,
        /// The file
        path: String,
    },
    /// Rename a file or directory of a server
    Rename {
        #[command(flatten)]
        at: At,
        /// Its path
        old: String,
        /// The new one; what has it is replaced
        new: String,
    },
    /// Make a directory of a server
    MakeDirectory {
        #[command(flatten)]
        at: At,
        /// The directory
        path: String,
    },
    /// Show how much of a file system of a server is free
    Usage {
        #[command(flatten)]
        at: At,
    },
}

/// A file system of a server.
#[derive(Args)]
struct At {
    /// The device of the container
    #[arg(long, default_value = "/dev/dvk", value_name = "FILE")]
    dvk: PathBuf,
    /// The server: a slot, in which it is found on its own node only, or the group that it serves for
    #[arg(long, value_name = "SLOT|GROUP")]
    server: Servers,
    /// Which of its mounts; the first, if it is not said
    #[arg(long, default_value = "")]
    label: String,
}

impl At {
    fn on(
        &self,
        path: &str,
        work: impl FnOnce(&Files<'_, Port>, (&str, &[u8])) -> Result<(), TransferError>,
    ) -> Result<(), RunError> {
        with_files(&self.dvk, &self.server, |files| work(files, (&self.label, path.as_bytes())))
    }
}

fn disk(text: &str) -> Result<(String, Source), String> {
    let source = |text: &str| match text.strip_prefix("vdd:") {
        Some(device) => {
            let (server, minor) = device.split_once('/')?;
            let minor = minor.parse().ok()?;
            Some(Source::Device { server: server.parse().ok()?, minor })
        }
        None => (!text.is_empty()).then(|| Source::Path(text.into())),
    };
    let parts = text.split_once('=').filter(|(label, _)| is_label(label));
    match parts.and_then(|(label, disk)| Some((label.to_owned(), source(disk)?))) {
        Some(disk) => Ok(disk),
        None => Err("write LABEL=PATH or LABEL=vdd:SERVER/MINOR, where SERVER is a slot or a group; a label has 1 to 64 letters, digits, `-`, `_` and `.`".into()),
    }
}

fn mount(text: &str) -> Result<(String, bool), String> {
    let (label, read_only) = match text.split_once(':') {
        Some((label, "read-only")) => (label, true),
        Some(_) => return Err("only `read-only` can be said behind the label".into()),
        None => (text, false),
    };
    if is_label(label) {
        Ok((label.to_owned(), read_only))
    } else {
        Err("it is no label".into())
    }
}

fn group(text: &str) -> Result<Servers, String> {
    match text.parse()? {
        Servers::Slot(_) => Err("a number names a slot: use --slot".into()),
        group @ Servers::Group(_) => Ok(group),
    }
}

fn run(command: Command) -> Result<ExitCode, RunError> {
    match command {
        Command::Serve { dvk, slot, group, disks, mounts, make_missing, cache } => {
            let cache_bytes = (cache as usize) << 20;
            let place = group.or(slot.map(Servers::Slot));
            let makes_missing = make_missing;
            run::serve(&Plan { dvk, place, disks, mounts, makes_missing, cache_bytes })?;
        }
        Command::Make { path, size, block, inodes } => {
            let bytes = size.map(|kib| u64::from(kib) << 10);
            let layout = run::make_image(&path, bytes, block, inodes)?;
            let (free, files) = (layout.data_zones() - 1, layout.inodes - 1);
            println!("{free} free blocks of {block} bytes, and room for {files} files");
        }
        Command::Check { path, clear_up } => return Ok(tell(&run::check(&path, clear_up)?)),
        Command::List { at, path } => {
            at.on(&path, |files, path| transfer::list(files, path, &mut stdout().lock()))?
        }
        Command::Get { at, path } => {
            at.on(&path, |files, path| transfer::get(files, path, &mut stdout().lock()).map(drop))?
        }
        Command::Put { at, path } => at.on(&path, |files, path| {
            let bytes = transfer::put(files, path, &mut stdin().lock())?;
            println!("{bytes} bytes");
            Ok(())
        })?,
        Command::Remove { at, path } => at.on(&path, transfer::remove)?,
        Command::Rename { at, old, new } => {
            at.on(&old, |files, (label, old)| transfer::rename(files, label, old, new.as_bytes()))?
        }
        Command::MakeDirectory { at, path } => at.on(&path, transfer::make_directory)?,
        Command::Usage { at } => {
            at.on("", |files, (label, _)| transfer::usage(files, label, &mut stdout().lock()))?
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what a check has found; what is not sound is a failure.
fn tell(checked: &Checked) -> ExitCode {
    let report = &checked.report;
    for damage in &report.damage {
        println!("{damage}");
    }
    let counts = [
        (report.zones.len(), "blocks that nobody has"),
        (report.inodes.len(), "inodes without a name"),
        (report.links.len(), "counts of names that are too high"),
        (report.moving.len(), "directories that were being moved"),
    ];
    for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
        println!("{count} {what}");
    }
    match (report.is_sound(), checked.is_cleared) {
        (true, _) => println!("it is sound"),
        (_, true) => println!("all of that is cleared up"),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    run(Arguments::parse().command).unwrap_or_else(|error| {
        eprintln!("mol-fs: {error}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_one() {
        Arguments::command().debug_assert();
        let parsed = |words: &str| Arguments::try_parse_from(words.split(' ')).is_ok();
        assert!(parsed("mol-fs serve --disk a=/dev/vdb --mount a:read-only --slot 62"));
        assert!(!parsed("mol-fs serve --disk a=/dev/vdb --slot 63"), "the services'");
        assert!(!parsed("mol-fs serve --disk /dev/vdb"), "no label");
        let device = |text| disk(text).map(|(_, source)| source);
        let expected = |server, minor| Ok(Source::Device { server, minor });
        assert_eq!(device("a=vdd:5/0"), expected(Servers::Slot(5), 0));
        assert_eq!(device("a=vdd:disks/1"), expected(Servers::Group("disks".to_owned()), 1));
        assert!(disk("a=vdd:5").is_err(), "no minor");
        assert!(!parsed("mol-fs serve --disk a=/dev/vdb --mount a:once"));
        assert!(parsed("mol-fs make /tmp/image --size 4096"));
        assert!(parsed("mol-fs check /tmp/image"));
        assert!(parsed("mol-fs serve --group files --disk a=vdd:disks/0 --mount a --make-missing"));
        assert!(!parsed("mol-fs serve --group files --slot 5 --disk a=/dev/vdb"), "two places");
        assert!(!parsed("mol-fs serve --group 5 --disk a=/dev/vdb"), "no name");
        assert!(parsed("mol-fs list --server 7"));
        assert!(parsed("mol-fs list --server files"));
        assert!(!parsed("mol-fs get --server 7"), "no path");
        assert!(!parsed("mol-fs get /f"), "no server");
    }
}
