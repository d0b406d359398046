// SPDX-License-Identifier: MIT OR Apache-2.0
//! How Linux says on its console that it is at fault.

/// What the lines have in them.
const SIGNS: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "KASAN:",
    "UBSAN:",
    "rust_kernel: panicked",
    "INFO: task",
    "INFO: possible",
    "INFO: inconsistent lock state",
    "INFO: trying to register non-static key",
    "inconsistent lock state",
    "hung task",
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
    "detected stall",
    "self-detected stall",
    "suspicious RCU usage",
    "DEBUG_LOCKS_WARN_ON",
    "ODEBUG:",
    "unreferenced object",
    "page dumped because",
    "scheduling while atomic",
    "refcount_t:",
    "bad unlock balance",
    "held lock freed",
    "lock held when returning to user space",
];

/// Whether a line of the console is a complaint.
pub fn is_complaint(line: &str) -> bool {
    SIGNS.iter().any(|sign| line.contains(sign))
}

/// The complaints among the lines of a console.
pub fn complaints(console: &str) -> Vec<&str> {
    console.lines().filter(|line| is_complaint(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_recognised() {
        let console = "[    0.1] Linux version 7.2\n[    1.0] BUG: sleeping function called from invalid context\n\
                       [    1.1] WARNING: possible recursive locking detected\nok 1 - a warning is not this\n\
                       [    2.0] rcu: INFO: rcu_preempt self-detected stall on CPU\n\
                       [    3.0] INFO: task dvk-fuzz:77 blocked for more than 30 seconds.\n\
                       unreferenced object 0xffff88800a1b2c00 (size 64):\n";
        assert_eq!(complaints(console).len(), 5);
        assert!(complaints("[    0.1] Run /init as init process\n").is_empty());
    }
}
