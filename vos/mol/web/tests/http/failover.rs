// SPDX-License-Identifier: MIT OR Apache-2.0
//! File servers that are lost while their files are sent: real ones, over a disk that they share.

use crate::lab::Web;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use core::time::Duration;
use dvk::{Endpoint, GrantId, Granted, How, Ipc, Message, Received, Then, Timeout};
use mol_fs::client::Files;
use mol_fs::disk::{Disk, DiskError, Memory};
use mol_fs::format::make;
use mol_fs::server::{OpenError, Outside, Server, FILES_MAX};
use mol_protocol::file::{FileServer as _, OPEN_WRITE};
use mol_protocol::Errno;
use mol_vdd::lend::Lend;
use mol_web::failover::PATIENCE;
use mol_web::server::Limits;
use mol_web::source::{Access, Fault, FileServer, Found, Opened, Source, ENTRIES_MAX};
use std::collections::BTreeMap;
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Mutex};

/// Something to be done by a server.
type Call = Box<dyn FnOnce(&mut Server<Reach>) + Send>;

/// Memory that is lent, by grant.
type Lent = Mutex<(u64, BTreeMap<u64, Vec<u8>>)>;

struct World {
    memory: Arc<Lent>,
    disk: Arc<Mutex<Memory>>,
    /// The server in charge.
    server: Mutex<Option<(Endpoint, Sender<Call>)>>,
    generation: AtomicU32,
    /// After how many further messages the server in charge is lost.
    loss: AtomicI64,
    /// How often it is looked for one in vain then.
    vain: AtomicI64,
    /// After how many further messages the server in charge does what it is asked, and the answer does not come in time.
    silence: AtomicI64,
}

struct Shared(Arc<Mutex<Memory>>);

impl Disk for Shared {
    fn bytes(&self) -> u64 {
        self.0.lock().unwrap().bytes()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.0.lock().unwrap().read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        self.0.lock().unwrap().write(position, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

struct Reach(Arc<Lent>, Arc<Mutex<Memory>>);

impl Outside for Reach {
    fn seconds(&self) -> u32 {
        1_700_000_000
    }

    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), Errno> {
        let memory = self.0.lock().unwrap();
        let bytes = memory.1.get(&from.grant.raw()).ok_or(Errno::Fault)?;
        let range = bytes.get(from.offset as usize..).and_then(|it| it.get(..into.len()));
        into.copy_from_slice(range.ok_or(Errno::Fault)?);
        Ok(())
    }

    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), Errno> {
        let mut memory = self.0.lock().unwrap();
        let bytes = memory.1.get_mut(&to.grant.raw()).ok_or(Errno::Fault)?;
        let range = bytes.get_mut(to.offset as usize..).and_then(|it| it.get_mut(..from.len()));
        range.ok_or(Errno::Fault)?.copy_from_slice(from);
        Ok(())
    }

    fn is_gone(&self, _: Endpoint) -> bool {
        false
    }

    fn open(&self, _: &str, _: bool) -> Result<Box<dyn Disk>, OpenError> {
        Ok(Box::new(Shared(self.1.clone())))
    }
}

impl World {
    fn new(files: &[(&str, &[u8])]) -> Arc<Self> {
        let mut disk = Memory::new(8 << 20);
        make(&mut disk, 4096, 256, 0).unwrap();
        let world = Arc::new(Self {
            memory: Arc::default(),
            disk: Arc::new(Mutex::new(disk)),
            server: Mutex::default(),
            generation: AtomicU32::new(1),
            loss: AtomicI64::new(i64::MAX),
            vain: AtomicI64::new(0),
            silence: AtomicI64::new(i64::MAX),
        });
        world.take_over();
        world.put(files);
        world
    }

    fn put(self: &Arc<Self>, all: &[(&str, &[u8])]) {
        let desk = Desk::new(self);
        let server = self.server.lock().unwrap().as_ref().unwrap().0;
        let files = Files::new(&desk, server, 0, 0);
        for (name, content) in all {
            let (above, name) = files.parent("", name.as_bytes()).unwrap();
            let _ = above.unlink(name);
            let file = above.create(name, 0o644, OPEN_WRITE).unwrap();
            file.write(0, content).unwrap();
        }
        files.sync().unwrap();
    }

    /// Another server comes, as another endpoint in the same slot.
    fn take_over(&self) -> Endpoint {
        let generation = NonZeroU32::new(self.generation.fetch_add(1, Ordering::SeqCst)).unwrap();
        let endpoint = Endpoint::new(9, generation);
        let (calls, called) = channel::<Call>();
        let reach = Reach(self.memory.clone(), self.disk.clone());
        std::thread::spawn(move || {
            let mut server = Server::new(reach, 4 << 20);
            server.mount_label("disk", false).unwrap();
            for call in called {
                call(&mut server);
            }
        });
        *self.server.lock().unwrap() = Some((endpoint, calls));
        endpoint
    }

    /// Has the server in charge do something, and waits for it.
    fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Server<Reach>) -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = channel();
        let call: Call = Box::new(move |server| drop(tell.send(work(server))));
        self.server.lock().unwrap().as_ref()?.1.send(call).ok()?;
        told.recv().ok()
    }
}

struct Desk {
    world: Arc<World>,
    me: Endpoint,
    /// How long it may wait for anything.
    patience: Option<Duration>,
}

impl Desk {
    fn new(world: &Arc<World>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(100);
        let me = Endpoint::new(NEXT.fetch_add(1, Ordering::SeqCst), NonZeroU32::MIN);
        Self { world: world.clone(), me, patience: None }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let me = self.me;
        self.world.with(move |server| server.forget(me));
    }
}

impl Ipc for Desk {
    type Error = &'static str;

    fn send(&self, _: Endpoint, _: &Message, _: Timeout) -> Result<(), Self::Error> {
        Err("nothing is sent")
    }

    fn sendrec(
        &self,
        to: Endpoint,
        message: &Message,
        timeout: Timeout,
    ) -> Result<Message, Self::Error> {
        if let Some(patience) = self.patience {
            assert!(matches!(timeout, Timeout::After(time) if time <= patience), "{timeout}");
        }
        let (answer, answered) = channel();
        let message = Message { source: self.me.raw(), ..*message };
        let call: Call =
            Box::new(move |server| match server.handle(&Received { message, how: How::Request }) {
                Then::Reply(reply) => drop(answer.send(reply)),
                other => panic!("{other:?}, where a reply is due"),
            });
        {
            let mut server = self.world.server.lock().unwrap();
            if self.world.loss.fetch_sub(1, Ordering::SeqCst) == 0 {
                *server = None;
            }
            let calls = server.as_ref().filter(|(endpoint, _)| *endpoint == to);
            calls.ok_or("it has ended")?.1.send(call).map_err(|_| "it has ended")?;
        }
        if self.world.silence.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err("it takes too long");
        }
        answered.recv().map_err(|_| "it has ended")
    }

    fn reply(&self, _: Endpoint, _: &Message) -> Result<(), Self::Error> {
        Err("nothing is replied to")
    }

    fn notify(&self, _: Endpoint, _: u64) -> Result<(), Self::Error> {
        Err("nobody is notified")
    }
}

impl Lend for Desk {
    fn lend<R>(
        &self,
        to: Endpoint,
        memory: &[u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Self::Error> {
        self.lend_mut(to, &mut memory.to_vec(), work)
    }

    fn lend_mut<R>(
        &self,
        _: Endpoint,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Self::Error> {
        let grant = {
            let mut all = self.world.memory.lock().unwrap();
            all.0 += 1;
            let grant = all.0;
            all.1.insert(grant, memory.to_vec());
            grant
        };
        let done = work(GrantId::from_raw(grant));
        let lent = self.world.memory.lock().unwrap().1.remove(&grant).expect("it is lent");
        memory.copy_from_slice(&lent);
        Ok(done)
    }
}

/// Finds the server in charge. When it was looked for in vain for a while, another one takes over.
struct Look {
    world: Arc<World>,
    /// What the next server finds changed.
    change: Option<(&'static str, &'static [u8])>,
}

impl Access for Look {
    type Ipc = Desk;

    fn enter(&mut self) -> Result<Desk, &'static str> {
        let mut desk = Desk::new(&self.world);
        desk.patience = Some(PATIENCE);
        Ok(desk)
    }

    fn find(&mut self, _: &Desk, limit: Duration) -> Option<Endpoint> {
        assert!(limit <= PATIENCE);
        if let Some((endpoint, _)) = &*self.world.server.lock().unwrap() {
            return Some(*endpoint);
        }
        if self.world.vain.fetch_sub(1, Ordering::SeqCst) > 0 {
            return None;
        }
        let endpoint = self.world.take_over();
        if let Some(change) = self.change.take() {
            self.world.put(&[change]);
        }
        Some(endpoint)
    }
}

fn web(world: &Arc<World>, change: Option<(&'static str, &'static [u8])>) -> Web {
    let look = Look { world: world.clone(), change };
    Web::new(vec![FileServer::new(look, "").unwrap()], Limits::default())
}

fn content() -> Vec<u8> {
    (0..1_000_001_u32).map(|at| (at / 5 % 251) as u8).collect()
}

#[test]
fn files_of_a_file_server_are_served() {
    let world = World::new(&[("f", &content()), ("a.txt", b"text")]);
    let web = web(&world, None);
    assert!(web.get("/f").whole() == content());
    assert_eq!(web.get("/a.txt").text(), "text");
    assert_eq!(web.get("/none").status, 404);
    let list = web.get("/");
    assert!(
        list.text().contains("<a href=\"a.txt\">a.txt</a></td><td align=\"right\">4<"),
        "{list:?}"
    );
    let tag = web.get("/a.txt").header("etag").to_owned();
    assert_eq!(web.ask("GET", "/a.txt", &[("If-None-Match", &tag)]).status, 304);
}

#[test]
fn wherever_the_server_is_lost_the_body_is_whole() {
    let world = World::new(&[("f", &content())]);
    let web = web(&world, None);
    let mut losses = 0;
    // It takes fewer messages than these.
    for message in 0..24 {
        let before = world.generation.load(Ordering::SeqCst);
        world.vain.store(2, Ordering::SeqCst);
        world.loss.store(message, Ordering::SeqCst);
        assert!(web.get("/f").whole() == content(), "lost at message {message}");
        losses += world.generation.load(Ordering::SeqCst) - before;
    }
    assert!(losses > 10, "{losses}");
}

#[test]
fn another_file_under_the_path_is_not_sent_for_the_rest() {
    let world = World::new(&[("f", &content())]);
    let web = web(&world, Some(("f", b"another one")));
    // In the middle: finding and opening takes about 6 messages, and there are 8 blocks.
    world.loss.store(11, Ordering::SeqCst);
    let cut = web.get("/f");
    assert_eq!((cut.status, cut.header("content-length")), (200, "1000001"));
    assert!(cut.body.len() < 1_000_001, "the client sees that it is not whole");
    assert!(content().starts_with(&cut.body));
    assert_eq!(web.get("/f").text(), "another one");
}

fn open(source: &mut FileServer<Look>, limit: Duration) -> Result<Opened, Fault> {
    match source.find(b"f", limit)? {
        Found::File(file, _) => Ok(file),
        Found::Directory => panic!("it is a file"),
    }
}

/// What a connection does, at a server that does not answer one of the messages in time.
#[test]
fn a_server_that_is_silent_is_waited_for_as_long_as_it_is_said_and_keeps_nothing_open() {
    let world = World::new(&[("f", &content())]);
    let look = Look { world: world.clone(), change: None };
    let mut source = FileServer::new(look, "").unwrap();
    let mut into = [0; 10];
    let mut silences = 0;
    for silence in 0..12 {
        world.silence.store(silence, Ordering::SeqCst);
        let read = open(&mut source, PATIENCE).and_then(|file| {
            let read = source.read(&file, 0, &mut into, PATIENCE);
            source.close(file);
            read
        });
        let is_silent = world.silence.swap(i64::MAX, Ordering::SeqCst) < 0;
        silences += i32::from(is_silent);
        // A message that gives something back is not needed for what was asked.
        assert!(matches!(read, Ok(10) | Err(Fault::Lost(_))), "{silence}: {read:?}");
        let clients = world.with(|server| server.clients()).unwrap();
        assert!(!is_silent || clients.is_empty(), "silent at {silence}: {clients:?}");
        let file = open(&mut source, PATIENCE).unwrap();
        assert_eq!(source.read(&file, 5, &mut into, PATIENCE), Ok(10));
        source.close(file);
    }
    assert!(silences > 6, "{silences}");
    drop(source);
    assert_eq!(world.with(|server| server.clients()).unwrap().len(), 0);
}

#[test]
fn files_whose_reading_took_too_long_do_not_use_up_what_a_client_may_have_open() {
    let world = World::new(&[("f", b"0123456789")]);
    let look = Look { world: world.clone(), change: None };
    let mut source = FileServer::new(look, "").unwrap();
    for time in 0..=FILES_MAX {
        let file = open(&mut source, PATIENCE).unwrap_or_else(|fault| panic!("{time}: {fault}"));
        world.silence.store(0, Ordering::SeqCst);
        let read = source.read(&file, 0, &mut [0; 10], PATIENCE);
        assert!(matches!(read, Err(Fault::Lost(_))), "{read:?}");
        source.close(file);
    }
}

#[test]
fn no_more_names_are_read_than_are_listed() {
    let names: Vec<_> = (0..200).map(|number| format!("{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (&name[..], &b""[..])).collect();
    let world = World::new(&files);
    let mut source = FileServer::new(Look { world: world.clone(), change: None }, "").unwrap();
    assert_eq!(source.list(b"", PATIENCE).unwrap().len(), 200);
    assert!(200 < ENTRIES_MAX);
    let desk = Desk::new(&world);
    let server = world.server.lock().unwrap().as_ref().unwrap().0;
    let files = Files::new(&desk, server, 0, 0);
    let root = files.root("").unwrap();
    let before = world.silence.load(Ordering::SeqCst);
    assert_eq!(root.list_some(20).unwrap().len(), 20);
    let messages = before - world.silence.load(Ordering::SeqCst);
    assert_eq!(messages, 3, "to open, read once and close");
    assert_eq!(root.list_some(0).unwrap().len(), 0);
}
