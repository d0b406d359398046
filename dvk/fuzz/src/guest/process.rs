// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process of the fuzzer: its memory, its files, what it knows, and how names become values.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};
use std::fs::File;

use anyhow::{Context, Result};
use dvk_fuzz::grammar::Program;
use dvk_fuzz::program::{
    lease_slot, Block, Lent, Mapping, Place, Somebody, Value, FILES, GENERATION, THREADS_MAX,
};

use super::board::Board;
use super::sys::{self, Access, WINDOW};

pub(crate) const PAGE: u64 = 4096;
/// Of each thread, four pages from here on: its block, a hole, a page to read only, a hole.
const BLOCKS: u64 = WINDOW.start + 0x1000_0000;
/// The pages that are lent and copied.
const PAGES_AT: u64 = WINDOW.start + 0x2000_0000;
const PAGES: u64 = 64;
/// Memory that all processes share.
const SHARED_AT: u64 = WINDOW.start + 0x3000_0000;
pub(crate) const SHARED_BYTES: usize = 16 * PAGE as usize;
/// A page of a file.
const FILE_AT: u64 = WINDOW.start + 0x4000_0000;
const HOLE: u64 = WINDOW.start + 0x5000_0000;

/// What the threads of a process share.
pub(crate) struct Process {
    pub(crate) program: Program,
    pub(crate) board: &'static Board,
    /// Its place on the board.
    pub(crate) place: usize,
    blocks: [&'static [AtomicU8]; THREADS_MAX],
    shared: File,
    /// The first byte that a block at the end of user space has.
    end_of_user: u64,
    pub(crate) endpoints: [AtomicU64; FILES as usize],
    pub(crate) formers: [AtomicU64; FILES as usize],
    pub(crate) sources: [AtomicU64; THREADS_MAX],
    pub(crate) grants: [AtomicU64; FILES as usize],
    /// Who the threads are, and how far they have come.
    pub(crate) tids: [AtomicI32; THREADS_MAX],
    pub(crate) steps: [AtomicU32; THREADS_MAX],
    pub(crate) running: AtomicU32,
}

impl Process {
    pub(crate) fn new(
        program: Program,
        board: &'static Board,
        place: usize,
        shared: File,
    ) -> Result<Self> {
        let mut blocks: [&'static [AtomicU8]; THREADS_MAX] = [&[]; THREADS_MAX];
        for (thread, block) in blocks.iter_mut().enumerate().take(program.threads) {
            let at = BLOCKS + 4 * PAGE * thread as u64;
            *block = sys::bytes_at(at, PAGE as usize).context("mapping a page for blocks")?;
            sys::map_anonymous(at + 2 * PAGE, PAGE as usize, Access::Read)
                .context("mapping a page to read only")?;
        }
        sys::map_anonymous(PAGES_AT, (PAGES * PAGE) as usize, Access::ReadWrite)
            .context("mapping pages")?;
        sys::map_file(SHARED_AT, SHARED_BYTES, Access::ReadWrite, true, &shared)
            .context("mapping shared memory")?;
        let program_file = File::open("/proc/self/exe").context("opening this program")?;
        sys::map_file(FILE_AT, PAGE as usize, Access::Read, false, &program_file)
            .context("mapping a file")?;
        let end_of_user = if sys::map_last_page() { 0x7fff_ffff_efc0 } else { 0x7fff_ffff_f000 };
        Ok(Self {
            running: AtomicU32::new(program.threads as u32),
            program,
            board,
            place,
            blocks,
            shared,
            end_of_user,
            endpoints: Default::default(),
            formers: Default::default(),
            sources: Default::default(),
            grants: Default::default(),
            tids: Default::default(),
            steps: Default::default(),
        })
    }

    /// The page in which a thread has its blocks.
    pub(crate) fn page(&self, thread: usize) -> &'static [AtomicU8] {
        self.blocks[thread]
    }

    /// Where a block of so many bytes is, and how many of them the thread can fill.
    pub(crate) fn block(&self, thread: usize, block: Block, bytes: u64) -> (u64, u64) {
        let page = BLOCKS + 4 * PAGE * thread as u64;
        match block {
            Block::Proper => (page, bytes),
            Block::Misaligned => (page + 1021, bytes),
            Block::AtEnd => (page + PAGE - bytes, bytes),
            Block::Cut(kept) => {
                let kept = u64::from(kept).min(bytes);
                (page + PAGE - kept, kept)
            }
            Block::ReadOnly => (page + 2 * PAGE, 0),
            Block::At(place) => (self.address(thread, place), 0),
        }
    }

    /// The offset of an address in the page in which a thread has its blocks.
    pub(crate) fn offset(&self, thread: usize, address: u64) -> usize {
        (address - (BLOCKS + 4 * PAGE * thread as u64)) as usize
    }

    fn address(&self, thread: usize, place: Place) -> u64 {
        match place {
            Place::Page(bytes) => PAGES_AT + u64::from(bytes),
            Place::Shared(bytes) => SHARED_AT + u64::from(bytes),
            Place::OwnBlock => BLOCKS + 4 * PAGE * thread as u64 + 32,
            Place::File => FILE_AT,
            Place::Hole => HOLE,
            Place::Null => 0,
            Place::EndOfUser => self.end_of_user,
            Place::NonCanonical => 0x0000_8000_0000_0000,
            Place::Kernel => 0xffff_8880_0000_0000,
            Place::Last => u64::MAX,
        }
    }

    fn somebody(&self, thread: usize, somebody: Somebody) -> u64 {
        match self.known(thread, somebody) {
            // Nobody is known by that name yet.
            0 => self.endpoints[0].load(Relaxed),
            known => known,
        }
    }

    fn known(&self, thread: usize, somebody: Somebody) -> u64 {
        let file = |file: u8| self.endpoints[usize::from(file % FILES)].load(Relaxed);
        match somebody {
            Somebody::File(which) => file(which),
            Somebody::Former(which) => self.formers[usize::from(which % FILES)].load(Relaxed),
            Somebody::Source => self.sources[thread].load(Relaxed),
            Somebody::Stranger(nth) => self.board.endpoints[usize::from(nth) % 16].load(Relaxed),
            Somebody::Lender(nth) => self.board.lenders[usize::from(nth) % 16].load(Relaxed),
            Somebody::Server(slot) => {
                let servers = &self.board.servers[self.program.home as usize];
                servers[usize::from(slot) % servers.len()].load(Relaxed)
            }
            Somebody::Remote { node, nth, generation } => {
                let slot = lease_slot(node.into()) + u32::from(nth);
                u64::from(GENERATION + u32::from(generation)) << 32 | u64::from(slot)
            }
            Somebody::Forged { file: which, off } => {
                file(which).wrapping_add_signed(i64::from(off) << 32)
            }
        }
    }

    /// Writes what stands in a field, which is as long as `out`.
    pub(crate) fn write(&self, thread: usize, value: Value, out: &mut [u8]) {
        let number = match value {
            Value::Number(number) => number,
            Value::Somebody(somebody) => self.somebody(thread, somebody),
            Value::Place(place) => self.address(thread, place),
            Value::Lent(Lent::Mine(file)) => self.grants[usize::from(file % FILES)].load(Relaxed),
            Value::Lent(Lent::Theirs(nth)) => {
                self.board.grants[usize::from(nth) % 16].load(Relaxed)
            }
            Value::Incarnation(more) => {
                u64::from(self.board.incarnation.load(Relaxed)) + u64::from(more)
            }
            Value::Interface(nth) => {
                let interfaces = &self.board.interfaces;
                interfaces[usize::from(nth) % interfaces.len()].load(Relaxed).into()
            }
            Value::Mac(node) => u64::from_le_bytes([2, 0, 0, 0, 0, node, 0, 0]),
            Value::Bytes(seed) => {
                let mut rng = dvk_fuzz::rng::Rng::new(seed);
                out.chunks_mut(8).for_each(|chunk| {
                    chunk.copy_from_slice(&rng.draw().to_le_bytes()[..chunk.len()]);
                });
                return;
            }
        };
        let bytes = number.to_le_bytes();
        let len = out.len().min(8);
        out[..len].copy_from_slice(&bytes[..len]);
    }

    /// Changes how pages are mapped. That the kernel refuses is no harm.
    pub(crate) fn remap(&self, page: u8, pages: u8, mapping: Mapping) {
        let first = u64::from(page) % PAGES;
        let bytes = (u64::from(pages).min(PAGES - first) * PAGE) as usize;
        let at = PAGES_AT + first * PAGE;
        let _ = match mapping {
            Mapping::Fresh => sys::map_anonymous(at, bytes, Access::ReadWrite),
            Mapping::Shared => {
                sys::map_file(at, bytes.min(SHARED_BYTES), Access::ReadWrite, true, &self.shared)
            }
            Mapping::ReadOnly => sys::protect(at, bytes, Access::Read),
            Mapping::ReadWrite => sys::protect(at, bytes, Access::ReadWrite),
            Mapping::NoAccess => sys::protect(at, bytes, Access::None),
            Mapping::Unmapped => sys::unmap(at, bytes),
            Mapping::Discarded => sys::discard(at, bytes),
        };
    }

    /// Notes the endpoint that a file became.
    pub(crate) fn bound(&self, file: u8, endpoint: u64) {
        let file = usize::from(file % FILES);
        let former = self.endpoints[file].swap(endpoint, Relaxed);
        self.formers[file].store(former, Relaxed);
        self.board.endpoints[(self.place * 5 + file) % 16].store(endpoint, Relaxed);
        let slot = (endpoint & 0xffff_ffff) as usize;
        if let Some(server) = self.board.servers[self.program.home as usize].get(slot) {
            server.store(endpoint, Relaxed);
        }
    }

    /// Notes a grant of a file.
    pub(crate) fn granted(&self, file: u8, grant: u64) {
        let file = usize::from(file % FILES);
        self.grants[file].store(grant, Relaxed);
        self.board.grant(self.endpoints[file].load(Relaxed), grant);
    }
}
