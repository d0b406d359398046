// SPDX-License-Identifier: MIT OR Apache-2.0
//! File servers of MoL, by M3-IPC: whichever of them answers for the files now.

use super::{Entry, Fault, Found, Kind, Source, ENTRIES_MAX};
use crate::conditions::Version;
use core::fmt;
use core::time::Duration;
use dvk::{CallError, Endpoint, Port, Timeout};
use mol_fs::client::{Files, FilesError};
use mol_fs::run::Servers;
use mol_protocol::directory::Kind as Inode;
use mol_protocol::file::{
    Attributes, Close, FileClient, FileId, Open, Read, Who, OPEN_READ, TRANSFER_MAX,
};
use mol_protocol::Errno;
use mol_vdd::lend::Lend;

/// How long a server is waited for in one try.
const BRIEFLY: Duration = Duration::from_millis(200);
/// How long a read may take. A server waits as long for its disk.
const READING: Timeout = Timeout::from_millis(30_000);
/// On whose behalf files are read: everybody's, so that what is not for everybody stays so.
const NOBODY: u32 = 65_534;

/// Where the server that answers for the files is believed to be.
pub trait Finder<I> {
    /// Looks for it, with calls of this endpoint.
    fn find(&mut self, ipc: &I) -> Option<Endpoint>;
}

impl Finder<Port> for Servers {
    fn find(&mut self, port: &Port) -> Option<Endpoint> {
        Servers::find(self, port, BRIEFLY).ok()
    }
}

/// A file that is open at one server. No other is ever asked for it by its number, which means another file there.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    server: Endpoint,
    file: FileId,
}

/// One mount of a file server.
#[derive(Debug)]
pub struct FileServer<I, F> {
    ipc: I,
    finder: F,
    label: String,
    server: Option<Endpoint>,
}

impl<I: Lend, F: Finder<I>> FileServer<I, F>
where
    I::Error: fmt::Display,
{
    /// The mount with this label, or the first one if that is empty, of the server that is found.
    pub fn new(ipc: I, finder: F, label: &str) -> Self {
        Self { ipc, finder, label: label.to_owned(), server: None }
    }

    fn files(&self, server: Endpoint) -> Files<'_, I> {
        Files::new(&self.ipc, server, NOBODY, NOBODY)
    }

    fn reach(&mut self) -> Result<Endpoint, Fault> {
        if let Some(server) = self.server {
            return Ok(server);
        }
        let lost = || Fault::Lost("none is found".to_owned());
        let server = self.finder.find(&self.ipc).ok_or_else(lost)?;
        // That a mount is missing says nothing of the file. Another server may have it, or this one later.
        let root = self.files(server).root(&self.label).map(drop);
        root.map_err(|error| match error.errno {
            Some(Errno::NoEntry) => Fault::Lost(error.to_string()),
            _ => fault(&error),
        })?;
        self.server = Some(server);
        Ok(server)
    }

    /// Does something at the server. One that is lost is looked for anew the next time.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&Self, Endpoint) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let server = self.reach()?;
        let done = work(self, server);
        if matches!(done, Err(Fault::Lost(_))) {
            self.server = None;
        }
        done
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

impl<I: Lend, F: Finder<I>> Source for FileServer<I, F>
where
    I::Error: fmt::Display,
{
    type Open = Opened;

    fn find(&mut self, path: &[u8]) -> Result<Found<Opened>, Fault> {
        self.with(|this, server| {
            let files = this.files(server);
            let node = files.follow(&this.label, path).map_err(|error| fault(&error))?;
            match kind(&node.attributes) {
                Kind::Directory => Ok(Found::Directory),
                Kind::Other => Err(Fault::Denied),
                Kind::File => {
                    let who = Who::new(NOBODY, NOBODY);
                    let open = Open { node: node.attributes.node, flags: OPEN_READ, who };
                    let opened = FileClient::new(&this.ipc, server).open(&open);
                    let file = opened.map_err(|error| call_fault("open a file", error))?;
                    Ok(Found::File(Opened { server, file }, version(&node.attributes)))
                }
            }
        })
    }

    fn list(&mut self, path: &[u8]) -> Result<Vec<Entry>, Fault> {
        self.with(|this, server| {
            let files = this.files(server);
            let directory = files.follow(&this.label, path).map_err(|error| fault(&error))?;
            let names = directory.list().map_err(|error| fault(&error))?;
            let mut entries = Vec::new();
            for named in names.into_iter().take(ENTRIES_MAX + 1) {
                let found = match named.kind {
                    // What a link leads to says whether it is a directory.
                    Inode::SymbolicLink => {
                        let whole = [path, &named.name[..]].join(&b"/"[..]);
                        files.follow(&this.label, &whole)
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

    fn read(&mut self, file: &Opened, position: u64, into: &mut [u8]) -> Result<usize, Fault> {
        let bytes = into.len().min(TRANSFER_MAX as usize) as u32;
        let read = self.ipc.lend_mut(file.server, into, |into| {
            let read = Read { file: file.file, position, into, offset: 0, bytes };
            FileClient::new(&self.ipc, file.server).within(READING).read(&read)
        });
        let read = read.unwrap_or_else(|error| Err(CallError::Exchange(error)));
        let read = read.map_err(|error| call_fault("read a file", error));
        if matches!(read, Err(Fault::Lost(_))) && self.server == Some(file.server) {
            self.server = None;
        }
        Ok(read?.min(bytes) as usize)
    }

    fn close(&mut self, file: Opened) {
        // A server that is gone has it open no more.
        let _ = FileClient::new(&self.ipc, file.server)
            .within(READING)
            .close(&Close { file: file.file });
    }
}
