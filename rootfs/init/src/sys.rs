// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one system call that no safe library has.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
