// SPDX-License-Identifier: MIT OR Apache-2.0
//! The terminal of the screen: every key as it is pressed, and nothing shown but what is painted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;

use dvs_console::Size;
use rustix::termios::{tcgetattr, tcgetwinsize, tcsetattr, OptionalActions, Termios};

use super::Message;
use crate::Failure;

/// A terminal, which is as it was before when this is dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    path: PathBuf,
    device: File,
    before: Termios,
}

impl Terminal {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |attempt: &str, error: io::Error| {
            Failure::Refused(format!("{attempt} the terminal {}: {error}", path.display()))
        };
        // Signals of its keys are for nobody.
        let flags = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
        let opened = File::options().read(true).write(true).custom_flags(flags).open(path);
        let device = opened.map_err(|error| failed("open", error))?;
        let before = tcgetattr(&device).map_err(|error| failed("set up", error.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        // Others write lines to it that end as lines do.
        raw.output_modes = before.output_modes;
        let set = tcsetattr(&device, OptionalActions::Now, &raw);
        set.map_err(|error| failed("set up", error.into()))?;
        Ok(Self { path: path.to_owned(), device, before })
    }

    /// Tells what is typed, from now on.
    pub(super) fn listen(&self, tell: Sender<Message>) -> Result<(), Failure> {
        let (path, device) = (self.path.display().to_string(), self.device.try_clone());
        let mut device = device
            .map_err(|error| Failure::Refused(format!("read from the terminal {path}: {error}")))?;
        thread::spawn(move || {
            let mut bytes = [0; 256];
            loop {
                let message = match device.read(&mut bytes) {
                    Ok(0) => Message::Closed(format!("the terminal {path} is gone")),
                    Ok(length) => Message::Bytes(bytes[..length].to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        Message::Closed(format!("read from the terminal {path}: {error}"))
                    }
                };
                let is_last = matches!(message, Message::Closed(_));
                if tell.send(message).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(())
    }

    pub(super) fn size(&self) -> Size {
        let size = tcgetwinsize(&self.device).ok();
        size.map_or(Size::LEAST, |size| Size::of(size.ws_row.into(), size.ws_col.into()))
    }

    pub(super) fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.device.write_all(text.as_bytes()).map_err(|error| {
            Failure::Refused(format!("write to the terminal {}: {error}", self.path.display()))
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(&self.device, OptionalActions::Now, &self.before);
    }
}
