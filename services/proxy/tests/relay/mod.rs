// SPDX-License-Identifier: MIT OR Apache-2.0
//! A path for datagrams that loses, repeats and reorders them, the same ones for the same seed, and on which a test
//! can record and forge.

// Each test uses a part of it.
#![allow(dead_code)]

use core::time::Duration;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// How many of a thousand datagrams suffer.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u32,
    pub(crate) twice: u32,
    pub(crate) late: u32,
}

/// One direction of the path.
struct Way {
    faults: AtomicU32,
    /// What went by, if the test wants to know.
    seen: Mutex<Vec<Vec<u8>>>,
    from: UdpSocket,
    to: UdpSocket,
}

/// The path between two proxies. Each of them takes the relay's address for the other one's.
pub(crate) struct Relay {
    ways: [Arc<Way>; 2],
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// As what the second one appears to the first, and the first to the second.
    pub(crate) fronts: [SocketAddr; 2],
}

impl Relay {
    /// Between two addresses. For QUIC, where the one that connects has any address, `ends[0]` may be `None`.
    pub(crate) fn new(seed: u64, ends: [Option<SocketAddr>; 2]) -> Self {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            socket
        };
        let sockets = [bind(), bind()];
        let fronts = [&sockets[0], &sockets[1]].map(|socket| socket.local_addr().unwrap());
        let known = Arc::new(Mutex::new(ends));
        let over = Arc::new(AtomicBool::new(false));
        let way = |from: usize| {
            Arc::new(Way {
                faults: AtomicU32::new(0),
                seen: Mutex::default(),
                from: sockets[from].try_clone().unwrap(),
                to: sockets[1 - from].try_clone().unwrap(),
            })
        };
        let ways = [way(0), way(1)];
        let threads = [0, 1].map(|from| {
            let (way, known, over) = (ways[from].clone(), known.clone(), over.clone());
            thread::spawn(move || run(&way, from, &known, &over, seed * 2 + from as u64))
        });
        Self { ways, over, threads: threads.into(), fronts }
    }

    /// From now on.
    pub(crate) fn set(&self, faults: Faults) {
        let packed = faults.lost | faults.twice << 10 | faults.late << 20;
        self.ways.iter().for_each(|way| way.faults.store(packed, Ordering::Relaxed));
    }

    /// What went from the first (0) or the second (1) to the other one.
    pub(crate) fn seen(&self, from: usize) -> Vec<Vec<u8>> {
        self.ways[from].seen.lock().unwrap().clone()
    }

    /// Sends a datagram to `to` as if it had come from the other one.
    pub(crate) fn forge(&self, from: usize, to: SocketAddr, datagram: &[u8]) {
        self.ways[from].to.send_to(datagram, to).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run(
    way: &Way,
    from: usize,
    known: &Mutex<[Option<SocketAddr>; 2]>,
    over: &AtomicBool,
    seed: u64,
) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |of_a_thousand: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % 1000 < of_a_thousand.into()
    };
    let mut datagram = vec![0; 1 << 16];
    let mut late: Option<Vec<u8>> = None;
    while !over.load(Ordering::Relaxed) {
        let Ok((len, sender)) = way.from.recv_from(&mut datagram) else {
            // What was kept back comes at last.
            let to = known.lock().unwrap()[1 - from];
            if let (Some(kept), Some(to)) = (late.take(), to) {
                let _ = way.to.send_to(&kept, to);
            }
            continue;
        };
        let datagram = &datagram[..len];
        let to = {
            let mut known = known.lock().unwrap();
            known[from] = Some(sender);
            known[1 - from]
        };
        let Some(to) = to else { continue };
        way.seen.lock().unwrap().push(datagram.to_vec());
        let faults = way.faults.load(Ordering::Relaxed);
        let [lost, twice, behind] =
            [faults, faults >> 10, faults >> 20].map(|packed| draw(packed & 0x3ff));
        if lost {
            continue;
        }
        if behind && late.is_none() {
            late = Some(datagram.to_vec());
            continue;
        }
        let _ = way.to.send_to(datagram, to);
        if twice {
            let _ = way.to.send_to(datagram, to);
        }
        if let Some(kept) = late.take() {
            let _ = way.to.send_to(&kept, to);
        }
    }
}
