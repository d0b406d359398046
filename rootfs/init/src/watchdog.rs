// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hardware watchdog: it resets the machine when PID 1's loop no longer turns.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

const PATH: &str = "/dev/watchdog";
/// Drivers time out after 30 s or more unless told otherwise.
const PERIOD: Duration = Duration::from_secs(5);

/// An armed watchdog.
#[derive(Debug)]
pub(crate) struct Watchdog {
    device: File,
    next: Duration,
}

impl Watchdog {
    /// Arms the watchdog, if the machine has one.
    pub(crate) fn arm() -> Option<Self> {
        let device = File::options().write(true).open(PATH).ok()?;
        Some(Self { device, next: Duration::ZERO })
    }

    /// Feeds it when it is time to; returns when it will be next.
    pub(crate) fn feed(&mut self, now: Duration) -> Duration {
        if now >= self.next {
            // A failed write is answered by the hardware.
            let _ = self.device.write(&[0]);
            self.next = now + PERIOD;
        }
        self.next
    }

    /// Disarms it, for an orderly end.
    pub(crate) fn disarm(mut self) {
        // The "magic close": a `V` right before the close says that the close is meant.
        let _ = self.device.write(b"V");
    }
}
