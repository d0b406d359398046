// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device from its beginning to its end.

use crate::abi::{
    Info, Traits, ADD_DEVICE, BLOCK_BYTES, DELETE_DEVICE, DEPTH_MAX, GET_DEVICE, REQUEST_BYTES_MAX,
    SET_PARAMETERS, START_DEVICE, STOP_DEVICE, USER_COPY,
};
use crate::queue::Queue;
use crate::sys::ControlRing;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

const CONTROL: &str = "/dev/ublk-control";
/// How long Linux may take until a device is dead whose server was killed.
const AFTER_A_KILL: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
/// Any number that is free.
const ANY: u32 = u32::MAX;

/// Why there is no device, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum UblkError {
    /// There is no driver, or it cannot be reached.
    #[error("cannot open {CONTROL}: {0}; a kernel with CONFIG_BLK_DEV_UBLK and root of the node are needed")]
    Control(io::Error),
    /// There is no io_uring.
    #[error("cannot make a ring for {CONTROL}: {0}; io_uring is not for processes in containers")]
    Ring(io::Error),
    /// Linux has no such devices.
    #[error(
        "cannot have {bytes} bytes in blocks of {block_bytes} as a block device of Linux: its blocks have {} to {} bytes",
        BLOCK_BYTES.start(), BLOCK_BYTES.end()
    )]
    Traits {
        /// How many bytes it has.
        bytes: u64,
        /// The block.
        block_bytes: u32,
    },
    /// The number is taken.
    #[error("cannot make /dev/ublkb{0}: somebody answers for a device of this number; take another one, or none")]
    InUse(u32),
    /// A command to the driver.
    #[error("cannot {what} /dev/ublkb{}: {error}", number(*.id))]
    Command {
        /// What was attempted.
        what: &'static str,
        /// Which device.
        id: u32,
        /// What the driver says.
        error: io::Error,
    },
    /// The driver lacks what is needed.
    #[error("the driver ublk of this kernel does not copy data by its file (UBLK_F_USER_COPY): a newer one is needed")]
    Features,
    /// The file of a device.
    #[error("cannot open {path}: {error}")]
    Open {
        /// Its path.
        path: String,
        /// What Linux says.
        error: io::Error,
    },
    /// A queue.
    #[error("cannot {what} queue {queue}: {error}")]
    Queue {
        /// What was attempted.
        what: &'static str,
        /// The number of the queue.
        queue: u16,
        /// What Linux says.
        error: io::Error,
    },
}

fn number(id: u32) -> String {
    if id == ANY {
        "N".to_owned()
    } else {
        id.to_string()
    }
}

/// A device that was added to the driver, which is told to delete it when this ends.
pub struct Device {
    control: ControlRing,
    info: Info,
    file: Option<File>,
    has_started: bool,
}

impl core::fmt::Debug for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Device({:?})", self.info)
    }
}

impl Device {
    /// Adds a device with a number, or any, and about as many queues of a depth. A dead one of this number, left by somebody who was
    /// killed, is deleted first.
    ///
    /// # Errors
    /// [`UblkError`].
    pub fn add(
        id: Option<u32>,
        queues: u16,
        depth: u16,
        traits: &Traits,
    ) -> Result<Self, UblkError> {
        if !traits.are_possible() {
            let Traits { bytes, block_bytes, .. } = *traits;
            return Err(UblkError::Traits { bytes, block_bytes });
        }
        let file = File::options().read(true).write(true).open(CONTROL);
        let mut control =
            ControlRing::new(file.map_err(UblkError::Control)?).map_err(UblkError::Ring)?;
        let wanted = Info {
            queues,
            depth: depth.clamp(1, DEPTH_MAX),
            state: 0,
            request_bytes_max: REQUEST_BYTES_MAX,
            id: id.unwrap_or(ANY),
            features: USER_COPY,
        };
        let info = match add(&mut control, &wanted) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                clear(&mut control, wanted.id)?;
                add(&mut control, &wanted)
            }
            other => other,
        };
        let failed = |error| UblkError::Command { what: "add", id: wanted.id, error };
        let info = info.map_err(failed)?;
        // From here on it is deleted whatever happens.
        let mut device = Self { control, info, file: None, has_started: false };
        if info.features & USER_COPY == 0 {
            return Err(UblkError::Features);
        }
        device.command("describe", SET_PARAMETERS, &mut traits.encode(), 0)?;
        let path = format!("/dev/ublkc{}", info.id);
        let file = File::options().read(true).write(true).open(&path);
        device.file = Some(file.map_err(|error| UblkError::Open { path, error })?);
        Ok(device)
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.info.id
    }

    /// The path of the block device that Linux has once it is started.
    pub fn path(&self) -> String {
        format!("/dev/ublkb{}", self.info.id)
    }

    /// What makes each of its queues, by the thread that is to answer for it.
    ///
    /// # Errors
    /// [`UblkError`].
    pub fn queues(
        &self,
    ) -> Result<Vec<impl FnOnce() -> Result<Queue, UblkError> + Send + use<>>, UblkError> {
        let depth = self.info.depth;
        let queues = (0..self.info.queues).map(|number| {
            let failed = |error| UblkError::Queue { what: "make", queue: number, error };
            let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound.into());
            let file = file.and_then(File::try_clone).map_err(failed)?;
            Ok(move || Queue::new(file, number, depth))
        });
        queues.collect()
    }

    /// Shows it to Linux. All its queues must have been made: it is waited for them.
    ///
    /// # Errors
    /// [`UblkError::Command`].
    pub fn start(&mut self) -> Result<(), UblkError> {
        self.command("start", START_DEVICE, &mut [], std::process::id().into())?;
        self.has_started = true;
        Ok(())
    }

    /// Takes it away from Linux. What Linux still has to write is asked meanwhile, and then the queues end.
    ///
    /// # Errors
    /// [`UblkError::Command`].
    pub fn stop(&mut self) -> Result<(), UblkError> {
        self.command("stop", STOP_DEVICE, &mut [], 0)?;
        self.has_started = false;
        Ok(())
    }

    /// Leaves it to Linux, which ends it with the process, as it does if that is killed. A dead device is left then, until one of its
    /// number is added.
    pub fn abandon(self) {
        core::mem::forget(self);
    }

    fn command(
        &mut self,
        what: &'static str,
        command: u32,
        data: &mut [u8],
        number: u64,
    ) -> Result<(), UblkError> {
        let id = self.info.id;
        let done = self.control.command(command, id, data, number);
        done.map(|_| ()).map_err(|error| UblkError::Command { what, id, error })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let stopped = if self.has_started { self.stop() } else { Ok(()) };
        // The driver keeps it as long as its file is open.
        self.file = None;
        let deleted = self.command("delete", DELETE_DEVICE, &mut [], 0);
        for error in [stopped.err(), deleted.err()].into_iter().flatten() {
            eprintln!("ublk: {error}");
        }
    }
}

fn add(control: &mut ControlRing, wanted: &Info) -> io::Result<Info> {
    let mut info = wanted.encode();
    control.command(ADD_DEVICE, wanted.id, &mut info, 0)?;
    Ok(Info::decode(&info))
}

/// Deletes a device that nobody answers for, if need be when Linux has done with somebody who was killed a moment ago.
fn clear(control: &mut ControlRing, id: u32) -> Result<(), UblkError> {
    let failed = |what| move |error| UblkError::Command { what, id, error };
    let began = Instant::now();
    loop {
        let mut info = [0; Info::BYTES];
        control.command(GET_DEVICE, id, &mut info, 0).map_err(failed("look at"))?;
        if Info::decode(&info).is_dead() {
            break;
        }
        if began.elapsed() >= AFTER_A_KILL {
            return Err(UblkError::InUse(id));
        }
        std::thread::sleep(PAUSE);
    }
    control.command(DELETE_DEVICE, id, &mut [], 0).map_err(failed("delete the dead"))?;
    Ok(())
}
