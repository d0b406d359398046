// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine and this process use, as Linux says it in `/proc`.

use std::fs;
use std::path::Path;

use dvs_api::Usage;

/// Ticks of the clock in which Linux tells programs of times; it is the same on every machine that we run on.
const TICKS_PER_S: f64 = 100.0;
/// Bytes of a page, likewise.
const PAGE_BYTES: u64 = 4_096;

/// Where Linux says it.
pub const PROC: &str = "/proc";

/// What the machine uses. What Linux does not say is 0.
pub fn usage(proc: &Path) -> Usage {
    let text = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let mut usage = Usage::default();
    for line in text("stat").lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("cpu") => {
                // user, nice, system, idle, iowait, irq, softirq, steal; what guests use is among the first two.
                let ticks: Vec<f64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
                let all: f64 = ticks.iter().sum();
                let idle: f64 = ticks.iter().skip(3).take(2).sum();
                usage.cpu_busy_s = (all - idle) / TICKS_PER_S;
                usage.cpu_idle_s = idle / TICKS_PER_S;
            }
            Some(word) if word.starts_with("cpu") => usage.cpus += 1,
            Some("btime") => {
                usage.booted_unix_s = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            }
            _ => {}
        }
    }
    for line in text("meminfo").lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let kib = rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        match name {
            "MemTotal" => usage.memory_total_bytes = kib << 10,
            "MemAvailable" => usage.memory_available_bytes = kib << 10,
            _ => {}
        }
    }
    let load = text("loadavg");
    let mut words = load.split_ascii_whitespace();
    for load in &mut usage.load {
        *load = words.next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    }
    // Running and all threads, as `1/97`.
    let threads = words.next().and_then(|word| word.split_once('/'));
    usage.threads = threads.and_then(|(_, all)| all.parse().ok()).unwrap_or(0);
    let uptime = text("uptime");
    usage.uptime_s =
        uptime.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    usage
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Seconds of processors.
    pub cpu_s: f64,
    /// Threads.
    pub threads: u64,
    /// When it began, in seconds since the machine was booted.
    pub began_s: f64,
    /// Bytes of addresses.
    pub virtual_bytes: u64,
    /// Bytes of memory.
    pub resident_bytes: u64,
    /// Open files.
    pub open_files: u64,
    /// How many it may open; `None` for no limit.
    pub open_files_max: Option<u64>,
}

/// What this process uses; `None` if Linux does not say.
pub fn own(proc: &Path) -> Option<Process> {
    let own = proc.join("self");
    let stat = fs::read_to_string(own.join("stat")).ok()?;
    // The name of the program is in brackets, and may have some in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|word| word.parse::<u64>().ok());
    let limits = fs::read_to_string(own.join("limits")).unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    Some(Process {
        // proc_pid_stat(5) numbers them from 1.
        cpu_s: (field(14)? + field(15)?) as f64 / TICKS_PER_S,
        threads: field(20)?,
        began_s: field(22)? as f64 / TICKS_PER_S,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * PAGE_BYTES,
        open_files: fs::read_dir(own.join("fd")).map_or(0, |files| files.count() as u64),
        open_files_max: limit.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_linux_are_understood() {
        let proc = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(proc.path().join(name), text).unwrap();
        write(
            "stat",
            "cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2\ncpu1 1 2\nintr 5\nbtime 1700000000\n",
        );
        write("meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n");
        write("loadavg", "0.50 0.25 0.10 2/97 1234\n");
        write("uptime", "12.34 20.00\n");
        assert_eq!(
            usage(proc.path()),
            Usage {
                cpus: 2,
                cpu_busy_s: 1.5,
                cpu_idle_s: 8.5,
                memory_total_bytes: 1_024_000,
                memory_available_bytes: 409_600,
                load: [0.5, 0.25, 0.1],
                threads: 97,
                uptime_s: 12.34,
                booted_unix_s: 1_700_000_000,
            }
        );
        fs::create_dir_all(proc.path().join("self/fd")).unwrap();
        write("self/fd/0", "");
        let fields: Vec<String> = (3..=52).map(|number: u32| number.to_string()).collect();
        write("self/stat", &format!("1 (a) b) {}\n", fields.join(" ")));
        write(
            "self/limits",
            "Max open files            1024                 4096                 files\n",
        );
        let own = own(proc.path()).unwrap();
        assert_eq!((own.cpu_s, own.threads, own.began_s), (0.29, 20, 0.22));
        assert_eq!((own.virtual_bytes, own.resident_bytes), (23, 24 * 4096));
        assert_eq!((own.open_files, own.open_files_max), (1, Some(1024)));
        assert!(super::own(Path::new("/nowhere")).is_none());
    }

    #[test]
    fn this_machine_says_what_it_uses() {
        let usage = usage(Path::new(PROC));
        assert!(
            usage.cpus > 0 && usage.memory_total_bytes > usage.memory_available_bytes,
            "{usage:?}"
        );
        assert!(own(Path::new(PROC)).unwrap().resident_bytes > 0);
    }
}
