// SPDX-License-Identifier: MIT OR Apache-2.0
//! The watchdogs: they restart the machine when PID 1 hangs. The kernel has one in software, and machines have theirs.
//!
//! PID 1 opens all that there are before it does anything that could block. What it does in order, as it starts and as it ends the
//! machine, may take long when hardware fails, and gets the time for that; its loop turns quickly.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use dvs_image::watchdog::START_S;

use crate::sys;

const DEVICES: &str = "/dev";
const NAME: &str = "watchdog";
/// How long a step of the start or the end may take.
pub(crate) const STEP: Duration = Duration::from_secs(START_S as u64);
/// How long a turn of the loop may take. None takes a second; the rest is for a host that is too busy for a virtual machine.
pub(crate) const TURN: Duration = Duration::from_secs(60);
/// How often they are fed: in time for those that keep to the 30 s that hardware begins with.
const PERIOD: Duration = Duration::from_secs(10);

/// The watchdogs of the machine, which count.
#[derive(Debug, Default)]
pub(crate) struct Watchdogs {
    devices: Vec<File>,
    next: Duration,
}

impl Watchdogs {
    /// Starts all that the machine has. Each is to be fed within [`STEP`].
    pub(crate) fn arm() -> Self {
        Self::arm_those_in(Path::new(DEVICES))
    }

    fn arm_those_in(folder: &Path) -> Self {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        // The name without a number is another one of the first.
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| {
                let number = name.strip_prefix(NAME).unwrap_or_default();
                !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
            })
            .collect();
        names.sort();
        let open = |name| File::options().write(true).open(folder.join(name)).ok();
        let mut watchdogs =
            Self { devices: names.iter().filter_map(open).collect(), next: Duration::ZERO };
        watchdogs.allow(STEP);
        watchdogs
    }

    /// Has them give PID 1 so long from now on. One that cannot be set so stays with its own time.
    pub(crate) fn allow(&mut self, longest: Duration) {
        for device in &self.devices {
            let seconds = i32::try_from(longest.as_secs()).unwrap_or(i32::MAX);
            let _ = sys::set_watchdog_timeout(device, seconds);
        }
        self.feed_now();
    }

    /// Feeds them.
    pub(crate) fn feed_now(&mut self) {
        for mut device in &self.devices {
            // A failed write is answered by the hardware.
            let _ = device.write(&[0]);
        }
    }

    /// Feeds them when it is time to; returns when it will be next, if there are any.
    pub(crate) fn feed(&mut self, now: Duration) -> Option<Duration> {
        if self.devices.is_empty() {
            return None;
        }
        if now >= self.next {
            self.feed_now();
            self.next = now + PERIOD;
        }
        Some(self.next)
    }

    /// Stops them, for an end of the machine that they have no part in.
    pub(crate) fn disarm(self) {
        for mut device in self.devices {
            // The "magic close": a `V` right before the close says that the close is meant.
            let _ = device.write(b"V");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn every_watchdog_is_fed_in_time_and_stopped_by_its_last_byte() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["watchdog", "watchdog0", "watchdog1", "watchdogs", "watch0"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let mut watchdogs = Watchdogs::arm_those_in(folder.path());
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        assert_eq!(read("watchdog0"), [0]);
        assert_eq!(watchdogs.feed(at(5)), Some(at(15)));
        assert_eq!(watchdogs.feed(at(14)), Some(at(15)));
        assert_eq!(watchdogs.feed(at(16)), Some(at(26)));
        for name in ["watchdog0", "watchdog1"] {
            assert_eq!(read(name), [0, 0, 0], "{name}");
        }
        watchdogs.disarm();
        for name in ["watchdog0", "watchdog1"] {
            assert_eq!(read(name), [0, 0, 0, b'V'], "{name}");
        }
        for name in ["watchdog", "watchdogs", "watch0"] {
            assert_eq!(read(name), [0; 0], "{name}");
        }
    }

    #[test]
    fn a_machine_without_any_waits_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Watchdogs::arm_those_in(folder.path()).feed(at(5)), None);
        assert_eq!(Watchdogs::arm_those_in(&folder.path().join("none")).feed(at(5)), None);
    }

    #[test]
    fn what_hardware_begins_with_is_longer_than_two_meals() {
        assert!(2 * PERIOD < at(30) && 2 * PERIOD < TURN && TURN <= STEP);
    }
}
