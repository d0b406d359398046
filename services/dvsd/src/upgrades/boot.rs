// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a machine comes to run another image.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dvs_bootdisk::BootDisk;
use dvs_image::{uki, watchdog};

/// How the machine of a node comes to run another image. Everything here may block.
pub trait Boot: Send + Sync {
    /// Makes all ready, so that the machine boots `image`, a unified kernel image that is `release`, when it is restarted next. Unless
    /// that is
    /// confirmed, within `trial_s` seconds where there is nothing else that limits it, it goes back to what it booted before.
    ///
    /// # Errors
    /// For people: why not. Nothing has changed then.
    fn arm(&self, release: &str, image: &[u8], trial_s: u32) -> Result<(), String>;

    /// Has the machine stay with the image that it runs.
    ///
    /// # Errors
    /// For people: why not.
    fn confirm(&self) -> Result<(), String>;
}

/// Starts the new kernel from the present one, with nothing in between (kexec). What the machine boots when it is switched on stays as it
/// is. PID 1 does it, for which this leaves kernel, root and command line in a folder.
#[derive(Clone, Debug)]
pub struct Kexec {
    /// Where PID 1 looks.
    directory: PathBuf,
    /// The command line that the present kernel was started with.
    command_line: PathBuf,
}

/// The folder that PID 1 takes the next image from.
const NEXT: &str = "next";
/// What tells PID 1 that the node works with its image.
const CONFIRMED: &str = "confirmed";
/// How an argument begins that says for how long an image is on trial.
const TRIAL: &str = "dvs_trial=";

impl Kexec {
    /// That of this machine; `directory` is where PID 1 and the daemon leave each other files.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), command_line: "/proc/cmdline".into() }
    }
}

impl Boot for Kexec {
    fn arm(&self, _release: &str, image: &[u8], trial_s: u32) -> Result<(), String> {
        let part = |name: &str| {
            let found = uki::section(image, name).map_err(|error| error.to_string())?;
            found.ok_or_else(|| format!("the image has no section `{name}`"))
        };
        let (linux, initramfs) = (part(".linux")?, part(".initrd")?);
        let failed = |error: io::Error| format!("make the image ready to be started: {error}");
        let line = fs::read_to_string(&self.command_line).map_err(failed)?;
        let line = with_trial(&line, trial_s);
        let (next, partial) = (self.directory.join(NEXT), self.directory.join("next.partial"));
        for old in [&next, &partial] {
            match fs::remove_dir_all(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        fs::create_dir(&partial).map_err(failed)?;
        let files = [("linux", linux), ("initramfs", initramfs), ("cmdline", line.as_bytes())];
        let written = files
            .into_iter()
            .try_for_each(|(name, bytes)| File::create_new(partial.join(name))?.write_all(bytes));
        // PID 1 sees all of it or nothing.
        let written = written.and_then(|()| fs::rename(&partial, &next));
        written.map_err(|error| {
            let _ = fs::remove_dir_all(&partial);
            failed(error)
        })
    }

    fn confirm(&self) -> Result<(), String> {
        tell(&self.directory)
    }
}

/// Tells PID 1, which looks in `directory`, that the node works with its image.
pub(crate) fn tell(directory: &Path) -> Result<(), String> {
    let confirmed = File::create(directory.join(CONFIRMED)).map(drop);
    confirmed.map_err(|error| format!("tell PID 1 that the image is good: {error}"))
}

/// Puts the image into the slot of the node's disk that is not confirmed. The boot loader tries it, and [`crate::boot`] confirms it or
/// gives
/// it up.
#[derive(Clone, Debug)]
pub struct Slots(Arc<BootDisk>);

impl Slots {
    /// Those of the disk that this machine has booted from.
    pub fn new(disk: Arc<BootDisk>) -> Self {
        Self(disk)
    }
}

impl Boot for Slots {
    fn arm(&self, release: &str, image: &[u8], _trial_s: u32) -> Result<(), String> {
        self.0.install(release, image).map(drop).map_err(|error| error.to_string())
    }

    fn confirm(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A command line with another trial. Half of it is for the kernel to start PID 1, if not less: one that hangs is back in time for the
/// others to
/// tell what became of it.
fn with_trial(line: &str, seconds: u32) -> String {
    let is_replaced = |word: &str| word.starts_with(TRIAL) || watchdog::is_argument(word);
    let words = line.split_ascii_whitespace().filter(|word| !is_replaced(word));
    let watched = watchdog::arguments((seconds / 2).clamp(1, watchdog::START_S));
    let added = [watched, format!("{TRIAL}{seconds}")];
    words.map(str::to_owned).chain(added).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_stays_but_for_the_trial() {
        let before = "console=ttyS0 dvs_trial=9 softdog.soft_margin=120 quiet\n";
        let after = |margin| format!("console=ttyS0 quiet {}", watchdog::arguments(margin));
        assert_eq!(with_trial(before, 60), format!("{} dvs_trial=60", after(30)));
        // None that is 0 or longer than it is otherwise.
        assert_eq!(with_trial(before, 1), format!("{} dvs_trial=1", after(1)));
        assert_eq!(with_trial(before, 900), format!("{} dvs_trial=900", after(watchdog::START_S)));
    }

    #[test]
    fn what_is_no_image_leaves_nothing_to_start() {
        let directory = tempfile::tempdir().unwrap();
        let boot =
            Kexec { directory: directory.path().into(), command_line: "/proc/cmdline".into() };
        for image in [&b""[..], b"MZ", &[0; 4096]] {
            boot.arm("1.0.0+a", image, 60).unwrap_err();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        boot.confirm().unwrap();
        assert!(directory.path().join("confirmed").exists());
    }
}
