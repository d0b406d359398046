// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel arguments that have a machine restart if its kernel or its PID 1 hangs.
//!
//! The soft watchdog (`drivers/watchdog/softdog.c`) is in every kernel of a node, and counts from the moment at which its driver starts:
//! nothing
//! feeds it until PID 1 opens it. Hardware watchdogs begin when PID 1 opens them. One that counts already, because firmware or the
//! kernel before has started it, is fed by the kernel until PID 1 opens it, but not for longer than `open_timeout`
//! (`drivers/watchdog/watchdog_dev.c`). None is stopped by a restart, so that those of the hardware also see to the first steps of a
//! kernel that
//! is started by kexec; PID 1 stops them itself where a machine is to start from its firmware, which may take long.

/// Seconds that a kernel may take until PID 1 feeds the watchdogs, and PID 1 for each step of its start. A debug kernel on a busy host
/// takes ten to twenty; but a kernel starts PID 1 only when it has given up on disks that do not answer, which takes up to three minutes
/// each, many at a time.
pub const START_S: u32 = 300;

/// What the values belong to.
const KEYS: [&str; 4] = [
    "softdog.soft_active_on_boot=",
    "softdog.soft_margin=",
    "watchdog.open_timeout=",
    "watchdog.stop_on_reboot=",
];

/// The arguments where a kernel may take `margin_s` seconds to start PID 1.
pub fn arguments(margin_s: u32) -> String {
    let margin = margin_s.to_string();
    let words = KEYS.iter().zip(["1", &margin, &margin, "0"]);
    words.map(|(key, value)| format!("{key}{value}")).collect::<Vec<_>>().join(" ")
}

/// Whether a word of a command line is one of them.
pub fn is_argument(word: &str) -> bool {
    KEYS.iter().any(|key| word.starts_with(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_tells_them_from_others() {
        let expected = "softdog.soft_active_on_boot=1 softdog.soft_margin=9 watchdog.open_timeout=9 watchdog.stop_on_reboot=0";
        assert_eq!(arguments(9), expected);
        assert!(expected.split(' ').all(is_argument));
        assert!(!["quiet", "panic=10", "dvs_trial=9"].into_iter().any(is_argument));
    }
}
