// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that are in a blocking call, and processes likewise.

use anyhow::{anyhow, bail, ensure, Context, Result};
use rustix::thread::Pid;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread may take to fall asleep in its call, or to come out of it when it should, on a
/// machine that is not slow.
const PATIENCE: Duration = Duration::from_secs(8);
/// By what that is multiplied in this process.
static SLOW: AtomicU32 = AtomicU32::new(1);
/// How long a call is watched before it is said to wait.
pub(crate) const WATCH: Duration = Duration::from_millis(60);

/// How long to wait for what is expected to come soon. What takes longer counts as hanging.
pub(crate) fn patience() -> Duration {
    PATIENCE * slow()
}

/// Has this process be more patient, by a factor that is not 0.
pub(crate) fn be_slow(factor: u32) {
    SLOW.store(factor, Ordering::Relaxed);
}

/// By how much this process is more patient.
pub(crate) fn slow() -> u32 {
    SLOW.load(Ordering::Relaxed)
}

/// A thread that makes one call.
pub(crate) struct Blocked<T> {
    thread: JoinHandle<T>,
}

/// Makes `call` in a thread, and returns when the thread sleeps in it (or is over with it).
pub(crate) fn blocked<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<Blocked<T>> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // A receiver that is gone means that the case has failed already.
        let _ = sender.send(rustix::thread::gettid());
        call()
    });
    let tid = receiver.recv().context("the thread did not start")?;
    let blocked = Blocked { thread };
    until_thread_sleeps(tid, || blocked.is_over())?;
    Ok(blocked)
}

impl<T> Blocked<T> {
    /// Whether the call is over.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Checks that the call goes on waiting.
    pub(crate) fn waits(&self, what: &str) -> Result<()> {
        std::thread::sleep(WATCH);
        ensure!(!self.is_over(), "{what}: the call is over, but should wait");
        Ok(())
    }

    /// What the call returned; it must be over soon.
    pub(crate) fn join(self, what: &str) -> Result<T> {
        until(what, || Ok(self.is_over()))?;
        self.thread.join().map_err(|_| anyhow!("{what}: the thread panicked"))
    }
}

/// Waits until the thread of this process with this id sleeps in a call, or is over with it.
pub(crate) fn until_thread_sleeps(thread: Pid, is_over: impl Fn() -> bool) -> Result<()> {
    let stat = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    until("a thread to wait in its call", || Ok(is_over() || sleeps(&stat)?))
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        if begin.elapsed() > patience() {
            bail!("waited {} s for {what}", patience().as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether the thread with this `stat` file sleeps; one that is gone does not.
fn sleeps(path: &str) -> Result<bool> {
    match std::fs::read_to_string(path) {
        Ok(stat) => Ok(state(&stat) == Some('S')),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        // ESRCH: it went away between open and read.
        Err(error) if error.raw_os_error() == Some(3) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("read {path}")),
    }
}

/// The state letter of a `stat` line; the name before it may hold anything, even `)`.
fn state(stat: &str) -> Option<char> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_the_last_parenthesis() {
        assert_eq!(state("17 (a) R (b)) S 1 17"), Some('S'));
        assert_eq!(state("17 (init) R 0 1"), Some('R'));
        assert_eq!(state(""), None);
    }

    #[test]
    fn a_thread_in_a_call_is_seen_to_wait() {
        let (sender, receiver) = mpsc::channel::<u32>();
        let blocked = blocked(move || receiver.recv()).unwrap();
        blocked.waits("recv").unwrap();
        sender.send(3).unwrap();
        assert_eq!(blocked.join("recv").unwrap(), Ok(3));
    }

    #[test]
    fn a_call_that_does_not_wait_is_caught() {
        let blocked = blocked(|| 3).unwrap();
        assert!(blocked.waits("nothing").is_err());
        assert_eq!(blocked.join("nothing").unwrap(), 3);
    }
}
