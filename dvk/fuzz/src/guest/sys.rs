// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the fuzzer does to its own process that the compiler cannot follow.
//!
//! What makes it sound is that everything the kernel may be told to read, write, map or close here
//! is set aside for it: the addresses of [`WINDOW`], where nothing of Rust's ever is, and the file
//! descriptors from [`FIRST_FILE`] on, which nothing else owns.

use core::ffi::c_void;
use core::sync::atomic::AtomicU8;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use rustix::process::{Pid, Signal};

use super::board::Board;

/// The addresses that are the fuzzer's: far below those that Linux gives to programs, stacks and
/// anonymous memory, which come from the top, and far above the first ones.
pub(crate) const WINDOW: core::ops::Range<u64> = 0x1000_0000_0000..0x4000_0000_0000;
/// The last page of user space, which is the fuzzer's if it could have it.
const LAST_PAGE: u64 = 0x7fff_ffff_e000;
const PAGE_BYTES: usize = 4096;
/// The first file descriptor of the fuzzer's. The library and Rust take the lowest free ones, and
/// there are never so many.
const FIRST_FILE: i32 = 100;

/// How memory is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    None,
    Read,
    ReadWrite,
}

impl Access {
    fn map(self) -> ProtFlags {
        match self {
            Self::None => ProtFlags::empty(),
            Self::Read => ProtFlags::READ,
            Self::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        }
    }

    fn protect(self) -> MprotectFlags {
        match self {
            Self::None => MprotectFlags::empty(),
            Self::Read => MprotectFlags::READ,
            Self::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
        }
    }
}

fn pointer(address: u64) -> *mut c_void {
    core::ptr::with_exposed_provenance_mut(address as usize)
}

/// Whether the bytes are in [`WINDOW`].
fn assert_ours(address: u64, bytes: usize) {
    let end = address.checked_add(bytes as u64);
    assert!(WINDOW.contains(&address) && end.is_some_and(|end| end <= WINDOW.end));
}

/// Maps new memory in place of what was there.
pub(crate) fn map_anonymous(address: u64, bytes: usize, access: Access) -> Result<()> {
    assert_ours(address, bytes);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: the addresses are the fuzzer's, so that what is replaced is nobody's.
    unsafe { rustix::mm::mmap_anonymous(pointer(address), bytes, access.map(), flags) }.map(drop)
}

/// Maps the beginning of `file` in place of what was there.
pub(crate) fn map_file(
    address: u64,
    bytes: usize,
    access: Access,
    shared: bool,
    file: impl AsFd,
) -> Result<()> {
    assert_ours(address, bytes);
    let flags = if shared { MapFlags::SHARED } else { MapFlags::PRIVATE } | MapFlags::FIXED;
    // SAFETY: the addresses are the fuzzer's, so that what is replaced is nobody's.
    unsafe { rustix::mm::mmap(pointer(address), bytes, access.map(), flags, file, 0) }.map(drop)
}

/// Takes the last page of user space, if nothing is there.
pub(crate) fn map_last_page() -> bool {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: nothing is replaced.
    let mapped = unsafe {
        rustix::mm::mmap_anonymous(pointer(LAST_PAGE), PAGE_BYTES, Access::ReadWrite.map(), flags)
    };
    mapped.is_ok_and(|at| at == pointer(LAST_PAGE))
}

/// Makes a hole.
pub(crate) fn unmap(address: u64, bytes: usize) -> Result<()> {
    assert_ours(address, bytes);
    // SAFETY: the addresses are the fuzzer's, and nothing refers to them; see `bytes_at`.
    unsafe { rustix::mm::munmap(pointer(address), bytes) }
}

/// Changes what may be done with memory.
pub(crate) fn protect(address: u64, bytes: usize, access: Access) -> Result<()> {
    assert_ours(address, bytes);
    // SAFETY: as for `unmap`.
    unsafe { rustix::mm::mprotect(pointer(address), bytes, access.protect()) }
}

/// Drops the content of memory.
pub(crate) fn discard(address: u64, bytes: usize) -> Result<()> {
    assert_ours(address, bytes);
    // SAFETY: as for `unmap`; what is there afterwards is zero, or the file's.
    unsafe { rustix::mm::madvise(pointer(address), bytes, Advice::LinuxDontNeed) }
}

/// New memory at a page that has never been mapped and never is unmapped, protected or replaced.
pub(crate) fn bytes_at(address: u64, bytes: usize) -> Result<&'static [AtomicU8]> {
    assert_ours(address, bytes);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
    let prot = Access::ReadWrite.map();
    // SAFETY: nothing is replaced.
    let at = unsafe { rustix::mm::mmap_anonymous(pointer(address), bytes, prot, flags) }?;
    // SAFETY: the memory is there for as long as the process, as this function's callers keep the
    // promise in its first line; zero is an atomic byte, and who else writes it is the kernel, in
    // single bytes or more as it does to any memory shared with it.
    Ok(unsafe { core::slice::from_raw_parts(at.cast_const().cast(), bytes) })
}

/// The board in `file`, which is long enough for it.
pub(crate) fn board(file: &std::fs::File) -> std::io::Result<&'static Board> {
    let bytes = size_of::<Board>();
    assert!(file.metadata()?.len() >= bytes as u64, "the file of the board is too short");
    let flags = MapFlags::SHARED;
    let prot = Access::ReadWrite.map();
    // SAFETY: the kernel chooses where nothing is.
    let at = unsafe { rustix::mm::mmap(core::ptr::null_mut(), bytes, prot, flags, file, 0) }?;
    // SAFETY: a page is aligned for it, it is never unmapped, the file is never shortened, and it
    // consists of atomic integers, of which every bit pattern is a value.
    Ok(unsafe { &*at.cast_const().cast() })
}

/// File number `file` of the fuzzer's.
fn borrowed(file: u8) -> BorrowedFd<'static> {
    // SAFETY: the descriptor is the fuzzer's and not -1. It may be closed at any time; then its
    // number names nothing, or another file of the fuzzer's.
    unsafe { BorrowedFd::borrow_raw(FIRST_FILE + i32::from(file)) }
}

/// Lends file number `file` to something that looks at it.
pub(crate) fn file(file: u8) -> BorrowedFd<'static> {
    borrowed(file)
}

/// Makes file number `file` the same as `from`, in place of what it was.
pub(crate) fn duplicate(from: impl AsFd, file: u8) -> Result<()> {
    // SAFETY: the descriptor is the fuzzer's, and nobody closes it on dropping.
    let target = unsafe { OwnedFd::from_raw_fd(FIRST_FILE + i32::from(file)) };
    let mut target = ManuallyDrop::new(target);
    rustix::io::dup3(from, &mut target, rustix::io::DupFlags::CLOEXEC)
}

/// Closes file number `file`, whoever uses it.
pub(crate) fn close(file: u8) {
    // SAFETY: the descriptor is the fuzzer's; that there is none is no harm.
    unsafe { rustix::io::close(FIRST_FILE + i32::from(file)) };
}

/// An ioctl with any argument.
struct Request {
    opcode: Opcode,
    argument: *mut c_void,
}

// SAFETY: `output_from_ptr` looks at nothing; what the kernel does to the argument is for who makes
// a `Request` to say.
unsafe impl Ioctl for Request {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<()> {
        Ok(())
    }
}

/// An ioctl of file number `file`, with any number and argument.
///
/// The argument, and every address in the block there, is in [`WINDOW`], in the last page of user
/// space, or where no memory of a process can be.
pub(crate) fn call(file: u8, number: u32, argument: u64) -> Result<()> {
    let request = Request { opcode: number, argument: pointer(argument) };
    // SAFETY: files of the fuzzer's are DVK devices or `/dev/null`, which read and write at the
    // argument and at addresses in the block: memory of the fuzzer's or none, by the promise above.
    unsafe { rustix::ioctl::ioctl(borrowed(file), request) }
}

/// Makes the open file of `/dev/net/tun` the Ethernet interface `name`.
pub(crate) fn become_interface(tun: impl AsFd, name: &str) -> Result<()> {
    const TUNSETIFF: Opcode = 0x4004_54ca;
    const TAP_WITHOUT_HEADER: u16 = 0x1002;
    // `struct ifreq`: a name of at most 15 bytes and a zero, and the flags.
    let mut request = [0u8; 40];
    let name = name.as_bytes();
    if name.len() > 15 {
        return Err(Errno::NAMETOOLONG);
    }
    request[..name.len()].copy_from_slice(name);
    request[16..18].copy_from_slice(&TAP_WITHOUT_HEADER.to_ne_bytes());
    let request = Request { opcode: TUNSETIFF, argument: request.as_mut_ptr().cast() };
    // SAFETY: the call reads and writes a `struct ifreq`, whose 40 bytes are there.
    unsafe { rustix::ioctl::ioctl(tun, request) }
}

/// Forks; the child does `what` and ends. `what` makes system calls and uses atomic memory; it
/// takes no lock and allocates nothing, since another thread may be in the middle of that.
pub(crate) fn fork(what: impl FnOnce()) -> Result<()> {
    // SAFETY: by the promise above the child does nothing but what is safe after a fork of one of
    // several threads, and it never returns.
    match unsafe { libc::fork() } {
        0 => {
            what();
            end()
        }
        -1 => Err(Errno::AGAIN),
        _ => Ok(()),
    }
}

/// Ends the process with all its threads, whatever they are doing, and without cleaning up.
pub(crate) fn end() -> ! {
    // SAFETY: nothing is touched that could be in use.
    unsafe { libc::_exit(0) }
}

/// Executes this program in the role that does nothing, in place of the process with all its
/// threads. Returns if that fails.
pub(crate) fn become_nothing() {
    let arguments = [c"dvk-fuzz", c"--role", c"nothing"].map(core::ffi::CStr::as_ptr);
    let arguments = [arguments[0], arguments[1], arguments[2], core::ptr::null()];
    let environment = [core::ptr::null()];
    let program = c"/proc/self/exe".as_ptr();
    // SAFETY: the strings end with a zero and the lists with a null pointer. If it succeeds,
    // nothing of this process is there any more; otherwise nothing has changed.
    unsafe { libc::execve(program, arguments.as_ptr(), environment.as_ptr()) };
}

/// Sends a signal to a thread of this process.
pub(crate) fn signal(thread: Pid, signal: Signal) {
    let process = rustix::process::getpid();
    let (process, thread) = (process.as_raw_nonzero().get(), thread.as_raw_nonzero().get());
    // SAFETY: `tgkill` takes three integers. The signal has a handler that sets a flag; a thread
    // that is no more is an error that says so, and of no interest.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal.as_raw()) };
}

/// Keeps the caught signal from this thread, or lets it come again.
pub(crate) fn hold_signal(signal: Signal, held: bool) {
    let how = if held { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    let mut set = core::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` writes the set that the others read, and each is given a set and a
    // signal that exist.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
        libc::pthread_sigmask(how, set.as_ptr(), core::ptr::null_mut());
    }
}
