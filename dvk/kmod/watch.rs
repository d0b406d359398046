// SPDX-License-Identifier: GPL-2.0
//! Open files of the control device: where each is in the sequence of events.

use super::abi::errno::Errno;
use super::abi::ioctl::{Event, Events};
use super::dvs::{self, Dvs};
use super::local_port::Timeout;
use super::uapi::Argument;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Mutex};

/// An open file of the control device.
#[pin_data]
pub(crate) struct ControlFile {
    /// Number of the event to be read next; `None` before the first call. Held while events are
    /// copied out, so that several threads get each event once.
    #[pin]
    cursor: Mutex<Option<u64>>,
}

impl ControlFile {
    /// One that has read nothing.
    pub(crate) fn new() -> Result<Pin<KBox<Self>>, Errno> {
        let file = pin_init!(Self { cursor <- new_mutex!(None, "dvk_cursor") });
        KBox::pin_init(file, GFP_KERNEL).map_err(|_| Errno::NoMemory)
    }

    /// Whether [`events`](Self::events) would not wait.
    pub(crate) fn is_readable(&self, dvs: &Dvs) -> bool {
        // Whoever holds the lock is reading; what is left then, the next `poll` will tell.
        self.cursor.try_lock().is_some_and(|cursor| cursor.is_some_and(|at| at < dvs.next_event()))
    }

    /// Takes what happened since the last time, or waits for it.
    pub(crate) fn events(&self, argument: Argument) -> Result<(), Errno> {
        let mut block: Events = argument.read()?;
        if block.flags != 0 || block.count == 0 {
            return Err(Errno::Invalid);
        }
        let dvs = dvs::get()?;
        let timeout = Timeout::from_ns(block.timeout_ns);
        let room = core::mem::replace(&mut block.count, 0);
        loop {
            let from = self.copy_out(dvs, &mut block, room)?;
            if block.count != 0 || block.lost != 0 {
                return argument.write(&block);
            }
            let came = || dvs.next_event() > from;
            match timeout {
                Timeout::Never => return Err(Errno::WouldBlock),
                Timeout::Until(at) => dvs.watchers.wait(Some(at), came)?,
                Timeout::Forever => dvs.watchers.wait(None, came)?,
            }
        }
    }

    /// Copies as many events as there are, and room for, and returns the number of the next one.
    fn copy_out(&self, dvs: &Dvs, block: &mut Events, room: u32) -> Result<u64, Errno> {
        let mut guard = self.cursor.lock();
        let mut cursor = *guard.get_or_insert_with(|| dvs.next_event());
        while block.count < room {
            let mut after = cursor;
            let (event, lost) = dvs.read_event(&mut after);
            if lost != 0 && block.count != 0 {
                // What was lost comes before the events of a call.
                break;
            }
            if let Some(event) = event {
                let at = u64::from(block.count) * size_of::<Event>() as u64;
                let to = block.address.checked_add(at).ok_or(Errno::Fault)?;
                Argument(to as usize).write(&event)?;
                block.count += 1;
            }
            block.lost += lost;
            cursor = after;
            *guard = Some(cursor);
            if event.is_none() {
                break;
            }
        }
        *guard = Some(cursor);
        Ok(cursor)
    }
}
