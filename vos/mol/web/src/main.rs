// SPDX-License-Identifier: MIT OR Apache-2.0
//! The web server as a program. Everything it does is in the library.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use mol_fs::run::Servers;
use mol_web::run::{run, From, Plan};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The web server of MoL: files of a directory or of a file server over HTTP
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve files until this is told to end by SIGTERM
    Serve(Serve),
}

#[derive(Args)]
struct Serve {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:80", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    #[command(flatten)]
    from: Where,
    /// Which mount of the file server; its first, if it is not said
    #[arg(long, default_value = "", conflicts_with = "directory", value_name = "LABEL")]
    mount: String,
    /// How many threads wait for files
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// How many connections there may be at once; others wait
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Write a line about every request
    #[arg(long)]
    log: bool,
    /// The device of the container
    #[arg(long, default_value = "/dev/dvk", value_name = "FILE")]
    dvk: PathBuf,
}

/// Where the files are.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Where {
    /// Serve a directory; nothing leads out of it
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Serve files of a file server: of that in a slot, which is found on its own node only, or of the one that serves for a
    /// group, on any node
    #[arg(long, value_name = "SERVER")]
    server: Option<Servers>,
}

fn plan(serve: Serve) -> Plan {
    let Where { directory, server } = serve.from;
    let directory = directory.map(From::Directory);
    let from = directory.or(server.map(From::Server)).expect("one of them is required");
    Plan {
        dvk: serve.dvk,
        listen: serve.listen,
        from,
        label: serve.mount,
        threads: serve.threads.into(),
        connections: serve.connections.into(),
        is_logged: serve.log,
    }
}

fn main() -> ExitCode {
    let Command::Serve(serve) = Arguments::parse().command;
    match run(&plan(serve)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mol-web: {error}");
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
        let parsed = |words: &str| {
            let Command::Serve(serve) = Arguments::try_parse_from(words.split(' ')).ok()?.command;
            Some(plan(serve).from)
        };
        assert_eq!(parsed("mol-web serve --directory /srv"), Some(From::Directory("/srv".into())));
        let server = |server| Some(From::Server(server));
        assert_eq!(parsed("mol-web serve --server 8 --mount data"), server(Servers::Slot(8)));
        assert_eq!(parsed("mol-web serve --server a"), server(Servers::Group("a".into())));
        assert_eq!(parsed("mol-web serve"), None, "nothing to serve");
        assert_eq!(parsed("mol-web serve --server 8 --directory /srv"), None, "one of them");
        assert_eq!(parsed("mol-web serve --server 63"), None, "the services'");
        assert_eq!(parsed("mol-web serve --server a/b"), None);
        assert_eq!(parsed("mol-web serve --directory /srv --mount data"), None);
        assert_eq!(parsed("mol-web serve --directory /srv --threads 0"), None);
        assert_eq!(parsed("mol-web serve --directory /srv --listen 80"), None);
    }
}
