// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory and time, as a process has them.

use crate::server::Outside;
use core::time::Duration;
use dvk::{Endpoint, Granted, Port, Timeout};
use mol_protocol::Errno;
use std::sync::Arc;
use std::time::Instant;

/// How long memory of another node may take to come. Clients have nothing to do with it, only the link has.
const COPY: Timeout = Timeout::from_millis(2000);
/// How long it is asked on another node whether an endpoint is gone.
const ASKING: Timeout = Timeout::from_millis(50);

pub(super) struct Kernel {
    port: Arc<Port>,
    began: Instant,
}

impl Kernel {
    pub(super) fn new(port: Arc<Port>) -> Self {
        Self { port, began: Instant::now() }
    }
}

impl Outside for Kernel {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), Errno> {
        self.port.copy_from(from, into, COPY).map_err(|_| Errno::Fault)
    }

    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), Errno> {
        self.port.copy_to(to, from, COPY).map_err(|_| Errno::Fault)
    }

    fn is_gone(&self, client: Endpoint) -> bool {
        self.port.wait_unbind(client, ASKING).is_ok()
    }
}
