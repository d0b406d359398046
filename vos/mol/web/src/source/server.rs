// SPDX-License-Identifier: MIT OR Apache-2.0
//! File servers of MoL, by M3-IPC: whichever of them answers for the files now.

use super::hurry::Hurry;
use super::{Entry, Fault, Found, Kind, Source, ENTRIES_MAX};
use crate::conditions::Version;
use core::fmt;
use core::time::Duration;
use dvk::{CallError, Endpoint, Ipc, Port, Slot};
use mol_fs::client::{Files, FilesError};
use mol_fs::run::Servers;
use mol_protocol::directory::Kind as Inode;
use mol_protocol::file::{
    Attributes, Close, FileClient, FileId, Open, Read, Who, OPEN_READ, TRANSFER_MAX,
};
use mol_protocol::Errno;
use mol_vdd::lend::Lend;
use std::path::PathBuf;
use std::time::Instant;

/// How long a server is looked for in one try: the services' answer takes two round trips, and a pause while another node begins to lead.
const BRIEFLY: Duration = Duration::from_secs(2);
/// How long a server is waited for to close a file, while others wait for the thread.
const CLOSING: Duration = Duration::from_secs(2);
/// On whose behalf files are read: everybody's, so that what is not for everybody stays so.
const NOBODY: u32 = 65_534;

/// The way to the server that answers for the files.
pub trait Access {
    /// Endpoints of this side.
    type Ipc: Lend<Error: fmt::Display>;

    /// Becomes a new endpoint; `Err` says why not.
    ///
    /// # Errors
    /// Those of the DVK.
    fn enter(&mut self) -> Result<Self::Ipc, <Self::Ipc as Ipc>::Error>;

    /// Where the server is believed to be. It is looked for with calls of this endpoint, for at most so long.
    fn find(&mut self, ipc: &Self::Ipc, limit: Duration) -> Option<Endpoint>;
}

/// The way to file servers from a container's device.
#[derive(Clone, Debug)]
pub struct Door {
    /// The device.
    pub dvk: PathBuf,
    /// How they are found.
    pub servers: Servers,
}

impl Access for Door {
    type Ipc = Port;

    fn enter(&mut self) -> Result<Port, dvk::Error> {
        Port::open(&self.dvk, Slot::Any)
    }

    fn find(&mut self, port: &Port, limit: Duration) -> Option<Endpoint> {
        self.servers.find(port, BRIEFLY.min(limit)).ok()
    }
}

/// A file that is open for one endpoint, which only ever asks one server. Another one is never asked for it by its number, which means another
/// file there.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    entrance: u64,
    file: FileId,
}

/// One mount of a file server.
#[derive(Debug)]
pub struct FileServer<A: Access> {
    access: A,
    /// This side's endpoint. It is given up with the server, and so is what a server that lives keeps for it: a file that was opened too late
    /// for anybody to know its number, and one whose closing was not heard of.
    ipc: Option<A::Ipc>,
    /// How many endpoints there have been.
    entrance: u64,
    label: String,
    server: Option<Endpoint>,
}

impl<A: Access> FileServer<A> {
    /// The mount with this label, or the first one if that is empty, of the server that is found.
    ///
    /// # Errors
    /// Those of [`Access::enter`].
    pub fn new(mut access: A, label: &str) -> Result<Self, <A::Ipc as Ipc>::Error> {
        let ipc = Some(access.enter()?);
        Ok(Self { access, ipc, entrance: 1, label: label.to_owned(), server: None })
    }

    /// Whether a file is open for the endpoint of now.
    fn has_open(&self, file: &Opened) -> bool {
        self.ipc.is_some() && self.entrance == file.entrance
    }

    /// Does something at the server. One that is lost is looked for anew the next time.
    fn with<T>(
        &mut self,
        limit: Duration,
        work: impl FnOnce(&At<'_, A::Ipc>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        // Whose time was over before its turn came is not to cost others the files that they have open.
        if limit.is_zero() {
            return Err(lost());
        }
        let began = Instant::now();
        if self.ipc.is_none() {
            let failed = |error| Fault::Lost(format!("cannot become an endpoint: {error}"));
            self.ipc = Some(self.access.enter().map_err(failed)?);
            self.entrance += 1;
        }
        let Some(ipc) = &self.ipc else { return Err(lost()) };
        let (server, is_new) = match self.server {
            Some(server) => (server, false),
            None => (self.access.find(ipc, limit).ok_or_else(lost)?, true),
        };
        let calls = Hurry::new(ipc, limit.saturating_sub(began.elapsed()));
        let at = At { calls: &calls, server, entrance: self.entrance, label: &self.label };
        let reached = if is_new { at.has_mount() } else { Ok(()) };
        let is_there = reached.is_ok();
        let done = reached.and_then(|()| work(&at));
        let is_lost = is_there && matches!(done, Err(Fault::Lost(_)));
        if calls.is_unanswered() || is_lost {
            (self.ipc, self.server) = (None, None);
        } else if is_there {
            self.server = Some(server);
        }
        done
    }
}

fn lost() -> Fault {
    Fault::Lost("none is found".to_owned())
}

/// A server, and calls to it.
struct At<'c, I> {
    calls: &'c Hurry<'c, I>,
    server: Endpoint,
    entrance: u64,
    label: &'c str,
}

impl<I: Lend<Error: fmt::Display>> At<'_, I> {
    fn files(&self) -> Files<'_, Hurry<'_, I>> {
        Files::new(self.calls, self.server, NOBODY, NOBODY)
    }

    /// That a mount is missing says nothing of a file. Another server may have it, or this one later.
    fn has_mount(&self) -> Result<(), Fault> {
        self.files().root(self.label).map(drop).map_err(|error| match error.errno {
            Some(Errno::NoEntry) => Fault::Lost(error.to_string()),
            _ => fault(&error),
        })
    }
}

fn fault(error: &FilesError) -> Fault {
    match error.errno {
        Some(errno) => refusal(errno, || error.to_string()),
        None => Fault::Lost(error.to_string()),
    }
}

fn refusal(errno: Errno, text: impl Fn() -> String) -> Fault {
    match errno {
        Errno::NoEntry | Errno::NotDirectory | Errno::NameTooLong => Fault::Absent,
        Errno::Denied | Errno::NotPermitted | Errno::LinkLoop => Fault::Denied,
        Errno::TableFull | Errno::TooManyOpen | Errno::NoMemory | Errno::Busy => {
            Fault::Full(text())
        }
        // It does not answer any more, has forgotten this client, or its disk answers elsewhere.
        Errno::Elsewhere | Errno::Stale | Errno::BadFile | Errno::NoSuchDevice => {
            Fault::Lost(text())
        }
        _ => Fault::Failed(text()),
    }
}

fn call_fault<E: fmt::Display>(what: &str, error: CallError<Errno, E>) -> Fault {
    match error.refusal() {
        Some(errno) => refusal(errno, || format!("cannot {what}: {errno}")),
        None => Fault::Lost(format!("cannot {what}: {error}")),
    }
}

fn version(attributes: &Attributes) -> Version {
    let modified = Duration::from_secs(attributes.modified.into());
    Version { inode: attributes.inode.into(), bytes: attributes.bytes, modified }
}

fn kind(attributes: &Attributes) -> Kind {
    match Inode::of_mode(attributes.mode) {
        Inode::Directory => Kind::Directory,
        Inode::Regular => Kind::File,
        _ => Kind::Other,
    }
}

impl<A: Access> Source for FileServer<A> {
    type Open = Opened;

    fn find(&mut self, path: &[u8], limit: Duration) -> Result<Found<Opened>, Fault> {
        self.with(limit, |at| {
            let files = at.files();
            let node = files.follow(at.label, path).map_err(|error| fault(&error))?;
            match kind(&node.attributes) {
                Kind::Directory => Ok(Found::Directory),
                Kind::Other => Err(Fault::Denied),
                Kind::File => {
                    let who = Who::new(NOBODY, NOBODY);
                    let open = Open { node: node.attributes.node, flags: OPEN_READ, who };
                    let opened = FileClient::new(at.calls, at.server).open(&open);
                    let file = opened.map_err(|error| call_fault("open a file", error))?;
                    let opened = Opened { entrance: at.entrance, file };
                    Ok(Found::File(opened, version(&node.attributes)))
                }
            }
        })
    }

    fn list(&mut self, path: &[u8], limit: Duration) -> Result<Vec<Entry>, Fault> {
        self.with(limit, |at| {
            let files = at.files();
            let directory = files.follow(at.label, path).map_err(|error| fault(&error))?;
            let names = directory.list_some(ENTRIES_MAX + 1).map_err(|error| fault(&error))?;
            if names.len() > ENTRIES_MAX {
                return Err(Fault::TooMany);
            }
            let mut entries = Vec::new();
            for named in names {
                let found = match named.kind {
                    // What a link leads to says whether it is a directory.
                    Inode::SymbolicLink => {
                        let whole = [path, &named.name[..]].join(&b"/"[..]);
                        files.follow(at.label, &whole)
                    }
                    _ => directory.lookup(&named.name),
                };
                let (kind, bytes) = match found.map_err(|error| fault(&error)) {
                    Ok(node) => (kind(&node.attributes), node.attributes.bytes),
                    // It is gone, or it may not be looked at.
                    Err(Fault::Absent | Fault::Denied) => (Kind::Other, 0),
                    Err(other) => return Err(other),
                };
                entries.push(Entry { name: named.name, kind, bytes });
            }
            Ok(entries)
        })
    }

    fn read(
        &mut self,
        file: &Opened,
        position: u64,
        into: &mut [u8],
        limit: Duration,
    ) -> Result<usize, Fault> {
        if !self.has_open(file) {
            return Err(Fault::Lost("it is not open any more".to_owned()));
        }
        let bytes = into.len().min(TRANSFER_MAX as usize) as u32;
        let count = self.with(limit, |at| {
            let read = at.calls.lend_mut(at.server, into, |into| {
                let read = Read { file: file.file, position, into, offset: 0, bytes };
                FileClient::new(at.calls, at.server).read(&read)
            });
            let read = read.unwrap_or_else(|error| Err(CallError::Exchange(error)));
            read.map_err(|error| call_fault("read a file", error))
        })?;
        Ok(count.min(bytes) as usize)
    }

    fn close(&mut self, file: Opened) {
        if self.has_open(&file) {
            // If it is not heard of, the endpoint is given up, and so is the file.
            let _ = self.with(CLOSING, |at| {
                let closed = FileClient::new(at.calls, at.server).close(&Close { file: file.file });
                closed.map_err(|error| call_fault("close a file", error))
            });
        }
    }
}
