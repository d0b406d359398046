// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pings another node's echo server; blocks its thread for as long as that takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dvk_abi::Endpoint;
use dvs_api::{PingRequest, PingResult};

use crate::kernel::{Failure, Kernel};
use crate::ledger::Tally;

/// Makes `request.count` round trips from node `from` to the echo server `echo`, or fewer once
/// `cancelled` is set. `run` is a random number.
///
/// # Errors
/// For people: why a round trip failed otherwise than by taking too long. The run ends there.
pub fn run(
    kernel: &dyn Kernel,
    request: &PingRequest,
    from: u32,
    echo: Endpoint,
    run: u64,
    cancelled: &AtomicBool,
) -> Result<PingResult, String> {
    let mut messenger = kernel.bind()?;
    let timeout = Duration::from_millis(request.timeout_ms);
    let mut tally = Tally::new(run);
    for done in 0..request.count {
        if cancelled.load(Ordering::Relaxed) {
            break;
        }
        if done > 0 && request.interval_ms > 0 {
            thread::sleep(Duration::from_millis(request.interval_ms));
        }
        let message = tally.next_request();
        let start = Instant::now();
        match messenger.request(echo, &message, timeout) {
            Ok(reply) => tally.received(&reply, start.elapsed().as_nanos() as u64),
            Err(Failure::TimedOut) => tally.timed_out(),
            Err(Failure::Other(why)) => {
                let (sent, to) = (done + 1, request.to);
                return Err(format!("ping {sent} of {} to node {to} failed: {why}", request.count));
            }
        }
    }
    Ok(tally.result(from, request.to))
}
