// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two proxies on the loopback interface carry frames between two links that are channels.

use core::time::Duration;
use dvk::Frames;
use dvs_proxy::link::{Link, Refused};
use dvs_proxy::{tcp, udp};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::Mutex;
use std::thread;

/// A link of which a test holds the other side.
struct Fake {
    outgoing: Mutex<Receiver<Vec<u8>>>,
    incoming: Mutex<Sender<Vec<u8>>>,
    attached: AtomicUsize,
    taken_over: AtomicBool,
}

struct Side {
    send: Sender<Vec<u8>>,
    receive: Receiver<Vec<u8>>,
}

impl Fake {
    fn new() -> (Self, Side) {
        let ((send, outgoing), (incoming, receive)) = (channel(), channel());
        let fake = Self {
            outgoing: outgoing.into(),
            incoming: incoming.into(),
            attached: 0.into(),
            taken_over: false.into(),
        };
        (fake, Side { send, receive })
    }

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
        while let Ok(frame) = outgoing.try_recv() {
            frames.push(&frame);
        }
        Ok(())
    }

    fn put(&self, frames: &Frames) -> Result<(), Refused> {
        self.check()?;
        let incoming = self.incoming.lock().unwrap();
        frames.iter().for_each(|frame| incoming.send(frame.to_vec()).unwrap());
        Ok(())
    }
}

impl Side {
    /// Sends numbered frames to `other`, and returns those that arrive there.
    fn exchange(&self, other: &Self, count: u32) -> Vec<Vec<u8>> {
        (0..count).for_each(|number| self.send.send(frame(number)).unwrap());
        let mut got = Vec::new();
        while got.len() < count as usize {
            match other.receive.recv_timeout(Duration::from_secs(10)) {
                Ok(frame) => got.push(frame),
                Err(_) => break,
            }
        }
        got
    }
}

/// Ends the proxies of a test, also of one that fails.
struct End<'a>(&'a Fake, &'a Fake);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.taken_over.store(true, Ordering::Relaxed);
        self.1.taken_over.store(true, Ordering::Relaxed);
    }
}

fn frame(number: u32) -> Vec<u8> {
    let mut frame = number.to_le_bytes().to_vec();
    frame.resize(64 + (number as usize * 37) % 1300, number as u8);
    frame
}

fn frames(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(frame).collect()
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn tcp_carries_both_ways_and_ends_when_another_transport_takes_over() {
    let ((one, a), (two, b)) = (Fake::new(), Fake::new());
    let address = free_port();
    thread::scope(|scope| {
        let end = End(&one, &two);
        let listening = scope.spawn(|| tcp::carry(&one, tcp::Role::Listen(address)));
        let connecting = scope.spawn(|| tcp::carry(&two, tcp::Role::Connect(address)));
        assert_eq!(a.exchange(&b, 2000), frames(2000));
        assert_eq!(b.exchange(&a, 2000), frames(2000));
        drop(end);
        listening.join().unwrap().unwrap();
        connecting.join().unwrap().unwrap();
    });
    assert_eq!(one.attached.load(Ordering::Relaxed), 1);
}

#[test]
fn tcp_survives_strangers_and_broken_connections() {
    use std::io::Write;
    let ((one, a), (two, b)) = (Fake::new(), Fake::new());
    let address = free_port();
    thread::scope(|scope| {
        let end = End(&one, &two);
        scope.spawn(|| tcp::carry(&one, tcp::Role::Listen(address)));
        let mut stranger = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let connecting = scope.spawn(|| tcp::carry(&two, tcp::Role::Connect(address)));
        assert_eq!(a.exchange(&b, 100), frames(100));
        assert!(a.receive.try_recv().is_err(), "the stranger's bytes went to the link");
        // The peer is started anew.
        two.taken_over.store(true, Ordering::Relaxed);
        connecting.join().unwrap().unwrap();
        two.taken_over.store(false, Ordering::Relaxed);
        scope.spawn(|| tcp::carry(&two, tcp::Role::Connect(address)));
        assert_eq!(b.exchange(&a, 100), frames(100));
        drop(end);
    });
    assert!(two.attached.load(Ordering::Relaxed) >= 2);
}

#[test]
fn udp_carries_frames_of_its_peer_only() {
    let ((one, a), (two, b)) = (Fake::new(), Fake::new());
    let bound = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (left, right) = (bound().local_addr().unwrap(), bound().local_addr().unwrap());
    thread::scope(|scope| {
        let end = End(&one, &two);
        let first = scope.spawn(|| udp::carry(&one, left, right));
        let second = scope.spawn(|| udp::carry(&two, right, left));
        while one.attached.load(Ordering::Relaxed) + two.attached.load(Ordering::Relaxed) < 2 {
            thread::sleep(Duration::from_millis(5));
        }
        bound().send_to(&frame(9), left).unwrap();
        // Few at a time, so that no queue overflows.
        for _ in 0..20 {
            assert_eq!(a.exchange(&b, 10), frames(10));
            assert_eq!(b.exchange(&a, 10), frames(10));
        }
        assert!(a.receive.try_recv().is_err());
        drop(end);
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
}
