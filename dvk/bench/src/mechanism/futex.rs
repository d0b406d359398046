// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages in shared memory, and futexes to wait with. The kernel sees no message and copies none: what this costs is what
//! any message passing that sleeps has to pay.

use super::{Pair, MESSAGE_BYTES};
use crate::sys::shared_words;
use anyhow::{Context, Result};
use core::convert::Infallible;
use core::sync::atomic::{AtomicU32, Ordering};
use rustix::io::Errno;
use rustix::thread::futex::{wait, wake, Flags};

/// Words of a message.
const WORDS: usize = MESSAGE_BYTES / 4;

/// A place for one message, and how many have been put there.
#[derive(Clone, Copy)]
struct Mailbox(&'static [AtomicU32]);

impl Mailbox {
    fn new() -> Result<Self> {
        // A page each, so that they share no cache line.
        let words = shared_words(1024).context("making memory for two processes")?;
        Ok(Self(&words[..WORDS + 1]))
    }

    fn put(self, number: u32, message: &[u32; WORDS]) -> Result<()> {
        for (word, value) in self.0[1..].iter().zip(message) {
            word.store(*value, Ordering::Relaxed);
        }
        self.0[0].store(number, Ordering::Release);
        wake(&self.0[0], Flags::empty(), 1)?;
        Ok(())
    }

    fn take(self, number: u32, message: &mut [u32; WORDS]) -> Result<()> {
        loop {
            let seen = self.0[0].load(Ordering::Acquire);
            if seen == number {
                break;
            }
            match wait(&self.0[0], Flags::empty(), seen, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (word, value) in self.0[1..].iter().zip(message) {
            *value = word.load(Ordering::Relaxed);
        }
        Ok(())
    }
}

pub(super) fn round_trip() -> Result<Pair> {
    let (there, back) = (Mailbox::new()?, Mailbox::new()?);
    let (mut number, mut message) = (0u32, [1; WORDS]);
    let go = move |count| {
        for _ in 0..count {
            number = number.wrapping_add(1);
            there.put(number, &message)?;
            back.take(number, &mut message)?;
        }
        Ok(())
    };
    let serve = move || -> Result<Infallible> {
        let (mut number, mut message) = (0u32, [0; WORDS]);
        loop {
            number = number.wrapping_add(1);
            there.take(number, &mut message)?;
            back.put(number, &message)?;
        }
    };
    Ok(Pair::connected(go, serve))
}
