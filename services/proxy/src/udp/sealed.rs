// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams that are encrypted and authenticated: the socket and the clock around a tunnel.

use super::{is_nothing, DATAGRAM_BYTES_MAX, LOOK};
use crate::datagram::packet::{Packet, Stranger};
use crate::datagram::session::{Rejected, Session};
use crate::datagram::tunnel::{Outcome, Tunnel};
use crate::link::{Link, Refused};
use crate::passage::Passage;
use crate::protection::Keys;
use anyhow::{anyhow, Context, Result};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use dvk::Frames;
use rustix::net::{recv, RecvFlags};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// How often time passes for the tunnel.
const TICK: Duration = Duration::from_millis(50);

/// One end, which two threads share.
struct Sealed<'a, L> {
    passage: Passage<'a, L>,
    socket: &'a UdpSocket,
    peer: SocketAddr,
    tunnel: Mutex<Tunnel>,
    began: Instant,
    /// Whether the link is this proxy's.
    attached: AtomicBool,
    over: AtomicBool,
}

pub(super) fn carry<L: Link>(
    passage: Passage<'_, L>,
    socket: &UdpSocket,
    keys: &Keys,
) -> Result<()> {
    socket.set_read_timeout(Some(TICK)).context("setting the timeout of a socket")?;
    // Once here, so that what follows need not fail for it.
    getrandom::fill(&mut [0]).context("asking for randomness")?;
    let tunnel = Mutex::new(Tunnel::new(keys, passage.ends, &mut random));
    let sealed = Sealed {
        passage,
        socket,
        peer: socket.peer_addr().context("looking at the address of the peer")?,
        tunnel,
        began: Instant::now(),
        attached: AtomicBool::new(false),
        over: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let end = sealed.receive();
            sealed.over.store(true, Ordering::Release);
            end
        });
        let sent = sealed.send();
        sealed.over.store(true, Ordering::Release);
        let received = receiver.join().map_err(|_| anyhow!("a thread panicked"))?;
        sent.and(received)
    })
}

fn random(bytes: &mut [u8]) {
    // It worked before, and the kernel's source, once there, does not run dry.
    getrandom::fill(bytes).expect("the kernel gave randomness before");
}

impl<L: Link> Sealed<'_, L> {
    fn tunnel(&self) -> MutexGuard<'_, Tunnel> {
        // A thread that panicked ends the other one.
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Sends frames until it is over.
    fn send(&self) -> Result<()> {
        // A link that is given to a proxy whose peer is not there would be down for nothing.
        while self.tunnel().current().is_none() {
            if self.over.load(Ordering::Acquire) {
                return Ok(());
            }
            thread::sleep(TICK / 10);
        }
        self.passage.link.attach()?;
        self.attached.store(true, Ordering::Release);
        let (mut frames, mut datagram) = (Frames::new(), Vec::new());
        while !self.over.load(Ordering::Acquire) {
            match self.passage.link.get(&mut frames, LOOK) {
                Ok(()) => {
                    let session = self.tunnel().current().cloned();
                    let carried = self.send_by(session, &frames, &mut datagram);
                    self.passage.counters.sent(&frames, carried);
                }
                Err(Refused::Quiet) => {}
                Err(Refused::TakenOver) => return Ok(()),
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends frames, and returns how many bytes. Without a session, and where a datagram cannot be sent, they are lost as any may be,
    /// and sent again by the link.
    fn send_by(
        &self,
        session: Option<Arc<Session>>,
        frames: &Frames,
        datagram: &mut Vec<u8>,
    ) -> usize {
        let Some(session) = session else { return 0 };
        let mut carried = 0;
        for frame in frames.iter() {
            if session.seal(frame, datagram) && self.socket.send(datagram).is_ok() {
                carried += frame.len();
            }
        }
        carried
    }

    /// Receives frames until it is over, and lets time pass.
    fn receive(&self) -> Result<()> {
        let (mut frames, mut datagram) = (Frames::new(), vec![0; DATAGRAM_BYTES_MAX]);
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        let mut ticked = None;
        while !self.over.load(Ordering::Acquire) {
            let now = self.now();
            if ticked.is_none_or(|at| now.saturating_sub(at) >= TICK) {
                ticked = Some(now);
                self.tunnel().tick(now, &mut random, &mut out);
                self.answer(&mut out);
            }
            frames.clear();
            match self.socket.recv(&mut datagram) {
                Ok(len) => self.take(&datagram[..len], &mut frame, &mut frames, &mut out),
                Err(error) if is_nothing(&error) => continue,
                Err(error) => return Err(error).context("receiving datagrams"),
            }
            // What has come meanwhile goes with it.
            while frames.has_room(DATAGRAM_BYTES_MAX) {
                let got = recv(self.socket, &mut datagram[..], RecvFlags::DONTWAIT);
                let Ok((len, _)) = got else { break };
                self.take(&datagram[..len], &mut frame, &mut frames, &mut out);
            }
            self.answer(&mut out);
            // What comes before the link is ours is lost, and sent again by the peer's.
            if frames.is_empty() || !self.attached.load(Ordering::Acquire) {
                continue;
            }
            self.passage.counters.received(&frames, frames.iter().map(<[u8]>::len).sum());
            match self.passage.link.put(&frames) {
                Ok(()) | Err(Refused::Quiet) => {}
                Err(Refused::TakenOver) => return Ok(()),
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn answer(&self, out: &mut Vec<Vec<u8>>) {
        for datagram in out.drain(..) {
            // It is sent again if there is no answer.
            let _ = self.socket.send(&datagram);
        }
    }

    /// Takes a datagram; the frame in it goes to `frames`, what is to be answered to `out`.
    fn take(
        &self,
        datagram: &[u8],
        frame: &mut Vec<u8>,
        frames: &mut Frames,
        out: &mut Vec<Vec<u8>>,
    ) {
        let counters = self.passage.counters;
        let packet = match Packet::decode(datagram) {
            Ok(packet) => packet,
            Err(stranger) => {
                counters.foreign.add(1);
                self.passage.log.say(self.peer, &strange(stranger));
                return;
            }
        };
        let now = self.now();
        let Packet::Data { to, number, sealed } = packet else {
            let outcome = self.tunnel().receive(&packet, now, &mut random, out);
            self.note(outcome);
            return;
        };
        let session = self.tunnel().session(to).cloned();
        let Some(session) = session else {
            // Perhaps of a session before this proxy was started; nobody can tell any more.
            counters.foreign.add(1);
            self.tunnel().missed(now, out);
            return;
        };
        match session.open(number, sealed, frame) {
            Ok(()) => {
                let outcome = self.tunnel().heard(to, frame.is_empty(), now, out);
                self.note(outcome);
                if !frame.is_empty() {
                    frames.push(frame);
                }
            }
            Err(Rejected::Replayed) => counters.replayed.add(1),
            Err(Rejected::Forged) => counters.forged.add(1),
        }
    }

    fn note(&self, outcome: Outcome) {
        let counters = self.passage.counters;
        match outcome {
            Outcome::Fine => {}
            Outcome::Agreed => counters.handshakes.add(1),
            Outcome::Replayed => counters.replayed.add(1),
            Outcome::Forged => {
                counters.forged.add(1);
                let Self { passage, peer, .. } = self;
                let why = format!(
                    "its keys are not those of node {} for node {}: it has another cluster token, is of a cluster with another name, is \
                     another node or expects one, or somebody forges datagrams",
                    passage.ends.peer, passage.ends.own
                );
                passage.log.say(peer, &why);
            }
        }
    }
}

fn strange(stranger: Stranger) -> String {
    match stranger {
        Stranger::Clear => {
            "it speaks in the clear: cluster.insecure is true there and false here".to_owned()
        }
        Stranger::Version(version) => {
            format!("its datagrams are of version {version}, which this dvs-proxy does not speak")
        }
        Stranger::Noise => "its datagrams are not those of a dvs-proxy".to_owned(),
    }
}
