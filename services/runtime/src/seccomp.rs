// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which system calls a container may make.
//!
//! There are two filters. The first lets through what is known to be harmless in a user namespace; what it does not
//! know, such as calls that are newer than it, fails with `ENOSYS`, upon which programs fall back to older ones. The second
//! makes what is refused on purpose fail with `EPERM`. Of two filters with an error each, the kernel takes the one that was
//! installed last.
//!
//! `ioctl`, by which the DVK is called, is let through whatever its arguments: the kernel remembers calls that a filter allows
//! without looking at arguments, and does not run the filter for them, so an exchange of messages costs no more for being in a
//! container. What would be refused there, putting characters into a terminal's input, takes a capability that no container
//! has.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Names of calls with their numbers on this architecture.
macro_rules! calls {
    ($($name:ident = $number:ident),* $(,)?) => { &[$((stringify!($name), libc::$number)),*] };
}

/// A call: its name and number.
type Call = (&'static str, i64);

mod table;

/// The namespaces that `clone` must not make: a namespace of users in the container would give a program all capabilities in it,
/// and with them more of the kernel's code to attack.
const NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWTIME,
];

/// The kinds of sockets that there may be.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// What `personality` may be told: Linux's own, 32-bit processes under `uname -m`, both of them with or without the oldest layout, and the question.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The number of a call that the profile knows.
pub(crate) fn number(name: &str) -> Option<i64> {
    let calls = table::ALLOWED.iter().chain(table::REFUSED);
    calls.copied().find(|(known, _)| *known == name).map(|(_, number)| number)
}

/// The profile, compiled.
#[derive(Debug)]
pub(crate) struct Profile {
    programs: [BpfProgram; 2],
}

impl Profile {
    /// The profile of every container, which refuses the calls named `also` as well.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub(crate) fn new(also: &[String]) -> Result<Self> {
        let allowed = table::ALLOWED.iter().map(|&(_, number)| (number, Vec::new())).collect();
        let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
            table::REFUSED.iter().map(|&(_, number)| (number, Vec::new())).collect();
        refused.insert(libc::SYS_clone, namespaces()?);
        refused.insert(libc::SYS_personality, vec![none_of(0, &PERSONALITIES)?]);
        let families = FAMILIES.map(|family| family as u64);
        refused.insert(libc::SYS_socketpair, vec![none_of(0, &families)?]);
        refused.insert(libc::SYS_socket, vec![none_of(0, &families)?, netlink_but_routes()?]);
        refused.insert(libc::SYS_mknod, devices(1)?);
        refused.insert(libc::SYS_mknodat, devices(2)?);
        for name in also {
            let number = number(name)
                .with_context(|| format!("refusing the system call {name:?}: it is not known"))?;
            // Without conditions, whatever the profile itself asks.
            refused.insert(number, Vec::new());
        }
        Ok(Self {
            programs: [
                compile(allowed, errno(libc::ENOSYS), SeccompAction::Allow)?,
                compile(refused, SeccompAction::Allow, errno(libc::EPERM))?,
            ],
        })
    }

    /// Puts this thread, and all that it will start, under the profile, and sees to it that it is.
    ///
    /// # Errors
    /// When the kernel refuses, or says that there is no filter.
    pub(crate) fn enter(&self, status: impl Fn() -> Result<String>) -> Result<()> {
        let before = filters(&status()?);
        for program in &self.programs {
            seccompiler::apply_filter(program).context("entering the profile of system calls")?;
        }
        let after = filters(&status()?);
        let wanted = before.map(|count| count + self.programs.len());
        ensure!(
            after.is_some() && after == wanted,
            "entering the profile of system calls: the kernel says that {after:?} filters are in force, and should say {wanted:?}"
        );
        Ok(())
    }
}

/// How many filters the text of `/proc/self/status` says are in force; none if the kernel has no filters at all.
fn filters(status: &str) -> Option<usize> {
    let value = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let count = value("Seccomp_filters")?.parse().ok()?;
    // Mode 2 is that of filters.
    (count == 0 || value("Seccomp") == Some("2")).then_some(count)
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number as u32)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram> {
    SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .context("compiling the profile of system calls")
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .context("compiling a condition on a system call")
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule> {
    SeccompRule::new(conditions).context("compiling a rule on a system call")
}

/// Holds when an argument is none of `values`.
fn none_of(argument: u8, values: &[u64]) -> Result<SeccompRule> {
    let conditions: Result<_> =
        values.iter().map(|&value| condition(argument, SeccompCmpOp::Ne, value)).collect();
    rule(conditions?)
}

/// Hold when `clone` would make a namespace.
fn namespaces() -> Result<Vec<SeccompRule>> {
    let asks_for = |flag: i32| {
        let bit = flag as u32 as u64;
        rule(vec![condition(0, SeccompCmpOp::MaskedEq(bit), bit)?])
    };
    NAMESPACES.into_iter().map(asks_for).collect()
}

/// Hold when a file to be made, whose mode is the argument, is a device.
fn devices(argument: u8) -> Result<Vec<SeccompRule>> {
    let kind = |kind: u32| {
        let mask = SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT));
        rule(vec![condition(argument, mask, u64::from(kind))?])
    };
    [libc::S_IFCHR, libc::S_IFBLK].into_iter().map(kind).collect()
}

/// Holds for netlink sockets that are about something else than addresses, links and routes of the container.
fn netlink_but_routes() -> Result<SeccompRule> {
    rule(vec![
        condition(0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64)?,
        condition(2, SeccompCmpOp::Ne, libc::NETLINK_ROUTE as u64)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_call_is_in_both_tables_or_twice_in_one() {
        let all: Vec<_> = table::ALLOWED.iter().chain(table::REFUSED).collect();
        let numbers: BTreeSet<_> = all.iter().map(|(_, number)| number).collect();
        let names: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
        assert_eq!((numbers.len(), names.len()), (all.len(), all.len()));
    }

    #[test]
    fn the_numbers_are_those_of_the_names() {
        assert_eq!(number("read"), Some(0));
        assert_eq!(number("mount"), Some(165));
        assert_eq!(number("clone3"), None);
    }

    #[test]
    fn what_reaches_the_kernel_or_other_processes_is_refused() {
        let refused: BTreeSet<_> = table::REFUSED.iter().map(|(name, _)| *name).collect();
        for name in [
            "mount",
            "umount2",
            "pivot_root",
            "ptrace",
            "process_vm_readv",
            "bpf",
            "unshare",
            "setns",
            "kexec_load",
            "init_module",
            "finit_module",
            "reboot",
            "keyctl",
            "io_uring_setup",
            "perf_event_open",
            "open_by_handle_at",
            "userfaultfd",
        ] {
            assert!(refused.contains(name), "{name}");
        }
    }

    #[test]
    fn both_filters_fit_into_what_the_kernel_takes() {
        // BPF_MAXINSNS of linux/bpf_common.h.
        for program in Profile::new(&["fchmod".to_owned()]).unwrap().programs {
            assert!(!program.is_empty() && program.len() <= 4096, "{}", program.len());
        }
        assert!(Profile::new(&["no_such_call".to_owned()]).is_err());
    }

    #[test]
    fn filters_are_counted_by_what_the_kernel_says() {
        let status = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";
        assert_eq!(filters(status), Some(2));
        assert_eq!(filters("Seccomp:\t0\nSeccomp_filters:\t0\n"), Some(0));
        assert_eq!(filters("Seccomp:\t0\nSeccomp_filters:\t2\n"), None);
        assert_eq!(filters("Name:\tx\n"), None);
    }

    #[test]
    fn a_profile_that_the_kernel_does_not_show_is_an_error() {
        // Nothing is installed here but what the closure says that the kernel says.
        let profile = Profile { programs: [Vec::new(), Vec::new()] };
        let silent = profile.enter(|| Ok("Seccomp:\t0\nSeccomp_filters:\t0\n".to_owned()));
        assert!(silent.is_err());
    }

    #[test]
    fn a_forbidden_call_fails_and_others_do_not() {
        // A thread of its own, since a filter is there to stay.
        std::thread::spawn(|| {
            let status = || Ok(std::fs::read_to_string("/proc/thread-self/status")?);
            Profile::new(&["getppid".to_owned(), "fchmod".to_owned()])
                .unwrap()
                .enter(status)
                .unwrap();
            let directory = tempfile::tempfile().unwrap();
            let refused = rustix::fs::fchmod(&directory, rustix::fs::Mode::RUSR);
            assert_eq!(refused, Err(rustix::io::Errno::PERM));
            let refused = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS);
            assert_eq!(refused, Err(nix::errno::Errno::EPERM));
            assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
            let packet = rustix::net::socket(
                rustix::net::AddressFamily::PACKET,
                rustix::net::SocketType::DGRAM,
                None,
            );
            assert_eq!(packet.unwrap_err(), rustix::io::Errno::PERM);
            assert!(std::thread::spawn(|| {}).join().is_ok());
        })
        .join()
        .unwrap();
    }
}
