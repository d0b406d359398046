// SPDX-License-Identifier: MIT OR Apache-2.0
//! A queue of a block device: one thread takes its requests and answers them.

use super::failed;
use crate::ublk::{Request, Requests, UblkError};
use core::mem::ManuallyDrop;
use libublk::helpers::IoBuf;
use libublk::io::{with_task_io_ring, BufDesc, BufDescList, UblkDev, UblkIOCtx, UblkQueue};
use libublk::{sys, UblkIORes};
use mol_protocol::Errno;
use std::collections::VecDeque;
use std::io;

const OK: i32 = sys::UBLK_IO_RES_OK as i32;

/// A request that was taken, and has to be answered.
#[must_use = "Linux waits for the answer"]
pub(super) struct Taken {
    request: Request,
    tag: u16,
}

/// The requests of one queue, for the thread that made it and no other.
pub(super) struct Queue<'d> {
    driver: UblkQueue<'d>,
    /// Where the data of each tag is. They are not freed: the driver may write them as long as the process has the device.
    buffers: ManuallyDrop<Vec<IoBuf<u8>>>,
    /// Tags whose requests have come and were not looked at yet.
    waiting: VecDeque<u16>,
}

impl<'d> Queue<'d> {
    /// Takes requests for a device that has not been started.
    pub(super) fn new(device: &'d UblkDev, number: u16) -> Result<Self, UblkError> {
        let told = |error| failed(format!("make queue {number}"), error);
        let driver = UblkQueue::new(number, device).map_err(told)?;
        let mut buffers = ManuallyDrop::new(device.alloc_queue_io_bufs());
        buffers.iter_mut().for_each(IoBuf::zero_buf);
        let driver = driver
            .submit_fetch_commands_unified(BufDescList::Slices(Some(&buffers)))
            .map_err(told)?;
        let mut queue = Self { driver, buffers, waiting: VecDeque::new() };
        // What the driver does not take of it, it says at once.
        queue.listen(0)?;
        Ok(queue)
    }

    fn failed(&self, what: &str, error: libublk::UblkError) -> UblkError {
        failed(format!("{what} queue {}", self.driver.get_qid()), error)
    }

    /// Says to the driver what is to be said, and waits until there are at least so many answers, or a while. False if there will be
    /// none: the device was stopped, and all requests are answered.
    fn listen(&mut self, wait_for: usize) -> Result<bool, UblkError> {
        let (mut refused, waiting) = (None, &mut self.waiting);
        let heard = self.driver.flush_and_wake_io_tasks(
            |user_data, answer, _| match answer.result() {
                OK => waiting.push_back(UblkIOCtx::user_data_to_tag(user_data) as u16),
                // There will be none for this tag any more.
                sys::UBLK_IO_RES_ABORT => {}
                result => refused = Some(libublk::UblkError::UringIOError(result)),
            },
            wait_for,
        );
        match (heard, refused) {
            (Ok(_), None) => Ok(true),
            (Err(libublk::UblkError::QueueIsDown), None) => Ok(false),
            (Err(libublk::UblkError::IOError(error)), None)
                if error.kind() == io::ErrorKind::Interrupted =>
            {
                Ok(true)
            }
            (_, Some(error)) | (Err(error), None) => Err(self.failed("take requests of", error)),
        }
    }

    fn taken(&mut self) -> Option<Taken> {
        let tag = self.waiting.pop_front()?;
        Some(Taken { request: Request::from(*self.driver.get_iod(tag)), tag })
    }
}

impl Requests for Queue<'_> {
    type Taken = Taken;
    type Error = UblkError;

    fn take(&mut self) -> Result<Option<Taken>, UblkError> {
        loop {
            if let Some(taken) = self.taken() {
                return Ok(Some(taken));
            }
            if !self.listen(1)? {
                return Ok(None);
            }
        }
    }

    fn take_waiting(&mut self) -> Result<Option<Taken>, UblkError> {
        if self.waiting.is_empty() {
            self.listen(0)?;
        }
        Ok(self.taken())
    }

    fn request(&self, taken: &Taken) -> Request {
        taken.request
    }

    fn data(&mut self, taken: &Taken) -> &mut [u8] {
        self.buffers[usize::from(taken.tag)].as_mut_slice()
    }

    fn answer(&mut self, taken: Taken, done: Result<(), Errno>) -> Result<(), UblkError> {
        let data = BufDesc::from_io_buf(&self.buffers[usize::from(taken.tag)]);
        let result = Ok(UblkIORes::Result(taken.request.answer(done)));
        self.driver
            .complete_io_cmd_unified(taken.tag, data, result)
            .and_then(|()| Ok(with_task_io_ring(|ring| ring.submit())?))
            .map(|_| ())
            .map_err(|error| self.failed("answer a request of", error))
    }
}
