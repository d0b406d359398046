// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images on trial. Who starts an image for the first time says so on the kernel's command line, `dvs_trial=SECONDS`. Unless `dvsd` confirms
//! it in that time, whatever keeps it from that, PID 1 restarts the machine, which then boots what it booted before. An image on a disk whose
//! tries the boot loader counts is on trial as well: `dvsd` gives it up if the node does not work with it, and PID 1 does so where not even `dvsd` runs.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use crate::fault::Fault;
use crate::sys;

/// Is there once the node works with its image.
pub(crate) const CONFIRMED: &str = "/run/dvs/confirmed";
/// Where `dvsd` leaves an image that is to be started instead of a reboot.
const NEXT: &str = "/run/dvs/next";
const ARGUMENT: &str = "dvs_trial=";
/// How long an image has whose tries the boot loader counts, if nothing else is said: longer than `dvsd` gives it, which can say why.
const COUNTED: Duration = Duration::from_secs(420);
/// How often is looked whether it was confirmed.
const LOOK: Duration = Duration::from_secs(1);

/// An image that was not confirmed yet.
#[derive(Debug)]
pub(crate) struct Trial {
    ends: Duration,
    next: Duration,
}

/// What became of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on; look again at that time.
    Undecided(Duration),
    /// It is an image like any other.
    Confirmed,
    /// It was not confirmed in time.
    Failed,
}

impl Trial {
    /// The trial that a kernel's command line asks for, or the boot loader if it counts tries of the image, from now on.
    pub(crate) fn of(command_line: &str, is_counted: bool, now: Duration) -> Option<Self> {
        let seconds = command_line
            .split_ascii_whitespace()
            .rev()
            .find_map(|word| word.strip_prefix(ARGUMENT)?.parse().ok());
        let time = seconds.map(Duration::from_secs).or(is_counted.then_some(COUNTED))?;
        Some(Self { ends: now + time, next: now })
    }

    /// What has become of it.
    pub(crate) fn look(&mut self, now: Duration, is_confirmed: impl FnOnce() -> bool) -> Verdict {
        if now < self.next {
            return Verdict::Undecided(self.next);
        }
        self.next = (now + LOOK).min(self.ends);
        match is_confirmed() {
            true => Verdict::Confirmed,
            false if now >= self.ends => Verdict::Failed,
            false => Verdict::Undecided(self.next),
        }
    }
}

/// Loads the image that is to be started instead of a reboot, if there is one. Says whether there is.
///
/// # Errors
/// When it cannot be read, or the kernel does not take it.
pub(crate) fn load_next() -> Result<bool, Fault> {
    let folder = Path::new(NEXT);
    let line = folder.join("cmdline");
    let attempt = || Fault::when(format!("start the image in {NEXT}"));
    let line = match fs::read(line) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        line => line.map_err(attempt())?,
    };
    let line = std::ffi::CString::new(line)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
        .map_err(attempt())?;
    let open = |name: &str| File::open(folder.join(name)).map_err(attempt());
    let (kernel, initramfs) = (open("linux")?, open("initramfs")?);
    sys::kexec_file_load(kernel.as_fd(), initramfs.as_fd(), &line).map_err(attempt())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_command_line_says_how_long() {
        assert!(Trial::of("console=ttyS0 quiet", false, at(0)).is_none());
        assert!(Trial::of("dvs_trial= dvs_trial=x", false, at(0)).is_none());
        // What is added counts more than what was there, and either more than the loader.
        for is_counted in [false, true] {
            let trial = Trial::of("dvs_trial=10 quiet dvs_trial=60", is_counted, at(2)).unwrap();
            assert_eq!(trial.ends, at(62));
        }
        assert_eq!(Trial::of("quiet", true, at(2)).unwrap().ends, at(2) + COUNTED);
    }

    #[test]
    fn what_is_not_confirmed_in_time_has_failed() {
        let mut trial = Trial::of("dvs_trial=3", false, at(1)).unwrap();
        assert_eq!(trial.look(at(1), || false), Verdict::Undecided(at(2)));
        assert_eq!(trial.look(at(1), || panic!("too often")), Verdict::Undecided(at(2)));
        assert_eq!(trial.look(at(3), || false), Verdict::Undecided(at(4)));
        assert_eq!(trial.look(at(4), || false), Verdict::Failed);
        let mut trial = Trial::of("dvs_trial=3", false, at(1)).unwrap();
        assert_eq!(trial.look(at(9), || true), Verdict::Confirmed);
    }
}
