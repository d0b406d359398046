// SPDX-License-Identifier: MIT OR Apache-2.0
//! A queue of a device: one thread takes its requests and answers them.

use crate::abi::{self, Request, COMMIT_AND_FETCH, FETCH};
use crate::device::UblkError;
use crate::sys::QueueRing;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What the driver answers when a device is being stopped.
const ENODEV: i32 = 19;

/// A request that was taken, and has to be answered.
#[derive(Debug)]
#[must_use = "Linux waits for the answer"]
pub struct Taken {
    /// What is asked.
    pub request: Request,
    tag: u16,
}

/// The requests of one queue.
pub struct Queue {
    ring: QueueRing,
    number: u16,
    /// Tags whose requests have come and were not looked at yet.
    waiting: VecDeque<u16>,
    /// How many tags the driver has, from which a request may come or which it gives back.
    open: u16,
}

impl core::fmt::Debug for Queue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Queue({})", self.number)
    }
}

impl Queue {
    /// Takes requests for a device that has not been started, in the thread that calls it and no other.
    pub(crate) fn new(file: File, number: u16, depth: u16) -> Result<Self, UblkError> {
        let failed = |error| UblkError::Queue { what: "make", queue: number, error };
        let mut ring = QueueRing::new(file, number, depth).map_err(failed)?;
        for tag in 0..depth {
            ring.say(FETCH, tag, 0).map_err(failed)?;
        }
        ring.submit(0).map_err(failed)?;
        Ok(Self { ring, number, waiting: VecDeque::new(), open: depth })
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> UblkError {
        let queue = self.number;
        move |error| UblkError::Queue { what, queue, error }
    }

    /// The next request, however long it takes; `None` if the device was stopped and all requests are answered.
    ///
    /// # Errors
    /// [`UblkError::Queue`]: the driver does not do what it should.
    pub fn take(&mut self) -> Result<Option<Taken>, UblkError> {
        loop {
            if let Some(taken) = self.take_waiting()? {
                return Ok(Some(taken));
            }
            if self.open == 0 {
                return Ok(None);
            }
            self.ring.submit(1).map_err(self.failed("wait for a request of"))?;
        }
    }

    /// A request that has come already.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_waiting(&mut self) -> Result<Option<Taken>, UblkError> {
        while let Some((tag, result)) = self.ring.hear() {
            self.open = self.open.saturating_sub(1);
            match result {
                0 => self.waiting.push_back(tag),
                // There will be none for this tag any more.
                result if result == -ENODEV => {}
                result => {
                    let error = io::Error::from_raw_os_error(-result);
                    return Err(self.failed("take requests of")(error));
                }
            }
        }
        let Some(tag) = self.waiting.pop_front() else { return Ok(None) };
        let Some(descriptor) = self.ring.descriptor(tag) else {
            let error = io::Error::other(format!("there is no tag {tag}"));
            return Err(self.failed("take requests of")(error));
        };
        Ok(Some(Taken { request: Request::decode(&descriptor), tag }))
    }

    /// Has the data of a write.
    ///
    /// # Errors
    /// [`UblkError::Queue`].
    pub fn read_data(&self, taken: &Taken, into: &mut [u8]) -> Result<(), UblkError> {
        let offset = abi::data_offset(self.number, taken.tag);
        self.ring.file().read_exact_at(into, offset).map_err(self.failed("copy data from"))
    }

    /// Gives the data of a read.
    ///
    /// # Errors
    /// [`UblkError::Queue`].
    pub fn write_data(&self, taken: &Taken, from: &[u8]) -> Result<(), UblkError> {
        let offset = abi::data_offset(self.number, taken.tag);
        self.ring.file().write_all_at(from, offset).map_err(self.failed("copy data to"))
    }

    /// Answers a request: that it was done, or with an errno of Linux why not.
    ///
    /// # Errors
    /// [`UblkError::Queue`].
    #[expect(clippy::needless_pass_by_value, reason = "a request is answered once")]
    pub fn answer(&mut self, taken: Taken, done: Result<(), i32>) -> Result<(), UblkError> {
        let result = match done {
            // There are at most 32 MiB.
            Ok(()) => taken.request.data_bytes() as i32,
            Err(errno) => -errno.abs(),
        };
        let failed = self.failed("answer a request of");
        self.ring.say(COMMIT_AND_FETCH, taken.tag, result).map_err(failed)?;
        self.open += 1;
        self.ring.submit(0).map_err(self.failed("answer a request of"))
    }
}
