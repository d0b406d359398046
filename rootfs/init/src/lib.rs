// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod boot;
mod console;
mod fault;
mod init;
mod interfaces;
mod mounts;
mod netlink;
mod network;
mod power_button;
mod processes;
mod root;
mod service_log;
mod settings;
mod shutdown;
mod sources;
mod stacked;
mod status;
mod supervisor;
mod sys;
mod terminals;
mod trial;
mod volumes;
mod watchdog;

use std::convert::Infallible;
use std::env;
use std::os::unix::process::CommandExt;
use std::panic::{self, PanicHookInfo};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use rustix::system::RebootCommand;

use crate::fault::Fault;

/// How long the message of a panic stays on the console before the machine reboots.
const PANIC_PAUSE: Duration = Duration::from_secs(10);
/// Where the root has PID 1.
const PROGRAM: &str = "/usr/libexec/dvs/dvs-init";

/// The program `dvs-init`, PID 1 in the root of a node: runs the machine until it ends.
pub fn main() -> ExitCode {
    as_first_process(|| init::run(boot::boot()))
}

/// The program `dvs-root`, which the kernel starts: makes the root of the node the root, and becomes PID 1 of that.
pub fn enter_root() -> ExitCode {
    as_first_process(|| {
        mounts::mount_devices()?;
        root::enter()?;
        let error = Command::new(PROGRAM).args(env::args_os().skip(1)).exec();
        Err(Fault::when(format!("start {PROGRAM} of the root"))(error))
    })
}

fn as_first_process(run: impl FnOnce() -> Result<Infallible, Fault>) -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("error: this is the first process of a node; it does nothing elsewhere");
        return ExitCode::FAILURE;
    }
    panic::set_hook(Box::new(reboot_after));
    match run() {
        Err(fault) => panic!("{fault}"),
    }
}

/// Says what happened and reboots. A machine without PID 1 is of no use to the cluster, and a
/// rebooted one rejoins it. Should even this fail, PID 1 ends, the kernel panics, and reboots by
/// the sysctl `kernel.panic`.
fn reboot_after(panic: &PanicHookInfo<'_>) {
    eprintln!("dvs: PID 1 failed: {panic}\ndvs: rebooting in {} s", PANIC_PAUSE.as_secs());
    rustix::fs::sync();
    thread::sleep(PANIC_PAUSE);
    // There is nobody left to tell of a refusal.
    let _ = rustix::system::reboot(RebootCommand::Restart);
}
