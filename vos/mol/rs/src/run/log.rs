// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said to people: by this program, and by the servers.
//!
//! Whoever reads may be slow, or gone. So one thread writes, and nobody waits for it: what finds no room any more is counted, and that is said
//! when there is room again.

use super::thread;
use crate::error::Error;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many lines wait at most.
const LINES_MAX: usize = 1_024;
/// How often it is looked whether all is written.
const LOOK: Duration = Duration::from_millis(10);

/// Where lines are given.
#[derive(Clone, Debug)]
pub(super) struct Log {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines that wait, or are being written.
    waiting: AtomicU64,
    /// Lines that found no room, and of which nothing was said.
    lost: AtomicU64,
}

impl Log {
    /// Begins to write lines to standard error.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn start() -> Result<Self, Error> {
        Self::to(io::stderr())
    }

    fn to(mut output: impl Write + Send + 'static) -> Result<Self, Error> {
        let (lines, to_write) = sync_channel(LINES_MAX);
        let counts = Arc::<Counts>::default();
        let its = counts.clone();
        thread("log", move || write_all(&mut output, &to_write, &its))?;
        Ok(Self { lines, counts })
    }

    /// Says something of this program.
    pub(super) fn say(&self, text: impl core::fmt::Display) {
        self.pass_on(format!("mol-rs: {text}\n").into_bytes());
    }

    /// Passes a line on, with its end. Never waits.
    pub(super) fn pass_on(&self, line: Vec<u8>) {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.lines.try_send(line).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is written, at most so long.
    pub(super) fn await_written(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.counts.waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }
}

fn write_all(output: &mut impl Write, lines: &Receiver<Vec<u8>>, counts: &Counts) {
    for line in lines {
        // In one piece, so that those of several servers are not mixed. Servers go on if nobody listens.
        let _ = output.write_all(&line);
        let lost = counts.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let missing = format!("mol-rs: {lost} lines are missing, written faster than read\n");
            let _ = output.write_all(missing.as_bytes());
        }
        counts.waiting.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{channel, Sender};
    use std::sync::Mutex;

    /// Takes a line each time that it may.
    struct Slow {
        may: Mutex<Receiver<()>>,
        written: Sender<String>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let may = self.may.get_mut().unwrap().recv();
            may.map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.written.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_who_does_not_read_and_what_is_lost_is_counted() {
        let (allow, may) = channel();
        let (written, read) = channel();
        let log = Log::to(Slow { may: Mutex::new(may), written }).unwrap();
        // One is being written, and so many wait.
        let most = LINES_MAX + 1;
        for line in 0..most + 100 {
            log.say(line);
        }
        let kept = log.counts.waiting.load(Ordering::Relaxed) as usize;
        let lost = log.counts.lost.load(Ordering::Relaxed) as usize;
        assert_eq!(kept + lost, most + 100);
        assert!((LINES_MAX..=most).contains(&kept), "{kept}");
        log.await_written(Duration::from_millis(20));
        assert!(read.try_recv().is_err(), "nobody has read");
        for _ in 0..=kept {
            allow.send(()).unwrap();
        }
        log.await_written(Duration::from_secs(60));
        let lines: Vec<String> = read.try_iter().collect();
        assert_eq!(lines[0], "mol-rs: 0\n");
        assert!(lines[1].starts_with(&format!("mol-rs: {lost} lines are missing")), "{}", lines[1]);
        assert_eq!(
            lines[2..],
            (1..kept).map(|line| format!("mol-rs: {line}\n")).collect::<Vec<_>>()
        );
        // Nor for who is gone.
        drop(allow);
        (0..10).for_each(|line| log.say(line));
        log.await_written(Duration::from_secs(60));
        assert_eq!(log.counts.waiting.load(Ordering::Relaxed), 0);
    }
}
