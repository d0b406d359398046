// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD gateway over a store, against the programs of others and against clients that say what they should not; and the store
//! on a foreign volume, against servers of others and of our own, and against such that say what they should not.

mod bytes;
mod servers;
mod tools;
mod volumes;

use mol_protocol::Errno;
use mol_vdd::export::Export;
use mol_vdd::nbd::serve_connection;
use mol_vdd::store::{MemoryStore, Safety, Store};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A store that all connections share.
#[derive(Clone)]
struct Shared {
    store: Arc<Mutex<MemoryStore>>,
    is_read_only: bool,
    flushes: Arc<Mutex<u32>>,
}

impl Shared {
    fn new(bytes: u64, is_read_only: bool) -> Self {
        let store = MemoryStore::new(bytes, 512).expect("a store");
        Self { store: Arc::new(Mutex::new(store)), is_read_only, flushes: Arc::default() }
    }

    fn content(&self, position: u64, bytes: usize) -> Vec<u8> {
        let mut content = vec![0; bytes];
        self.store.lock().unwrap().read(position, &mut content).expect("a range");
        content
    }
}

impl Export for Shared {
    fn bytes(&self) -> u64 {
        self.store.lock().unwrap().shape().bytes
    }

    fn block_bytes(&self) -> u32 {
        512
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.store.lock().unwrap().read(position, into).map_err(|error| error.errno())
    }

    fn write(&mut self, position: u64, from: &[u8], durable: bool) -> Result<(), Errno> {
        let safety = if durable { Safety::AtOnce } else { Safety::AtFlush };
        let written = self.store.lock().unwrap().write(position, from, safety);
        written.map_err(|error| error.errno())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        *self.flushes.lock().unwrap() += 1;
        Ok(())
    }

    fn trim(&mut self, position: u64, bytes: u64) -> Result<(), Errno> {
        self.store.lock().unwrap().zero(position, bytes).map_err(|error| error.errno())
    }
}

/// A gateway that serves on a socket in a folder of its own as long as this is there.
struct Gateway {
    folder: tempfile::TempDir,
}

impl Gateway {
    fn start(export: &Shared) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("nbd")).expect("a socket");
        let export = export.clone();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut export = export.clone();
                std::thread::spawn(move || serve_connection(&mut stream, "disk", &mut export));
            }
        });
        Self { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd")
    }

    fn uri(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.socket().display())
    }
}

/// A peer that says all it has to say at once, and keeps what it is told.
struct Talk {
    says: Cursor<Vec<u8>>,
    told: Vec<u8>,
}

impl Read for Talk {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.says.read(into)
    }
}

impl Write for Talk {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.told.extend(from);
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
