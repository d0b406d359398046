// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls that no safe library has.

#![allow(unsafe_code)]

use std::ffi::{c_int, CStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{ioctl, opcode, Updater};

/// Loads a kernel with its initial root, to be started instead of a reboot: `kexec_file_load(2)`.
pub(crate) fn kexec_file_load(
    kernel: BorrowedFd<'_>,
    initramfs: BorrowedFd<'_>,
    command_line: &CStr,
) -> io::Result<()> {
    let line = command_line.to_bytes_with_nul();
    let no_flags: libc::c_ulong = 0;
    // SAFETY: the kernel reads two open files, and `line.len()` bytes from `line`, which outlives the call and ends with a zero byte.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initramfs.as_raw_fd(),
            line.len(),
            line.as_ptr(),
            no_flags,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets after how many seconds a watchdog that is not fed restarts the machine; returns what it makes of that: `WDIOC_SETTIMEOUT` of
/// `linux/watchdog.h`.
pub(crate) fn set_watchdog_timeout(watchdog: &File, seconds: c_int) -> io::Result<c_int> {
    const SET_TIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<c_int>(b'W', 6);
    let mut value = seconds;
    // SAFETY: the call reads one `int` and writes one; it is for watchdogs, and other files refuse it.
    unsafe { ioctl(watchdog, Updater::<SET_TIMEOUT, c_int>::new(&mut value)) }?;
    Ok(value)
}
