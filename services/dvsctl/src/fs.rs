// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of file servers: what is asked of the program in their containers that copies them.

use std::io::{self, BufReader, BufWriter, PipeWriter};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::error::ErrorKind;
use clap::CommandFactory;
use dvs_api::IpcEndpoint;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use vos_transfer::{read_from, unpack, Copied, Error, Local, Packer, Raw, Sink, Watched};

use crate::agreed::escaped;
use crate::arguments::{
    Arguments, CpArguments, FsCommand, FsPlace, MountArguments, Output, Side, There,
};
use crate::cluster::{Cluster, Endpoint};
use crate::dc::{self, amount};
use crate::image::bar;
use crate::mount::{self, Mounted};
use crate::table::Table;
use crate::vos::running;
use crate::{exec, print, Failure};

/// Exit statuses of what could not be run at all.
const NOT_RUN: core::ops::RangeInclusive<u8> = 125..=127;
/// How long what is read here may take to end when the other end has ended.
const GRACE: Duration = Duration::from_secs(2);
/// Written to a pipe at once.
const PIECE: usize = 64 << 10;

/// Where a file server is, as the program tells.
#[derive(Debug, Deserialize)]
struct Place {
    server: String,
    nodes: Vec<u32>,
    endpoint: Option<String>,
}

/// Something with a name, as the program tells.
#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    name: String,
    kind: String,
    mode: u16,
    links: u16,
    user: u32,
    group: u32,
    bytes: u64,
    modified_s: u32,
    /// What else it tells.
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

/// What `dvsctl fs cp` says.
#[derive(Debug, Serialize)]
struct Report {
    node: u32,
    files: u64,
    directories: u64,
    links: u64,
    bytes: u64,
    seconds: f64,
}

/// The program, in a container on a node from which a file server is reached.
struct Way<'p> {
    dc: &'p str,
    place: &'p FsPlace,
    node: u32,
    endpoint: Endpoint,
    server: String,
}

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &FsCommand,
) -> Result<ExitCode, Failure> {
    match command {
        FsCommand::Cp(cp) => copy(cluster, output, cp)?,
        FsCommand::Ls { place, path } => {
            let way = Way::find(cluster, place, &path.dc)?;
            let told = way.ask(&["ls", "-o", "json"], &[&path.path])?;
            let all: Vec<Listed> = serde_json::from_slice(&told).map_err(|error| {
                Failure::Refused(format!("{} says what makes no sense: {error}", place.ftp))
            })?;
            print(output, &all, || list(&all))?;
        }
        FsCommand::Rm { place, recursive, paths } => {
            for There { dc, path } in paths {
                let words = if *recursive { &["rm", "-r"][..] } else { &["rm"] };
                Way::find(cluster, place, dc)?.ask(words, &[path])?;
            }
        }
        FsCommand::Mkdir { place, parents, path } => {
            let words = if *parents { &["mkdir", "-p"][..] } else { &["mkdir"] };
            Way::find(cluster, place, &path.dc)?.ask(words, &[&path.path])?;
        }
        FsCommand::Mount(arguments) => mount(cluster, arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl<'p> Way<'p> {
    /// The way to a file server: from its own node if that is known, else from any of the container's.
    fn find(cluster: &Cluster, place: &'p FsPlace, dc: &'p str) -> Result<Self, Failure> {
        let nodes = running(&dc::find(cluster, dc)?);
        if nodes.is_empty() {
            return Err(Failure::Refused(format!(
                "container {dc} runs on no node; see `dvsctl dc show {dc}`"
            )));
        }
        let on = |node, server: &str| -> Result<Self, Failure> {
            let endpoint = cluster.node(node)?;
            Ok(Self { dc, place, node, endpoint, server: server.to_owned() })
        };
        let named = place.server.as_deref();
        if let (Some(node), Some(server)) = (place.node, named) {
            return on(node, server);
        }
        let mut failed = None;
        for &node in place.node.iter().chain(nodes.iter().filter(|_| place.node.is_none())) {
            let asked =
                on(node, named.unwrap_or_default()).and_then(|way| way.ask(&["where"], &[]));
            match asked {
                Ok(told) => {
                    let found: Place = serde_json::from_slice(&told).map_err(|error| {
                        let ftp = &place.ftp;
                        Failure::Refused(format!("{ftp} says what makes no sense: {error}"))
                    })?;
                    let node = place.node.unwrap_or_else(|| {
                        let holder = || holder(cluster, dc, &nodes, found.endpoint.as_deref()?);
                        nearest(&found.nodes, &nodes, holder).unwrap_or(node)
                    });
                    return on(node, &found.server);
                }
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        let why = failed.map_or_else(String::new, |error| format!(": {error}"));
        Err(Failure::Refused(format!("no file server is found in {dc}{why}")))
    }

    /// The command line of the program.
    fn command(&self, words: &[&str], paths: &[&str]) -> Vec<String> {
        self.command_of(&self.place.ftp, words, paths)
    }

    fn command_of(&self, program: &str, words: &[&str], paths: &[&str]) -> Vec<String> {
        let mut all = vec![program];
        all.extend(words);
        if !self.server.is_empty() {
            all.extend(["--server", &self.server]);
        }
        if let Some(label) = &self.place.label {
            all.extend(["--label", label]);
        }
        if !paths.is_empty() {
            all.push("--");
        }
        all.into_iter().chain(paths.iter().copied()).map(str::to_owned).collect()
    }

    /// What the program says, if it does what it is asked.
    fn ask(&self, words: &[&str], paths: &[&str]) -> Result<Vec<u8>, Failure> {
        let mut errors = Vec::new();
        let command = self.command(words, paths);
        let told = exec::ask(&self.endpoint, self.dc, &command, &[], &mut errors)?;
        match told.status {
            0 => Ok(told.stdout),
            status => Err(self.failure(status, &errors)),
        }
    }

    /// Why the program has failed.
    fn failure(&self, status: u8, errors: &[u8]) -> Failure {
        self.failure_of(&self.place.ftp, "--ftp", status, errors)
    }

    /// Why a program has failed; `option` says where it is.
    fn failure_of(&self, program: &str, option: &str, status: u8, errors: &[u8]) -> Failure {
        let Self { dc, node, .. } = self;
        let text = String::from_utf8_lossy(errors);
        let name = program.rsplit('/').next().unwrap_or(program);
        let text = text.trim();
        let text = text.strip_prefix(name).and_then(|text| text.strip_prefix(": ")).unwrap_or(text);
        Failure::Refused(match (NOT_RUN.contains(&status), text) {
            (true, text) => format!(
                "{program} cannot be run in {dc} on node {node} ({text}); is it in the container's image? {option} says where it is"
            ),
            (false, "") => format!("{program} in {dc} on node {node} ended with status {status}"),
            (false, text) => format!("{dc} on node {node}: {text}"),
        })
    }
}

/// The best of the nodes from which a file server can be asked.
fn nearest(served: &[u32], running: &[u32], holder: impl FnOnce() -> Option<u32>) -> Option<u32> {
    let mut there = served.iter().copied().filter(|node| running.contains(node));
    match (there.next(), there.next()) {
        // Others than the one that serves stand by.
        (Some(_), Some(_)) | (None, _) => {
            holder().or(served.iter().copied().find(|node| running.contains(node)))
        }
        (only, None) => only,
    }
}

/// The node that an endpoint of a container is on.
fn holder(cluster: &Cluster, dc: &str, nodes: &[u32], endpoint: &str) -> Option<u32> {
    let path = format!("/v1/endpoints?container={}", escaped(dc));
    nodes.iter().copied().find(|node| {
        let asked = cluster.node(*node).and_then(|to| to.get::<Vec<IpcEndpoint>>(&path));
        // A node that does not answer now is none to be asked for files either.
        asked.is_ok_and(|all| all.iter().any(|one| one.node == *node && one.endpoint == endpoint))
    })
}

fn copy(cluster: &Cluster, output: Output, cp: &CpArguments) -> Result<(), Failure> {
    let began = Instant::now();
    let (node, copied, is_told) = match (&cp.from, &cp.to) {
        (Side::Here(from), Side::There(to)) => {
            let way = Way::find(cluster, &cp.place, &to.dc)?;
            (way.node, way.upload(from, cp.recursive, &to.path)?, true)
        }
        (Side::There(from), Side::Here(to)) => {
            let way = Way::find(cluster, &cp.place, &from.dc)?;
            (way.node, way.download(&from.path, cp.recursive, to)?, to != Path::new("-"))
        }
        _ => Arguments::command()
            .error(ErrorKind::ValueValidation, "one side is DC:/path, and the other one is here")
            .exit(),
    };
    // Where the content is, nothing else is to be.
    if !is_told {
        return Ok(());
    }
    let Copied { files, directories, links, bytes } = copied;
    let seconds = began.elapsed().as_secs_f64();
    let report = Report { node, files, directories, links, bytes, seconds };
    print(output, &report, || {
        let rate = amount((bytes as f64 / seconds.max(0.001)) as u64);
        let count = |count: u64, one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {more}"),
        };
        let mut all = vec![count(files, "file", "files")];
        if directories > 0 {
            all.push(count(directories, "directory", "directories"));
        }
        if links > 0 {
            all.push(count(links, "link", "links"));
        }
        let (all, bytes) = (all.join(", "), amount(bytes));
        format!("copied {all}, {bytes} in {seconds:.1} s ({rate}/s), by node {node}\n")
    })
}

/// Mounts a file system until that is over, whoever ends it.
fn mount(cluster: &Cluster, arguments: &MountArguments) -> Result<(), Failure> {
    let MountArguments { place, fuse, read_only, from, at } = arguments;
    let name = format!("{}:{}", from.dc, from.path);
    if from.path != "/" {
        return Err(Failure::Refused(format!(
            "cannot mount {name}: only a whole file system can be mounted, {}:/",
            from.dc
        )));
    }
    let at = mount::empty_directory(at)?;
    let way = Way::find(cluster, place, &from.dc)?;
    let command = way.command_of(fuse, &["--stdio"], &[]);
    let ready = format!("{name} is mounted on {}, by node {}", at.display(), way.node);
    let mounted = Mounted::new(&at, &name, *read_only)?;
    let mut errors = Vec::new();
    let ended = mounted.serve(&ready, |requests, answers| {
        exec::tunnel(&way.endpoint, way.dc, &command, requests, answers, &mut errors)
    })?;
    let why = match ended {
        Ok(0) if mounted.is_over() => return Ok(()),
        Ok(0) => Failure::Refused(format!("{fuse} on node {} has ended", way.node)),
        Ok(status) => way.failure_of(fuse, "--fuse", status, &errors),
        Err(failure) => failure,
    };
    Err(Failure::Refused(format!("{name} is not mounted on {} any more: {why}", at.display())))
}

/// Passes on what is copied, and shows it.
fn watched<'s>(
    sink: &'s mut dyn Sink,
    bar: &'s ProgressBar,
) -> Watched<'s, impl FnMut(Option<u64>, u64) + 's> {
    Watched::new(sink, |all, done| {
        all.into_iter().for_each(|all| bar.set_length(all));
        bar.set_position(done);
    })
}

fn progress(what: &str) -> ProgressBar {
    let bar = bar(0, format!("copying {what}"));
    // Until it is known, and what comes out of a pipe has none.
    bar.unset_length();
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

impl Way<'_> {
    fn upload(&self, from: &Path, recursive: bool, to: &str) -> Result<Copied, Failure> {
        let command = self.command(&["receive"], &[to]);
        let bar = progress(&from.display().to_string());
        let (reader, writer) = io::pipe()?;
        let (tell, told) = mpsc::channel();
        // Standard input may say nothing for ever, so nobody waits for the end of this.
        let packing = (from.to_owned(), bar.clone());
        thread::spawn(move || {
            let (from, bar) = packing;
            tell.send(pack(&from, recursive, writer, &bar))
        });
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let carried =
            exec::carry(&self.endpoint, self.dc, &command, Some(reader), &mut output, &mut errors);
        let packed = told.recv_timeout(GRACE);
        bar.finish_and_clear();
        match (packed, carried) {
            (Ok(Ok(copied)), Ok(0)) => Ok(copied),
            // That nobody reads any more is what comes of the other end's reason.
            (Ok(Err(error)), _) if !matches!(error, Error::Stream(..)) => Err(refused(error)),
            (_, Ok(status)) => Err(self.failure(status, &errors)),
            (_, Err(failure)) => Err(failure),
        }
    }

    fn download(&self, from: &str, recursive: bool, to: &Path) -> Result<Copied, Failure> {
        let words = if recursive { &["send", "-r"][..] } else { &["send"] };
        let command = self.command(words, &[from]);
        let bar = progress(&format!("{}:{from}", self.dc));
        let (reader, mut writer) = io::pipe()?;
        let mut errors = Vec::new();
        let (unpacked, carried) = thread::scope(|scope| {
            let unpacking = scope.spawn(|| {
                let mut stream = BufReader::with_capacity(PIECE, reader);
                let unpacked = match to == Path::new("-") {
                    true => {
                        let mut raw = Raw(BufWriter::with_capacity(PIECE, io::stdout().lock()));
                        taken(&mut stream, &mut raw, &bar)
                    }
                    false => taken(&mut stream, &mut Local::new(to), &bar),
                };
                // Nobody reads any more, which ends the command.
                drop(stream);
                unpacked
            });
            let carried =
                exec::carry(&self.endpoint, self.dc, &command, None, &mut writer, &mut errors);
            drop(writer);
            (joined(unpacking), carried)
        });
        bar.finish_and_clear();
        match (unpacked, carried) {
            (Ok(copied), Ok(0)) => Ok(copied),
            // Why nothing more has come is known better at the other end.
            (Ok(_) | Err(Error::Cut(_)), Ok(status @ 1..)) => Err(self.failure(status, &errors)),
            (Ok(_) | Err(Error::Cut(_)), Err(failure)) => Err(failure),
            (Err(error), _) => Err(refused(error)),
        }
    }
}

fn taken(
    stream: &mut dyn io::Read,
    sink: &mut dyn Sink,
    bar: &ProgressBar,
) -> Result<Copied, Error> {
    let mut watched = watched(sink, bar);
    unpack(stream, &mut watched)?;
    Ok(watched.copied())
}

fn pack(from: &Path, recursive: bool, to: PipeWriter, bar: &ProgressBar) -> Result<Copied, Error> {
    let mut packer = Packer::new(BufWriter::with_capacity(PIECE, to));
    let mut watched = watched(&mut packer, bar);
    if from == Path::new("-") {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        read_from(&mut io::stdin().lock(), now.map_or(0, |now| now.as_secs()), &mut watched)?;
    } else {
        Local::new(from).send(recursive, &mut watched)?;
    }
    Ok(watched.copied())
}

/// What a thread has come to.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn refused(error: Error) -> Failure {
    Failure::Refused(error.to_string())
}

fn list(all: &[Listed]) -> String {
    let mut table =
        Table::new(&["KIND", "MODE", "LINKS", "USER", "GROUP", "BYTES", "CHANGED", "NAME"]);
    for one in all {
        let modified = UNIX_EPOCH + Duration::from_secs(one.modified_s.into());
        table.row([
            one.kind.clone(),
            format!("{:04o}", one.mode),
            one.links.to_string(),
            one.user.to_string(),
            one.group.to_string(),
            one.bytes.to_string(),
            humantime::format_rfc3339_seconds(modified).to_string(),
            one.name.clone(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_that_serves_is_asked() {
        let never = || panic!("it need not be asked for");
        assert_eq!(nearest(&[2], &[0, 1, 2], never), Some(2));
        assert_eq!(nearest(&[1, 2], &[0, 1, 2], || Some(2)), Some(2));
        assert_eq!(nearest(&[1, 2], &[0, 1, 2], || None), Some(1));
        assert_eq!(nearest(&[3], &[0, 1], || None), None, "the container has left its node");
        assert_eq!(nearest(&[], &[0, 1], || Some(1)), Some(1), "a group that was named");
    }
}
