// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store on the volumes of servers that do what they should, and end or lose power when they like.

use crate::{Gateway, Shared};
use mol_protocol::Errno;
use mol_vdd::export::Export;
use mol_vdd::nbd::{serve_connection, NbdUri};
use mol_vdd::store::{Intent, NbdStore, OpenError, Safety, Store};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than a program takes to begin on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// For servers that are gone.
const SHORT: Duration = Duration::from_secs(2);
const BYTES: u64 = 3 << 20;

fn volume(uri: &str) -> NbdUri {
    uri.parse().expect("a volume")
}

fn open(uri: &str) -> NbdStore {
    NbdStore::open(&volume(uri), Intent::Write, LIMIT).expect("it is there")
}

/// Writes, zeroes and reads in pieces that lie across each other, and compares all of it with an array at the end.
fn play(store: &mut NbdStore) -> Vec<u8> {
    assert_eq!((store.shape().bytes, store.shape().block_bytes), (BYTES, 512));
    let mut model = vec![0; BYTES as usize];
    for round in 0..40_u64 {
        let (first, count) = (round * 977 % 6000, round * round % 140 + 1);
        let (position, bytes) = (first * 512, (count * 512).min(BYTES - first * 512));
        let range = position as usize..(position + bytes) as usize;
        if round % 5 == 4 {
            store.zero(position, bytes).expect("it is zeroed");
            model[range].fill(0);
            continue;
        }
        let data: Vec<u8> = (0..bytes).map(|at| (round + at / 512) as u8 + 1).collect();
        let safety = if round % 3 == 0 { Safety::AtOnce } else { Safety::AtFlush };
        store.write(position, &data, safety).expect("it is written");
        model[range.clone()].copy_from_slice(&data);
        let mut back = vec![0; data.len()];
        store.read(position, &mut back).expect("it is read");
        assert!(back == data, "{bytes} bytes from {position} on differ");
    }
    store.flush().expect("it is flushed");
    let mut all = vec![0; model.len()];
    store.read(0, &mut all).expect("it is read");
    assert!(all == model, "the volume differs from the array");
    model
}

#[test]
fn a_volume_of_this_gateway_holds_what_an_array_does() {
    let export = Shared::new(BYTES, false);
    let gateway = Gateway::start(&export);
    let mut store = open(&gateway.uri("disk"));
    let model = play(&mut store);
    assert!(export.content(0, model.len()) == model);
    assert_eq!(*export.flushes.lock().unwrap(), 1, "a write that is safe at once is no flush");
    let error = store.write(BYTES, &[1; 512], Safety::AtFlush).unwrap_err();
    assert_eq!(error.errno(), Errno::Invalid);
}

/// QEMU's server of an image, which ends with this.
struct QemuNbd(Child);

impl QemuNbd {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let socket = folder.join("nbd");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("qemu-nbd");
        command.args([
            "--format=raw",
            "--persistent",
            "--shared=4",
            "--export-name=disk",
            "--socket",
        ]);
        command.arg(&socket).args(more).arg(folder.join("image")).stdin(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("running qemu-nbd: {error}; `cargo xtask doctor --install` installs it")
        });
        let server = Self(child);
        let began = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(began.elapsed() < LIMIT, "qemu-nbd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn image(folder: &Path) -> String {
    let made = std::fs::File::create(folder.join("image")).and_then(|file| file.set_len(BYTES));
    made.expect("an image");
    format!("nbd+unix:///disk?socket={}", folder.join("nbd").display())
}

#[test]
fn a_volume_of_qemu_nbd_holds_what_an_array_does_and_goes_on_when_its_server_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = image(folder.path());
    let server = QemuNbd::start(folder.path(), &[]);
    let mut store = open(&uri);
    let mut model = play(&mut store);
    assert!(std::fs::read(folder.path().join("image")).expect("it is there") == model);
    store.write(1024, &[0x5a; 512], Safety::AtFlush).expect("it is written");
    model[1024..1536].fill(0x5a);
    drop(server);
    let _server = QemuNbd::start(folder.path(), &[]);
    let mut all = vec![0; model.len()];
    store.read(0, &mut all).expect("it is read over another connection");
    assert!(all == model);
    let error = NbdStore::open(&volume(&uri.replace("disk", "other")), Intent::Read, LIMIT);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the server refuses the export `other`: there is no such"), "{error}");
}

#[test]
fn a_volume_that_is_read_only_is_opened_for_reading() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = volume(&image(folder.path()));
    let _server = QemuNbd::start(folder.path(), &["--read-only"]);
    let error = NbdStore::open(&uri, Intent::Write, LIMIT).unwrap_err();
    assert!(matches!(error, OpenError::NbdReadOnly { .. }), "{error}");
    let mut store = NbdStore::open(&uri, Intent::Read, LIMIT).expect("it can be read");
    assert!(!store.shape().writable);
    store.read(512, &mut [1; 512]).expect("it is read");
    let error = store.write(0, &[1; 512], Safety::AtFlush).unwrap_err();
    assert_eq!(error.errno(), Errno::ReadOnly);
    store.flush().expect("there is nothing to flush");
}

#[test]
fn a_server_that_is_gone_fails_a_request_in_time_and_the_next_one_tries_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = image(folder.path());
    let none = NbdStore::open(&volume(&uri), Intent::Write, SHORT).unwrap_err().to_string();
    assert!(none.starts_with("cannot open nbd+unix:///disk?socket="), "{none}");
    assert!(none.contains("No such file"), "{none}");
    let server = QemuNbd::start(folder.path(), &[]);
    let mut store = NbdStore::open(&volume(&uri), Intent::Write, SHORT).expect("it is there");
    drop(server);
    let began = Instant::now();
    let error = store.write(0, &[7; 512], Safety::AtOnce).unwrap_err();
    assert!(began.elapsed() >= SHORT && began.elapsed() < LIMIT / 2, "{:?}", began.elapsed());
    assert_eq!(error.errno(), Errno::Io);
    assert!(error.to_string().contains("the connection failed"), "{error}");
    let _server = QemuNbd::start(folder.path(), &[]);
    store.write(0, &[7; 512], Safety::AtOnce).expect("the server is there again");
    assert_eq!(std::fs::read(folder.path().join("image")).expect("it is there")[..512], [7; 512]);
}

/// A server whose machine has a cache that it loses whenever a connection is cut.
#[derive(Clone)]
struct Forgetful {
    disk: Arc<Mutex<Vec<u8>>>,
    cache: Arc<Mutex<Vec<u8>>>,
    /// How many flushes fail from now on, which drop what was not safe.
    failures: Arc<Mutex<u32>>,
}

impl Forgetful {
    fn new(bytes: usize) -> Self {
        let disk = vec![0; bytes];
        Self {
            cache: Arc::new(Mutex::new(disk.clone())),
            disk: Arc::new(Mutex::new(disk)),
            failures: Arc::default(),
        }
    }

    fn forget(&self) {
        self.cache.lock().unwrap().clone_from(&self.disk.lock().unwrap());
    }
}

impl Export for Forgetful {
    fn bytes(&self) -> u64 {
        self.disk.lock().unwrap().len() as u64
    }

    fn block_bytes(&self) -> u32 {
        512
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), Errno> {
        into.copy_from_slice(&self.cache.lock().unwrap()[position as usize..][..into.len()]);
        Ok(())
    }

    fn write(&mut self, position: u64, from: &[u8], durable: bool) -> Result<(), Errno> {
        let store = |place: &Mutex<Vec<u8>>| {
            place.lock().unwrap()[position as usize..][..from.len()].copy_from_slice(from);
        };
        store(&self.cache);
        if durable {
            store(&self.disk);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            self.forget();
            return Err(Errno::Io);
        }
        self.disk.lock().unwrap().clone_from(&self.cache.lock().unwrap());
        Ok(())
    }

    fn trim(&mut self, position: u64, bytes: u64) -> Result<(), Errno> {
        self.write(position, &vec![0; bytes as usize], false)
    }
}

/// Serves one connection after the other, and forgets at the end of each. The last connection can be cut.
fn serve(export: &Forgetful, path: &Path) -> Arc<Mutex<Option<UnixStream>>> {
    let listener = UnixListener::bind(path).expect("a socket");
    let (last, export) = (Arc::new(Mutex::new(None)), export.clone());
    let shown = last.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            *shown.lock().unwrap() = stream.try_clone().ok();
            let _ = serve_connection(&mut stream, "disk", &mut export.clone());
            export.forget();
        }
    });
    last
}

fn cut(last: &Mutex<Option<UnixStream>>) {
    let last = last.lock().unwrap();
    let stream = last.as_ref().expect("a connection");
    stream.shutdown(std::net::Shutdown::Both).expect("it is cut");
}

#[test]
fn what_a_server_forgets_before_a_flush_is_said_again_in_its_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nbd");
    let export = Forgetful::new(1 << 20);
    let last = serve(&export, &path);
    let mut store = open(&format!("nbd+unix:///disk?socket={}", path.display()));
    store.write(0, &[1; 4096], Safety::AtFlush).expect("it is written");
    store.flush().expect("it is flushed");
    store.write(0, &[2; 2048], Safety::AtFlush).expect("it is written");
    store.zero(1024, 512).expect("it is zeroed");
    // What is safe at once must not be overwritten by what was before it.
    store.write(512, &[3; 512], Safety::AtOnce).expect("it is written");
    let expected = [[2; 512], [3; 512], [0; 512], [2; 512], [1; 512]].concat();
    for _ in 0..2 {
        cut(&last);
        let mut back = vec![9; expected.len()];
        store.read(0, &mut back).expect("it is read");
        assert!(back == expected, "what was answered is missing");
    }
    cut(&last);
    store.flush().expect("it is flushed");
    cut(&last);
    let mut back = vec![9; expected.len()];
    store.read(0, &mut back).expect("it is read");
    assert!(back == expected, "what was flushed is missing");
    assert!(export.disk.lock().unwrap()[..expected.len()] == expected);

    store.write(8192, &[4; 512], Safety::AtFlush).expect("it is written");
    *export.failures.lock().unwrap() = 1;
    let error = store.flush().unwrap_err();
    assert!(
        error.to_string().ends_with("the server answers Input/output error (os error 5)"),
        "{error}"
    );
    store.flush().expect("it is flushed");
    assert_eq!(export.disk.lock().unwrap()[8192..8704], [4; 512], "a success hides no failure");
}

#[test]
fn more_than_can_be_said_again_is_flushed_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nbd");
    let export = Forgetful::new(24 << 20);
    let last = serve(&export, &path);
    let mut store = open(&format!("nbd+unix:///disk?socket={}", path.display()));
    for piece in 0..20_u8 {
        let data = vec![piece + 1; 1 << 20];
        store.write(u64::from(piece) << 20, &data, Safety::AtFlush).expect("it is written");
    }
    assert_eq!(export.disk.lock().unwrap()[0], 1, "it is flushed when there is no more room");
    cut(&last);
    let mut back = vec![0; 20 << 20];
    store.read(0, &mut back).expect("it is read");
    let differs =
        back.chunks(1 << 20).zip(1_u8..).find(|(piece, mark)| piece.iter().any(|it| it != mark));
    assert!(differs.is_none(), "piece {:?} differs", differs.map(|(_, mark)| mark));
}

#[test]
fn a_long_range_is_zeroed_in_parts_which_are_said_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nbd");
    let export = Forgetful::new(40 << 20);
    export.disk.lock().unwrap().fill(7);
    export.forget();
    let last = serve(&export, &path);
    let mut store = open(&format!("nbd+unix:///disk?socket={}", path.display()));
    store.zero(512, (40 << 20) - 1024).expect("it is zeroed");
    assert_eq!(export.disk.lock().unwrap()[4096], 7, "it is not flushed");
    cut(&last);
    let mut back = vec![9; 40 << 20];
    store.read(0, &mut back).expect("it is read");
    assert!(back[..512].iter().chain(&back[(40 << 20) - 512..]).all(|byte| *byte == 7));
    assert!(back[512..(40 << 20) - 512].iter().all(|byte| *byte == 0), "a part is missing");
}

#[test]
fn another_volume_in_the_place_of_the_first_gets_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = image(folder.path());
    let server = QemuNbd::start(folder.path(), &[]);
    let mut store = open(&uri);
    drop(server);
    let longer = std::fs::File::options().write(true).open(folder.path().join("image"));
    longer.and_then(|file| file.set_len(BYTES + 4096)).expect("it is longer");
    let _server = QemuNbd::start(folder.path(), &[]);
    let error = store.write(0, &[1; 512], Safety::AtFlush).unwrap_err().to_string();
    assert!(error.contains("it is not what it was before the connection was lost"), "{error}");
    assert_eq!(std::fs::read(folder.path().join("image")).expect("it is there")[0], 0);
}
