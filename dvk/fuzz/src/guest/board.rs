// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all processes of a run share: the tally, whom and what there is to be reached, and what
//! each thread did last.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::fs::File;
use std::io;
use std::path::Path;

use dvk_fuzz::call::CALLS;
use dvk_fuzz::program::{CONTAINERS, INTERFACES, SERVERS, THREADS_MAX};

use super::sys;

/// Processes that run at once.
pub(crate) const PROCESSES_MAX: usize = 8;
/// Where calls are counted whose number is no call's.
pub(crate) const STRANGE: usize = CALLS.len();
/// Errors are below it; 0 is success.
pub(crate) const ERRNOS: usize = 140;
/// Operations that are remembered of each thread.
const REMEMBERED: usize = 24;

/// What is counted besides calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Opened,
    Closed,
    Polled,
    Mapped,
    Signalled,
    Forked,
    Starved,
    Died,
    FrameSent,
    FrameSpoilt,
    FrameReceived,
    RecordSent,
    RecordReceived,
    StreamBegun,
    InterfaceMade,
}

impl Event {
    pub(crate) const NAMES: [(Self, &'static str); 15] = [
        (Self::Opened, "files opened"),
        (Self::Closed, "files closed or replaced"),
        (Self::Polled, "polls"),
        (Self::Mapped, "mappings changed"),
        (Self::Signalled, "signals sent"),
        (Self::Forked, "forks"),
        (Self::Starved, "calls with a failing allocation or access"),
        (Self::Died, "processes ended by themselves"),
        (Self::FrameSent, "frames sent by partners"),
        (Self::FrameSpoilt, "of them spoilt"),
        (Self::FrameReceived, "frames received by partners"),
        (Self::RecordSent, "records sent by partners"),
        (Self::RecordReceived, "records received by partners"),
        (Self::StreamBegun, "streams begun by partners"),
        (Self::InterfaceMade, "interfaces made"),
    ];
}

/// The shared memory. All of it is zero at first.
#[repr(C)]
pub(crate) struct Board {
    pub(crate) calls: AtomicU64,
    counts: [[AtomicU64; ERRNOS]; STRANGE + 1],
    events: [AtomicU64; Event::NAMES.len()],
    /// Endpoints that were bound last.
    pub(crate) endpoints: [AtomicU64; 16],
    /// The grants made last, and who made them; how many there were.
    pub(crate) grants: [AtomicU64; 16],
    pub(crate) lenders: [AtomicU64; 16],
    granted: AtomicU64,
    /// By container and slot.
    pub(crate) servers: [[AtomicU64; SERVERS as usize]; CONTAINERS as usize],
    /// Their indices, by number.
    pub(crate) interfaces: [AtomicU32; INTERFACES as usize],
    /// The last incarnation that a node came up with.
    pub(crate) incarnation: AtomicU32,
    pub(crate) rings: [[Ring; THREADS_MAX]; PROCESSES_MAX],
}

/// What a thread did last.
#[repr(C)]
pub(crate) struct Ring {
    next: AtomicU64,
    entries: [[AtomicU64; 4]; REMEMBERED],
}

/// A call as it is remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remembered {
    /// How many operations of the script were before it.
    pub(crate) step: u32,
    pub(crate) call: u8,
    pub(crate) file: u8,
    pub(crate) number: u32,
    pub(crate) block: u64,
    /// The first 8 bytes of it.
    pub(crate) head: u64,
    /// `None` while the call is under way.
    pub(crate) errno: Option<u16>,
}

impl Ring {
    /// Forgets what another thread did here.
    pub(crate) fn clear(&self) {
        self.next.store(0, Relaxed);
    }

    pub(crate) fn begin(&self, call: &Remembered) {
        let next = self.next.load(Relaxed);
        let entry = &self.entries[next as usize % REMEMBERED];
        let word = u64::from(call.step) | u64::from(call.call) << 32 | u64::from(call.file) << 40;
        entry[0].store(word | 0xffff << 48, Relaxed);
        entry[1].store(call.number.into(), Relaxed);
        entry[2].store(call.block, Relaxed);
        entry[3].store(call.head, Relaxed);
        self.next.store(next + 1, Relaxed);
    }

    pub(crate) fn end(&self, errno: u16) {
        let last = self.next.load(Relaxed).wrapping_sub(1);
        let word = &self.entries[last as usize % REMEMBERED][0];
        let kept = word.load(Relaxed) & 0xffff_ffff_ffff;
        word.store(kept | u64::from(errno) << 48, Relaxed);
    }

    /// Oldest first.
    pub(crate) fn calls(&self) -> Vec<Remembered> {
        let next = self.next.load(Relaxed);
        (next.saturating_sub(REMEMBERED as u64)..next)
            .map(|at| {
                let words = self.entries[at as usize % REMEMBERED].each_ref();
                let [word, number, block, head] = words.map(|word| word.load(Relaxed));
                let errno = (word >> 48) as u16;
                Remembered {
                    step: word as u32,
                    call: (word >> 32) as u8,
                    file: (word >> 40) as u8,
                    number: number as u32,
                    block,
                    head,
                    errno: (errno != 0xffff).then_some(errno),
                }
            })
            .collect()
    }
}

impl Board {
    /// Makes the file of a new board.
    pub(crate) fn make(path: &Path) -> io::Result<&'static Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(size_of::<Self>().next_multiple_of(4096) as u64)?;
        sys::board(&file)
    }

    /// The board of the run that this process is a part of.
    pub(crate) fn open(path: &Path) -> io::Result<&'static Self> {
        sys::board(&File::options().read(true).write(true).open(path)?)
    }

    /// Counts a call.
    pub(crate) fn count(&self, call: usize, errno: usize) {
        self.calls.fetch_add(1, Relaxed);
        self.counts[call.min(STRANGE)][errno.min(ERRNOS - 1)].fetch_add(1, Relaxed);
    }

    pub(crate) fn counted(&self, call: usize, errno: usize) -> u64 {
        self.counts[call][errno].load(Relaxed)
    }

    /// Notes a grant in place of the oldest one.
    pub(crate) fn grant(&self, lender: u64, grant: u64) {
        let at = self.granted.fetch_add(1, Relaxed) as usize % self.grants.len();
        self.lenders[at].store(lender, Relaxed);
        self.grants[at].store(grant, Relaxed);
    }

    pub(crate) fn note(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn noted(&self, event: Event) -> u64 {
        self.events[event as usize].load(Relaxed)
    }

    /// Forgets the tally of the warm-up.
    pub(crate) fn forget(&self) {
        self.calls.store(0, Relaxed);
        self.counts.iter().flatten().chain(&self.events).for_each(|count| count.store(0, Relaxed));
    }
}
