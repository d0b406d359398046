// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ctrl-C and its kin as something to look at, so that everything is torn down in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The signals that ask this process to end.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    last: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on they are noted instead of ending the process.
    pub(super) fn catch() -> Result<Signals> {
        let last = Arc::new(AtomicUsize::new(0));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register_usize(signal, last.clone(), signal as usize)
                .with_context(|| format!("catching signal {signal}"))?;
        }
        Ok(Signals { last })
    }

    /// The signal that came last, if any did.
    pub(super) fn seen(&self) -> Option<i32> {
        Some(self.last.load(Ordering::Relaxed) as i32).filter(|&signal| signal != 0)
    }

    /// The same, and forgets it, so that the next one is noticed.
    pub(super) fn take(&self) -> Option<i32> {
        Some(self.last.swap(0, Ordering::Relaxed) as i32).filter(|&signal| signal != 0)
    }
}

/// The exit status of a process that a signal ended, as shells have it.
pub(super) fn exit_status(signal: i32) -> u8 {
    128 + (signal & 0x7f) as u8
}
