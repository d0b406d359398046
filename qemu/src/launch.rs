// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts QEMU so that it dies with us, however we die.
//!
//! The kernel can kill a process when its parent ends, but only the process itself can ask for that. So a *launcher*, a
//! process of a program of ours, asks and then becomes QEMU, keeping its process id.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{getppid, set_parent_process_death_signal, Pid, Signal};

/// Stands for the parent's process id in [`crate::Options::launcher`].
pub const PARENT: &str = "{parent}";

/// Becomes `command`, to be killed when `parent` ends. Returns only if that fails.
///
/// Strictly it is the *thread* of the parent that started the launcher whose end kills; see [`crate::cluster`].
pub fn become_child_of(parent: u32, command: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // Had the parent died before the line above, nobody would ever kill us.
    if getppid().map(Pid::as_raw_pid) != i32::try_from(parent).ok() {
        return io::Error::other("the process that wanted it has already ended");
    }
    match command.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => io::Error::other("no command to start"),
    }
}
