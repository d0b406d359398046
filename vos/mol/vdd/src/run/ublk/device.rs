// SPDX-License-Identifier: MIT OR Apache-2.0
//! A block device of Linux from its beginning to its end, as commands to the driver.

use super::failed;
use crate::ublk::{Traits, UblkError, REQUEST_BYTES_MAX};
use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::io::UblkDev;
use libublk::{sys, UblkFlags};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long Linux may take until a device is dead whose server was killed, and until its number is free again.
const AFTER_A_KILL: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
/// Any number that is free.
const ANY: i32 = -1;

/// A device that was added to the driver, which is told to delete it when this ends. (It does so as soon as nobody has it, and does not
/// wait for that.)
pub(super) struct Device {
    control: UblkCtrl,
    driver: Arc<UblkDev>,
}

impl Device {
    /// Adds a device with a number, or any, and about as many queues of a depth. A dead one of this number, left by somebody who was
    /// killed, is deleted first.
    pub(super) fn add(
        id: Option<u32>,
        queues: u16,
        depth: u16,
        traits: &Traits,
    ) -> Result<Self, UblkError> {
        let parameters = traits.parameters()?;
        // One after the other: the library deletes the device of the number that it could not add, which must not be somebody else's.
        let lock = File::options().read(true).write(true).open("/dev/ublk-control");
        let lock = lock.and_then(|file| file.lock().map(|()| file)).map_err(UblkError::Control)?;
        let left = id.filter(|id| Path::new(&format!("/dev/ublkc{id}")).exists());
        if let Some(left) = left {
            clear(left)?;
        }
        let began = Instant::now();
        let control = loop {
            let added = UblkCtrlBuilder::default()
                .name("mol-vdd")
                .id(id.map_or(ANY, |id| id as i32))
                .nr_queues(queues)
                .depth(depth)
                .io_buf_bytes(REQUEST_BYTES_MAX)
                .dev_flags(UblkFlags::UBLK_DEV_F_ADD_DEV | UblkFlags::UBLK_DEV_F_DEL_DEV_ASYNC)
                .build();
            match added {
                Ok(control) => break control,
                Err(_) if left.is_some() && began.elapsed() < AFTER_A_KILL => {
                    std::thread::sleep(PAUSE)
                }
                Err(error) => {
                    let number = id.map_or_else(|| "N".to_owned(), |id| id.to_string());
                    return Err(failed(format!("add /dev/ublkb{number}"), error));
                }
            }
        };
        drop(lock);
        let describe = |driver: &mut UblkDev| {
            driver.tgt.dev_size = traits.bytes;
            driver.tgt.params = parameters;
            Ok(())
        };
        let driver = UblkDev::new(control.get_name(), describe, &control)
            .map_err(|error| failed(format!("open {}", control.get_cdev_path()), error))?;
        Ok(Self { control, driver: Arc::new(driver) })
    }

    /// The path of the block device that Linux has once it is started.
    pub(super) fn path(&self) -> String {
        self.control.get_bdev_path()
    }

    /// How many queues it has.
    pub(super) fn queues(&self) -> u16 {
        self.driver.dev_info.nr_hw_queues
    }

    /// What queues are made of.
    pub(super) fn driver(&self) -> Arc<UblkDev> {
        self.driver.clone()
    }

    /// Shows it to Linux. All its queues must have been made: it is waited for them.
    pub(super) fn start(&self) -> Result<(), UblkError> {
        self.done("start", self.control.start_dev(&self.driver))
    }

    /// Takes it away from Linux, after that has written what it had to. The queues end, so they must be answered for meanwhile.
    pub(super) fn stop(&self) -> Result<(), UblkError> {
        self.done("stop", self.control.kill_dev())
    }

    /// Has the driver delete it.
    pub(super) fn remove(self) -> Result<(), UblkError> {
        self.done("delete", self.control.del_dev())
    }

    /// Leaves it to Linux, which ends it with the process, as it does if that is killed. A dead device is left then, until one of its
    /// number is added.
    pub(super) fn abandon(self) {
        self.control.disown();
    }

    /// That a device is busy is an answer and no error to the library.
    fn done(&self, what: &str, done: Result<i32, libublk::UblkError>) -> Result<(), UblkError> {
        let done = match done {
            Ok(result @ ..0) => Err(libublk::UblkError::UringIOError(result)),
            done => done,
        };
        done.map(|_| ()).map_err(|error| failed(format!("{what} {}", self.path()), error))
    }
}

/// Deletes a device that nobody answers for, if need be when Linux has done with somebody who was killed a moment ago.
fn clear(id: u32) -> Result<(), UblkError> {
    // The library says on standard error that it has no description of it, which it has of those only that other programs make.
    let Ok(control) = UblkCtrl::new_simple(id as i32) else {
        // It is about to go.
        return Ok(());
    };
    let told = |what: &str, error| failed(format!("{what} /dev/ublkb{id}"), error);
    let began = Instant::now();
    while u32::from(control.dev_info().state) != sys::UBLK_S_DEV_DEAD {
        if began.elapsed() >= AFTER_A_KILL {
            return Err(UblkError::InUse(id));
        }
        std::thread::sleep(PAUSE);
        control.read_dev_info().map_err(|error| told("look at", error))?;
    }
    control.del_dev_async().map_err(|error| told("delete the dead", error))?;
    Ok(())
}
