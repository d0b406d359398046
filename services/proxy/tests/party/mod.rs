// SPDX-License-Identifier: MIT OR Apache-2.0
//! A proxy in a test: a link whose other side the test holds, keys, and what was counted and said.

// Each test uses a part of it.
#![allow(dead_code)]

use core::time::Duration;
use dvk::Frames;
use dvs_authority::{Authority, Identity};
use dvs_proxy::batch::Compression;
use dvs_proxy::counters::Counters;
use dvs_proxy::link::{Link, Refused};
use dvs_proxy::passage::{Log, Passage};
use dvs_proxy::protection::{Ends, Keys, Protection, SPOKEN};
use dvs_proxy::tcp::Role;
use dvs_secret::ClusterSecret;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// After this something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const TOKEN: &str = "sixteen letters or more";

/// A link of which a test holds the other side.
pub(crate) struct Fake {
    outgoing: Mutex<Receiver<Vec<u8>>>,
    incoming: Mutex<Sender<Vec<u8>>>,
    pub(crate) attached: AtomicUsize,
    pub(crate) taken_over: AtomicBool,
}

impl Fake {
    fn check(&self) -> Result<(), Refused> {
        if self.taken_over.load(Ordering::Relaxed) {
            return Err(Refused::TakenOver);
        }
        Ok(())
    }
}

impl Link for Fake {
    fn attach(&self) -> anyhow::Result<()> {
        self.attached.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn is_attached(&self) -> anyhow::Result<bool> {
        Ok(self.check().is_ok())
    }

    fn get(&self, frames: &mut Frames, patience: Duration) -> Result<(), Refused> {
        self.check()?;
        frames.clear();
        let outgoing = self.outgoing.lock().unwrap();
        match outgoing.recv_timeout(patience) {
            Ok(frame) => frames.push(&frame),
            Err(RecvTimeoutError::Timeout) => return Err(Refused::Quiet),
            Err(RecvTimeoutError::Disconnected) => return Err(Refused::TakenOver),
        }
        // As the kernel does, no more than there is room for.
        while frames.has_room(1 << 16) {
            let Ok(frame) = outgoing.try_recv() else { break };
            frames.push(&frame);
        }
        Ok(())
    }

    fn put(&self, frames: &Frames) -> Result<(), Refused> {
        self.check()?;
        assert!(!frames.is_empty(), "the kernel refuses nothing");
        let incoming = self.incoming.lock().unwrap();
        frames.iter().for_each(|frame| incoming.send(frame.to_vec()).unwrap());
        Ok(())
    }
}

/// A proxy and all that is around it.
pub(crate) struct Party {
    pub(crate) link: Fake,
    pub(crate) send: Sender<Vec<u8>>,
    receive: Mutex<Receiver<Vec<u8>>>,
    pub(crate) counters: Counters,
    pub(crate) compression: Compression,
    ends: Ends,
    protection: Protection,
    identity: Option<Identity>,
    log: Log,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Two proxies that belong together.
pub(crate) fn pair() -> (Party, Party) {
    (Party::sealed(1, 2), Party::sealed(2, 1))
}

impl Party {
    /// A proxy of the tests' cluster.
    pub(crate) fn sealed(own: u32, peer: u32) -> Self {
        Self::of(TOKEN, "lab", own, peer)
    }

    /// A proxy of some cluster.
    pub(crate) fn of(token: &str, cluster: &str, own: u32, peer: u32) -> Self {
        let secret = ClusterSecret::new(&token.parse().unwrap());
        let ends = Ends { own, peer };
        let authority = Authority::derived(&secret, cluster).unwrap();
        let identity = authority.identity(own, peer, SPOKEN).unwrap();
        let keys = Keys::new(secret, cluster.to_owned());
        Self::new(ends, Protection::Sealed(keys), Some(identity))
    }

    /// A proxy of an insecure cluster.
    pub(crate) fn clear(own: u32, peer: u32) -> Self {
        Self::new(Ends { own, peer }, Protection::Clear, None)
    }

    fn new(ends: Ends, protection: Protection, identity: Option<Identity>) -> Self {
        let ((send, outgoing), (incoming, receive)) = (channel(), channel());
        let link = Fake {
            outgoing: outgoing.into(),
            incoming: incoming.into(),
            attached: 0.into(),
            taken_over: false.into(),
        };
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let sink = lines.clone();
        let log = Log::new(move |line| sink.lock().unwrap().push(line.to_owned()));
        let (counters, compression) = (Counters::default(), Compression::Auto);
        let receive = receive.into();
        Self { link, send, receive, counters, compression, ends, protection, identity, log, lines }
    }

    /// For one that never gets the link, and so does not see its end: it runs until the test's process ends.
    pub(crate) fn forever(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    pub(crate) fn passage(&self) -> Passage<'_, Fake> {
        Passage {
            link: &self.link,
            ends: self.ends,
            protection: &self.protection,
            identity: self.identity.as_ref(),
            compression: self.compression,
            counters: &self.counters,
            log: &self.log,
        }
    }

    /// Waits until it has said something.
    pub(crate) fn says(&self, what: &str) {
        until(&format!("a line with `{what}`"), || {
            let lines = self.lines.lock().unwrap();
            lines.iter().any(|line| line.contains(what)).then_some(()).ok_or(format!("{lines:?}"))
        });
    }

    /// Waits until it has the link.
    pub(crate) fn attaches(&self) {
        until("the link to be attached", || {
            let attached = self.link.attached.load(Ordering::Relaxed);
            (attached > 0).then_some(()).ok_or(format!("{:?}", self.lines.lock().unwrap()))
        });
    }

    /// Whether it has never had the link.
    pub(crate) fn never_attached(&self) -> bool {
        self.link.attached.load(Ordering::Relaxed) == 0
    }

    /// The next frame that comes to the link.
    pub(crate) fn comes(&self, patience: Duration) -> Option<Vec<u8>> {
        self.receive.lock().unwrap().recv_timeout(patience).ok()
    }

    /// Sends numbered frames to `other`, and returns those that arrive there, in their order.
    pub(crate) fn exchange(&self, other: &Self, count: u32) -> Vec<Vec<u8>> {
        (0..count).for_each(|number| self.send.send(frame(number)).unwrap());
        let mut got = Vec::new();
        while got.len() < count as usize {
            match other.comes(PATIENCE) {
                Some(frame) => got.push(frame),
                None => break,
            }
        }
        got
    }

    /// As a link does, sends frames again until all have come, a few at a time. Whatever comes must be one of them.
    pub(crate) fn repeat(&self, other: &Self, count: u32) {
        let mut missing: BTreeSet<_> = (0..count).map(frame).collect();
        let all = missing.clone();
        let deadline = Instant::now() + PATIENCE;
        while !missing.is_empty() {
            assert!(Instant::now() < deadline, "{} of {count} frames did not come", missing.len());
            missing.iter().take(32).for_each(|frame| self.send.send(frame.clone()).unwrap());
            while let Some(frame) = other.comes(Duration::from_millis(50)) {
                assert!(all.contains(&frame), "a frame that was never sent");
                missing.remove(&frame);
            }
        }
    }
}

/// What carries a link between an end that listens and one that connects.
pub(crate) type Carry = fn(Passage<'_, Fake>, Role) -> anyhow::Result<()>;

/// The one that listens is started anew, again and again, while the other one runs.
pub(crate) fn start_the_listening_one_anew(address: SocketAddr, carry: Carry) {
    let (one, two) = pair();
    thread::scope(|scope| {
        let _end = End(vec![&one, &two]);
        scope.spawn(|| carry(two.passage(), Role::Connect(address)));
        for _ in 0..3 {
            one.link.taken_over.store(false, Ordering::Relaxed);
            let listening = scope.spawn(|| carry(one.passage(), Role::Listen(address)));
            two.repeat(&one, 200);
            one.repeat(&two, 200);
            one.link.taken_over.store(true, Ordering::Relaxed);
            listening.join().unwrap().unwrap();
        }
    });
}

/// Two that do not belong together: what each of them says, whichever listens.
pub(crate) fn refuse(
    make: impl Fn() -> (Party, Party),
    [first, second]: [&str; 2],
    free_address: fn() -> SocketAddr,
    carry: Carry,
) {
    for turned in [false, true] {
        let (one, two) = make();
        let (one, two) = (one.forever(), two.forever());
        let address = free_address();
        let roles = [Role::Listen(address), Role::Connect(address)];
        thread::spawn(move || carry(one.passage(), roles[usize::from(turned)]));
        thread::spawn(move || carry(two.passage(), roles[usize::from(!turned)]));
        one.says(first);
        two.says(second);
        assert!(one.never_attached() && two.never_attached());
        assert!(one.counters.snapshot().foreign > 0 && two.counters.snapshot().foreign > 0);
    }
}

/// Ends the proxies of a test, also of one that fails.
pub(crate) struct End<'a>(pub(crate) Vec<&'a Party>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|party| party.link.taken_over.store(true, Ordering::Relaxed));
    }
}

/// Waits until something is so; it says how it is else.
pub(crate) fn until<T>(what: &str, mut is: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match is() {
            Ok(found) => return found,
            Err(how) => assert!(Instant::now() < deadline, "waiting for {what}: {how}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Frames of all lengths, and a few of the longest.
pub(crate) fn frame(number: u32) -> Vec<u8> {
    let mut frame = number.to_le_bytes().to_vec();
    let len = if number % 50 == 49 { 16_448 } else { 64 + (number as usize * 37) % 1300 };
    frame.resize(len, number as u8);
    frame
}

pub(crate) fn frames(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(frame).collect()
}

/// An address of TCP that nobody uses.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An address of UDP that nobody uses.
pub(crate) fn free_udp_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
