// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a container may use of its node, and what that means to cgroup v2 (Documentation/admin-guide/cgroup-v2.rst).

use std::fmt::Write as _;

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};

/// Less memory than this does not even hold the programs that make a container.
const MEMORY_MIN: u64 = 8 << 20;

/// The fewest processes: the container's first, its command, and one for a shell to start.
const PROCESSES_MIN: u32 = 4;

/// Limits. Those of memory, processes and the writable layer are not optional: a container without one can take the node down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory, caches and the writable layer included.
    pub memory: u64,
    /// Bytes of swap space; 0 for none.
    #[serde(default)]
    pub swap: u64,
    /// Processes and threads together.
    pub processes: u32,
    /// Bytes that the writable layer over the image can hold. They count as memory, too, while they are used.
    pub writable: u64,
    /// Shares and quotas of processors.
    #[serde(default)]
    pub cpu: Cpu,
    /// Rates of block devices; without one for a device, there is no limit.
    #[serde(default)]
    pub io: Vec<Io>,
}

/// What a container has of the processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cpu {
    /// Thousandths of a processor, 1500 for one and a half; no limit if there is none.
    pub milli: Option<u32>,
    /// The share where containers compete, from 1 to 10000; 100 if there is none.
    pub weight: Option<u32>,
    /// Which processors, as in `0-2,4`; all if there is none.
    pub set: Option<String>,
}

/// Rates of a block device, each a number per second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Io {
    /// Major and minor number, as in `8:0`.
    pub device: String,
    /// Bytes read.
    #[serde(default)]
    pub read_bytes: Option<u64>,
    /// Bytes written.
    #[serde(default)]
    pub write_bytes: Option<u64>,
    /// Read operations.
    #[serde(default)]
    pub reads: Option<u64>,
    /// Write operations.
    #[serde(default)]
    pub writes: Option<u64>,
}

/// A file of a cgroup and what to write into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) file: &'static str,
    pub(crate) value: String,
    /// Whether it says only what holds anyway where the kernel has no such file.
    pub(crate) void_without: bool,
}

impl Limits {
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.memory >= MEMORY_MIN,
            "limiting memory to {} bytes: a container needs {MEMORY_MIN} to be made",
            self.memory
        );
        ensure!(
            self.processes >= PROCESSES_MIN,
            "limiting processes to {}: a container needs {PROCESSES_MIN}",
            self.processes
        );
        ensure!(
            self.writable > 0 && self.writable <= self.memory,
            "limiting the writable layer to {} bytes: it takes some, and not more than the memory of {} that it is in",
            self.writable,
            self.memory
        );
        if let Some(milli) = self.cpu.milli {
            ensure!(milli >= 10, "limiting processors to {milli} thousandths: the least is 10");
        }
        if let Some(weight) = self.cpu.weight {
            ensure!(
                (1..=10_000).contains(&weight),
                "weighing processors by {weight}: give a number from 1 to 10000"
            );
        }
        if let Some(set) = &self.cpu.set {
            check_set(set).with_context(|| {
                format!("choosing processors by {set:?}; give numbers and ranges, as in 0-2,4")
            })?;
        }
        self.io.iter().try_for_each(Io::check)
    }

    /// What to write into the files of the container's cgroup.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let set = |file, value: String| Setting { file, value, void_without: false };
        let mut settings = vec![
            set("memory.max", self.memory.to_string()),
            // A kernel without swap space has no such file, and swaps nothing.
            Setting { void_without: true, ..set("memory.swap.max", self.swap.to_string()) },
            // The hog is killed, and not who happens to be with it.
            set("memory.oom.group", "0".to_owned()),
            set("pids.max", self.processes.to_string()),
        ];
        if let Some(milli) = self.cpu.milli {
            const PERIOD_US: u64 = 100_000;
            let quota_us = u64::from(milli) * PERIOD_US / 1000;
            settings.push(set("cpu.max", format!("{quota_us} {PERIOD_US}")));
        }
        if let Some(weight) = self.cpu.weight {
            settings.push(set("cpu.weight", weight.to_string()));
        }
        if let Some(processors) = &self.cpu.set {
            settings.push(set("cpuset.cpus", processors.clone()));
        }
        settings.extend(self.io.iter().map(|io| set("io.max", io.line())));
        settings
    }
}

impl Limits {
    /// What to write so that these hold where `old` did: what is not limited any more is said, too.
    pub(crate) fn changes(&self, old: &Self) -> Vec<Setting> {
        let free =
            |file, value: &str| Setting { file, value: value.to_owned(), void_without: true };
        let mut settings = vec![
            free("cpu.max", "max"),
            free("cpu.weight", "100"),
            // All that its parent has.
            free("cpuset.cpus", "\n"),
        ];
        let freed =
            old.io.iter().map(|io| format!("{} rbps=max wbps=max riops=max wiops=max", io.device));
        settings.extend(freed.map(|line| free("io.max", &line)));
        let wanted = self.settings();
        settings
            .retain(|free| free.file == "io.max" || wanted.iter().all(|it| it.file != free.file));
        settings.extend(wanted);
        settings
    }
}

impl Io {
    fn check(&self) -> Result<()> {
        let number =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let numbers = self.device.split_once(':');
        ensure!(
            numbers.is_some_and(|(major, minor)| number(major) && number(minor)),
            "limiting the device {:?}: name it by major and minor number, as in 8:0",
            self.device
        );
        ensure!(
            !self.rates().is_empty() && self.rates().iter().all(|&(_, rate)| rate > 0),
            "limiting the device {}: give at least one rate, and none of 0",
            self.device
        );
        Ok(())
    }

    fn rates(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("rbps", self.read_bytes),
            ("wbps", self.write_bytes),
            ("riops", self.reads),
            ("wiops", self.writes),
        ];
        all.into_iter().filter_map(|(key, rate)| Some((key, rate?))).collect()
    }

    fn line(&self) -> String {
        let mut line = self.device.clone();
        for (key, rate) in self.rates() {
            // Writing to a string cannot fail.
            let _ = write!(line, " {key}={rate}");
        }
        line
    }
}

/// Numbers and ranges, divided by commas.
fn check_set(set: &str) -> Result<()> {
    for part in set.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            ensure!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text:?} is no number");
            text.parse::<u32>().with_context(|| format!("{text:?} is no number"))
        };
        ensure!(number(first)? <= number(last)?, "{part} ends before it begins");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            memory: 64 << 20,
            swap: 0,
            processes: 50,
            writable: 1 << 20,
            cpu: Cpu::default(),
            io: Vec::new(),
        }
    }

    fn written(limits: &Limits) -> Vec<(&'static str, String)> {
        limits.settings().into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    #[test]
    fn limits_become_settings() {
        let mut limits = limits();
        let always = [
            ("memory.max", "67108864".to_owned()),
            ("memory.swap.max", "0".to_owned()),
            ("memory.oom.group", "0".to_owned()),
            ("pids.max", "50".to_owned()),
        ];
        assert_eq!(written(&limits), always);
        limits.cpu = Cpu { milli: Some(1500), weight: Some(20), set: Some("0-1,3".to_owned()) };
        limits.io = vec![Io {
            device: "8:16".to_owned(),
            read_bytes: Some(1000),
            write_bytes: None,
            reads: None,
            writes: Some(5),
        }];
        limits.check().unwrap();
        assert_eq!(
            written(&limits)[always.len()..],
            [
                ("cpu.max", "150000 100000".to_owned()),
                ("cpu.weight", "20".to_owned()),
                ("cpuset.cpus", "0-1,3".to_owned()),
                ("io.max", "8:16 rbps=1000 wiops=5".to_owned()),
            ]
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |change: fn(&mut Limits)| {
            let mut limits = limits();
            change(&mut limits);
            limits.check().is_err()
        };
        assert!(refused(|limits| limits.memory = 1 << 20));
        assert!(refused(|limits| limits.processes = 3));
        assert!(refused(|limits| limits.writable = 0));
        assert!(refused(|limits| limits.writable = limits.memory + 1));
        assert!(refused(|limits| limits.cpu.milli = Some(9)));
        assert!(refused(|limits| limits.cpu.weight = Some(0)));
        assert!(refused(|limits| limits.cpu.weight = Some(10_001)));
        for set in ["", "a", "1-", "2-1", "1,,2", "+1", "0-99999999999"] {
            let mut limits = limits();
            limits.cpu.set = Some(set.to_owned());
            assert!(limits.check().is_err(), "{set}");
        }
        for device in ["sda", "8", "8:", ":0", "8:0 rbps=max"] {
            let mut limits = limits();
            limits.io = vec![Io {
                device: device.to_owned(),
                read_bytes: Some(1),
                write_bytes: None,
                reads: None,
                writes: None,
            }];
            assert!(limits.check().is_err(), "{device}");
        }
        assert!(!refused(|_| ()));
    }

    #[test]
    fn only_the_limit_of_swap_may_be_without_effect() {
        let void: Vec<_> =
            limits().settings().into_iter().filter(|setting| setting.void_without).collect();
        assert_eq!(void.len(), 1);
        assert_eq!(void[0].file, "memory.swap.max");
    }

    #[test]
    fn what_is_limited_no_more_is_set_free() {
        let io = |device: &str| Io {
            device: device.to_owned(),
            read_bytes: Some(1),
            write_bytes: None,
            reads: None,
            writes: None,
        };
        let cpu = Cpu { milli: Some(500), weight: Some(7), set: Some("0".to_owned()) };
        let limits =
            |cpu, io| Limits { memory: 64 << 20, swap: 0, processes: 9, writable: 1, cpu, io };
        let (old, new) =
            (limits(cpu.clone(), vec![io("8:0")]), limits(Cpu::default(), vec![io("8:16")]));
        let lines = |settings: Vec<Setting>| {
            let lines = settings.into_iter().map(|it| format!("{} {}", it.file, it.value));
            lines
                .filter(|line| line.starts_with("cpu") || line.starts_with("io"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            lines(new.changes(&old)),
            [
                "cpu.max max",
                "cpu.weight 100",
                "cpuset.cpus \n",
                "io.max 8:0 rbps=max wbps=max riops=max wiops=max",
                "io.max 8:16 rbps=1",
            ]
        );
        let again = limits(cpu, Vec::new());
        assert_eq!(
            lines(again.changes(&new)),
            [
                "io.max 8:16 rbps=max wbps=max riops=max wiops=max",
                "cpu.max 50000 100000",
                "cpu.weight 7",
                "cpuset.cpus 0",
            ]
        );
    }
}
