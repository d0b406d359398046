// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel settings: host name, sysctls, random numbers.

use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use rustix::io::Errno;
use rustix::rand::{getrandom, GetRandomFlags};

use crate::fault::Fault;

/// Sysctls by path below `/proc/sys`, and their values.
const SYSCTLS: [(&str, &str); 6] = [
    // Seconds from a kernel panic to the reboot; the end of PID 1 is one.
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    // Nobody reads core files on a node, and they would fill its memory.
    ("kernel/core_pattern", ""),
    // A cluster segment has no routers; addresses beyond the link-local one come from us.
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    // A link-local address made from the MAC is as unique as the MAC. Without the second or so of
    // duplicate address detection it is usable the moment the interface is up.
    ("net/ipv6/conf/default/accept_dad", "0"),
];

/// How long to wait for the kernel's random number generator.
const ENTROPY_PATIENCE: Duration = Duration::from_secs(5);

/// Writes a sysctl given by its path below `/proc/sys`.
pub(crate) fn write_sysctl(path: &str, value: &str) -> Result<(), Fault> {
    let file = format!("/proc/sys/{path}");
    // The line end makes a write of an empty value, too, a write.
    fs::write(&file, format!("{value}\n"))
        .map_err(Fault::when(format!("write `{value}` to {file}")))
}

/// Applies every setting that needs no configuration; returns what failed.
pub(crate) fn apply(command_line: &str) -> Vec<Fault> {
    let mut faults: Vec<_> =
        SYSCTLS.iter().filter_map(|(path, value)| write_sysctl(path, value).err()).collect();
    if !wants_kernel_messages(command_line) {
        // Errors and worse: the console is for the banner.
        faults.extend(write_sysctl("kernel/printk", "4").err());
    }
    faults
}

/// Whether the kernel command line sets how much the kernel says on the console.
fn wants_kernel_messages(command_line: &str) -> bool {
    command_line
        .split_ascii_whitespace()
        .any(|word| matches!(word, "debug" | "ignore_loglevel") || word.starts_with("loglevel="))
}

/// Sets the host name.
pub(crate) fn set_host_name(name: &str) -> Result<(), Fault> {
    rustix::system::sethostname(name.as_bytes())
        .map_err(Fault::when(format!("set the host name to `{name}`")))
}

/// Whether random numbers can be had now or within a few seconds.
///
/// Seeds come from the processor, virtio-rng or timing jitter by the kernel's own doing; a caller of
/// `getrandom` makes it collect the latter. It waits in a thread of its own, so that a machine
/// without any source still boots; what needs random numbers there waits by itself.
pub(crate) fn await_entropy() -> bool {
    let ready = |flags| getrandom(&mut [0_u8; 1][..], flags);
    if ready(GetRandomFlags::NONBLOCK) != Err(Errno::AGAIN) {
        return true;
    }
    let (done, wait) = mpsc::channel();
    let waiter = thread::Builder::new().stack_size(64 << 10).spawn(move || {
        // Interrupted by a signal: ask again.
        while ready(GetRandomFlags::empty()) == Err(Errno::INTR) {}
        // The receiver may have lost patience.
        let _ = done.send(());
    });
    waiter.is_ok() && wait.recv_timeout(ENTROPY_PATIENCE).is_ok()
}

#[cfg(test)]
mod tests {
    use super::wants_kernel_messages;

    #[test]
    fn the_command_line_decides_about_kernel_messages() {
        assert!(!wants_kernel_messages("console=ttyS0 quiet\n"));
        assert!(wants_kernel_messages("quiet loglevel=7"));
        assert!(wants_kernel_messages("debug\n"));
    }
}
