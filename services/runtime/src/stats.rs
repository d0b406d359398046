// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a container uses, as its cgroup counts it.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;

/// What a container has used so far and uses now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Time on processors, in microseconds.
    pub cpu_us: u64,
    /// How long it had to wait because of its quota, in microseconds.
    pub throttled_us: u64,
    /// How many periods of its quota there were in which it had something to do.
    pub periods: u64,
    /// In how many of them it had to wait.
    pub throttled_periods: u64,
    /// Bytes of memory in use.
    pub memory: u64,
    /// The most bytes of memory there were in use.
    pub memory_peak: u64,
    /// Bytes of swap space in use.
    pub swap: u64,
    /// Processes killed for want of memory.
    pub out_of_memory: u64,
    /// Processes and threads.
    pub processes: u64,
    /// How often a process could not be made because of the limit.
    pub processes_refused: u64,
    /// Bytes read from block devices.
    pub io_read: u64,
    /// Bytes written to block devices.
    pub io_written: u64,
}

impl Stats {
    /// Reads them.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn of(cgroup: &Cgroup) -> Result<Self> {
        let read = |file: &str| Ok::<_, anyhow::Error>(cgroup.read(file)?.unwrap_or_default());
        let number = |file: &str| Ok::<_, anyhow::Error>(read(file)?.trim().parse().unwrap_or(0));
        let cpu = read("cpu.stat")?;
        let io = read("io.stat")?;
        Ok(Self {
            cpu_us: field(&cpu, "usage_usec").unwrap_or(0),
            throttled_us: field(&cpu, "throttled_usec").unwrap_or(0),
            periods: field(&cpu, "nr_periods").unwrap_or(0),
            throttled_periods: field(&cpu, "nr_throttled").unwrap_or(0),
            memory: number("memory.current")?,
            memory_peak: number("memory.peak")?,
            swap: number("memory.swap.current")?,
            out_of_memory: field(&read("memory.events")?, "oom_kill").unwrap_or(0),
            processes: number("pids.current")?,
            processes_refused: field(&read("pids.events")?, "max").unwrap_or(0),
            io_read: over_devices(&io, "rbytes"),
            io_written: over_devices(&io, "wbytes"),
        })
    }
}

/// The number after a name at the beginning of a line.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The sum of `name=NUMBER` over all lines.
fn over_devices(text: &str, name: &str) -> u64 {
    let values = text.split_whitespace().filter_map(|word| {
        word.split_once('=').filter(|(key, _)| *key == name)?.1.parse::<u64>().ok()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names() {
        let text = "low 1\noom 2\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), Some(2));
        assert_eq!(field(text, "kill"), None);
        let io = "8:0 rbytes=1 wbytes=2 rios=3\n8:16 rbytes=10 wbytes=20\n";
        assert_eq!((over_devices(io, "rbytes"), over_devices(io, "wbytes")), (11, 22));
        assert_eq!(over_devices("", "rbytes"), 0);
    }
}
