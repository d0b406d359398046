// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thread: does what its script says. Nothing here allocates or locks, so that the child of a
//! fork can go on with it.

use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use dvk_abi::ioctl::{Exchange, HOW_REQUEST};
use dvk_fuzz::call::{Call, Device, Role, BLOCK_MAX, CALLS};
use dvk_fuzz::program::{Death, Invocation, Op, Opened, FILES};
use rustix::event::{epoll, PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::board::{Event, Remembered, Ring, STRANGE};
use super::process::Process;
use super::sys;

/// A thread, or the child of one.
pub(crate) struct Thread<'p> {
    process: &'p Process,
    index: usize,
    /// Where it asks for an allocation to fail; not every kernel has it.
    starve: Option<File>,
    /// Something is to fail in the next call.
    starved: bool,
    step: u32,
    forked: bool,
    /// Bit `n`: the last call of file `n` found it without an endpoint.
    lost: u8,
    /// The last call brought a request.
    asked: bool,
    /// Operations that are still to be left out.
    skipped: u8,
}

impl<'p> Thread<'p> {
    /// The thread that calls this is number `index`.
    pub(crate) fn new(process: &'p Process, index: usize) -> Self {
        let starve = File::options().read(true).write(true).open("/proc/thread-self/fail-nth");
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        process.tids[index].store(tid, Relaxed);
        Self {
            process,
            index,
            starve: starve.ok(),
            starved: false,
            step: 0,
            forked: false,
            lost: 0,
            asked: false,
            skipped: 0,
        }
    }

    /// Does all of a script, or other operations.
    pub(crate) fn run(&mut self, ops: impl IntoIterator<Item = Op>) {
        for op in ops {
            self.step += 1;
            if !self.forked {
                self.process.steps[self.index].store(self.step, Relaxed);
            }
            if self.skipped > 0 {
                self.skipped -= 1;
                continue;
            }
            self.act(&op);
        }
    }

    fn ring(&self) -> &'static Ring {
        &self.process.board.rings[self.process.place][self.index]
    }

    fn act(&mut self, op: &Op) {
        let board = self.process.board;
        match *op {
            Op::Call(ref invocation) => self.call(invocation),
            Op::Open { file, device } => {
                board.note(Event::Opened);
                if let Ok(opened) = open(device) {
                    // Somebody else's file is replaced at most.
                    let _ = sys::duplicate(opened, file);
                }
            }
            Op::IfLost { file, ops } => {
                if self.lost & 1 << file == 0 {
                    self.skipped = ops;
                }
            }
            Op::IfAsked { ops } => {
                if !self.asked {
                    self.skipped = ops;
                }
            }
            Op::Close { file } => {
                board.note(Event::Closed);
                sys::close(file);
            }
            Op::Duplicate { from, to } => {
                board.note(Event::Closed);
                let from = from % FILES;
                if from != to && sys::duplicate(sys::file(from), to).is_ok() {
                    let endpoint = self.process.endpoints[usize::from(from)].load(Relaxed);
                    self.process.endpoints[usize::from(to)].store(endpoint, Relaxed);
                }
            }
            Op::Poll { files, timeout_ms } => {
                board.note(Event::Polled);
                let flags = PollFlags::IN | PollFlags::OUT | PollFlags::HUP;
                let all = [0, 1, 2, 3, 4, 5, 6, 7];
                let mut polled = all.map(|file| {
                    let file = if files & 1 << file != 0 { file } else { 0 };
                    PollFd::from_borrowed_fd(sys::file(file), flags)
                });
                // That a file is closed is as good an answer as any.
                let _ = rustix::event::poll(&mut polled, Some(&milliseconds(timeout_ms)));
            }
            Op::Epoll { file, timeout_ms } => {
                board.note(Event::Polled);
                // As for poll.
                let _ = watch(file, timeout_ms);
            }
            Op::Map { page, pages, mapping } => {
                board.note(Event::Mapped);
                self.process.remap(page, pages, mapping);
            }
            Op::Scribble { thread, offset, value } => {
                let page = self.process.page(usize::from(thread));
                if let Some(byte) = page.get(usize::from(offset)) {
                    byte.store(value, Relaxed);
                }
            }
            Op::Signal { thread } => {
                board.note(Event::Signalled);
                interrupt(self.process, usize::from(thread));
            }
            Op::Pause { us } => {
                let time = Timespec { tv_sec: 0, tv_nsec: i64::from(us) * 1_000 };
                // A signal ends it early.
                let _ = rustix::thread::nanosleep(&time);
            }
            Op::Fork { seed, calls } => {
                if self.forked {
                    return;
                }
                board.note(Event::Forked);
                let child = self.process.program.child(self.index, seed, calls);
                // Where there are too many processes there is one less.
                let _ = sys::fork(|| {
                    // It is to end with the thread that made it.
                    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                    self.forked = true;
                    self.starve = None;
                    self.run(child);
                });
            }
            Op::Starve { nth } => {
                if let Some(starve) = &self.starve {
                    board.note(Event::Starved);
                    // A signal whose frame cannot be written kills the process, and that would be
                    // taken for memory that the kernel has spoilt.
                    sys::hold_signal(Signal::USR1, true);
                    self.starved = true;
                    // Decimal digits, without a formatter that may allocate.
                    let digit = [b'0' + nth % 10];
                    let _ = starve.write_at(&digit, 0);
                }
            }
            Op::Die(death) => {
                board.note(Event::Died);
                match death {
                    Death::Exits => {}
                    Death::Killed => {
                        let oneself = rustix::process::getpid();
                        // It succeeds, and what follows is not reached.
                        let _ = rustix::process::kill_process(oneself, Signal::KILL);
                    }
                    Death::Replaced => {
                        // One that is on its way would find no handler in the new program.
                        sys::hold_signal(Signal::USR1, true);
                        sys::become_nothing();
                    }
                }
                sys::end();
            }
        }
    }

    fn call(&mut self, invocation: &Invocation) {
        let call = &CALLS[usize::from(invocation.call)];
        let mut bytes = [0; BLOCK_MAX];
        for (field, value) in call.fields.iter().zip(invocation.values) {
            let place = &mut bytes[field.offset..field.offset + field.size];
            self.process.write(self.index, value, place);
        }
        let (address, filled) = self.process.block(self.index, invocation.block, call.size as u64);
        let page = self.process.page(self.index);
        if filled > 0 {
            let at = self.process.offset(self.index, address);
            for (byte, value) in page[at..].iter().zip(&bytes[..filled as usize]) {
                byte.store(*value, Relaxed);
            }
        }
        if !self.forked {
            let head = bytes.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
            self.ring().begin(&Remembered {
                step: self.step,
                call: invocation.call,
                file: invocation.file,
                number: invocation.number,
                block: address,
                head,
                errno: None,
            });
        }
        let result = sys::call(invocation.file, invocation.number, address);
        if let (Some(starve), true) = (&self.starve, self.starved) {
            // What was asked to fail and was not reached must not fail later. If it is this very
            // access that fails, that was it.
            let _ = starve.write_at(b"0", 0);
            sys::hold_signal(Signal::USR1, false);
            self.starved = false;
        }
        let errno = result.err().map_or(0, |errno| errno.raw_os_error());
        let known = invocation.number == call.number;
        if known && call.device == Device::Container {
            let bit = 1 << (invocation.file % FILES);
            let lost = match result {
                // Or there is no link to the peer.
                Err(Errno::NOTCONN) => is_hung_up(invocation.file),
                Err(Errno::NODEV | Errno::BADF | Errno::NOTTY) => true,
                _ => false,
            };
            self.lost = if lost { self.lost | bit } else { self.lost & !bit };
        }
        let kind = if known { usize::from(invocation.call) } else { STRANGE };
        self.process.board.count(kind, errno as usize);
        if !self.forked {
            self.ring().end(errno as u16);
        }
        self.asked = false;
        if result.is_ok() && known && filled == call.size as u64 && filled > 0 {
            let at = self.process.offset(self.index, address);
            for (byte, value) in bytes[..call.size].iter_mut().zip(&page[at..]) {
                *byte = value.load(Relaxed);
            }
            self.learn(call, invocation.file, &bytes);
        }
    }

    /// Notes what the kernel gave.
    fn learn(&mut self, call: &Call, file: u8, block: &[u8; BLOCK_MAX]) {
        for field in call.fields {
            let bytes = &block[field.offset..];
            let number = || bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            match field.role {
                Role::MadeEndpoint => self.process.bound(file, number()),
                Role::MadeGrant => self.process.granted(file, number()),
                // A message begins with its source.
                Role::Bytes if field.offset == 0 => {
                    self.process.sources[self.index].store(number(), Relaxed);
                    let how = &block[offset_of!(Exchange, how)..];
                    self.asked = how.first_chunk() == Some(&HOW_REQUEST.to_le_bytes());
                }
                _ => {}
            }
        }
    }
}

/// Sends the caught signal to a thread of this process.
pub(crate) fn interrupt(process: &Process, thread: usize) {
    let tid = process.tids.get(thread).map_or(0, |tid| tid.load(Relaxed));
    if let Some(tid) = Pid::from_raw(tid) {
        sys::signal(tid, Signal::USR1);
    }
}

fn open(device: Opened) -> rustix::io::Result<OwnedFd> {
    const CONTAINERS: [&core::ffi::CStr; 5] =
        [c"/dev/dvk-dc0", c"/dev/dvk-dc1", c"/dev/dvk-dc2", c"/dev/dvk-dc3", c"/dev/dvk-dc4"];
    let path = match device {
        Opened::Control => c"/dev/dvk",
        Opened::Container(number) => CONTAINERS[number as usize % CONTAINERS.len()],
        Opened::Null => c"/dev/null",
    };
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Whether a file is one of a container and has no endpoint.
fn is_hung_up(file: u8) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(sys::file(file), PollFlags::IN)];
    let asked = rustix::event::poll(&mut polled, Some(&milliseconds(0)));
    asked.is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

fn milliseconds(ms: u8) -> Timespec {
    Timespec { tv_sec: 0, tv_nsec: i64::from(ms) * 1_000_000 }
}

fn watch(file: u8, timeout_ms: u8) -> rustix::io::Result<()> {
    let instance = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
    epoll::add(&instance, sys::file(file), epoll::EventData::new_u64(0), flags)?;
    let mut events =
        [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
    epoll::wait(&instance, events.as_mut_slice(), Some(&milliseconds(timeout_ms)))?;
    Ok(())
}
