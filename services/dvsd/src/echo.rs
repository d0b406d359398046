// SPDX-License-Identifier: MIT OR Apache-2.0
//! The echo server: a thread with an endpoint in the system container that answers pings.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::kernel::{Failure, Kernel, Messenger};
use crate::ledger::Ledger;

/// How long the server waits before it looks whether it is still wanted.
const PATIENCE: Duration = Duration::from_secs(1);

/// A running echo server. It ends soon after this is dropped, or when its endpoint dies.
#[derive(Debug)]
pub struct Echo {
    /// 0 once the server has ended.
    endpoint: Arc<AtomicU64>,
}

impl Echo {
    /// Binds an endpoint and serves it.
    ///
    /// # Errors
    /// For people: why there is no endpoint or thread.
    pub fn start(kernel: &dyn Kernel) -> Result<Self, String> {
        let messenger = kernel.bind()?;
        let endpoint = Arc::new(AtomicU64::new(messenger.endpoint().raw()));
        let shared = Arc::clone(&endpoint);
        thread::Builder::new()
            .name("echo".into())
            .spawn(move || serve(messenger, shared))
            .map_err(|error| format!("start the thread of the echo server: {error}"))?;
        Ok(Self { endpoint })
    }

    /// Its endpoint; `None` if it has ended.
    pub fn endpoint(&self) -> Option<u64> {
        Some(self.endpoint.load(Ordering::Acquire)).filter(|endpoint| *endpoint != 0)
    }
}

fn serve(mut messenger: Box<dyn Messenger>, endpoint: Arc<AtomicU64>) {
    let mut ledger = Ledger::default();
    while Arc::strong_count(&endpoint) > 1 {
        match messenger.receive(PATIENCE) {
            Ok(request) => messenger.reply(request.source(), &ledger.answer(&request)),
            Err(Failure::TimedOut) => {}
            Err(Failure::Other(_)) => break,
        }
    }
    endpoint.store(0, Ordering::Release);
}
