// SPDX-License-Identifier: MIT OR Apache-2.0
//! Restarting the machine and switching it off, which PID 1 does when it gets a signal.

use dvs_api::PowerAction;
use rustix::process::{kill_process, Pid, Signal};

/// Asks PID 1; it ends all services, this one as well, before it does what it is asked for.
///
/// # Errors
/// For people: why it cannot be asked.
pub fn change(action: PowerAction) -> Result<(), String> {
    let (signal, what) = match action {
        PowerAction::Reboot => (Signal::TERM, "restart the machine"),
        PowerAction::Shutdown => (Signal::USR2, "switch the machine off"),
    };
    println!("asking PID 1 to {what}");
    kill_process(Pid::INIT, signal).map_err(|error| format!("ask PID 1 to {what}: {error}"))
}
