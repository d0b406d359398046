// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mechanisms. Each gives a client and a server, which are set up in processes of their own.

mod binder;
mod futex;
mod m3;
mod memory;
mod queue;
mod stream;

use anyhow::{bail, Result};
use core::any::Any;
use core::convert::Infallible;
use dvk_bench::{Mechanism, Task};

/// Bytes of a message.
pub(crate) const MESSAGE_BYTES: usize = 64;

/// What a server tells its client: where it is reached. What the words mean is up to the mechanism.
pub(crate) type Address = [u64; 2];
/// Does as many operations as it is told.
pub(crate) type Client = Box<dyn FnMut(u64) -> Result<()>>;
/// Answers until it is killed.
pub(crate) type Server = Box<dyn FnOnce() -> Result<Infallible>>;

/// A client and a server to be.
pub(crate) struct Pair {
    /// Runs in the server's process, first.
    pub(crate) server: Box<dyn FnOnce() -> Result<(Address, Server)>>,
    /// Runs in the client's process.
    pub(crate) client: Box<dyn FnOnce(Address) -> Result<Client>>,
    /// What the parent keeps for as long as both run.
    pub(crate) kept: Box<dyn Any>,
}

impl Pair {
    /// A pair whose server needs no address, since both inherit what connects them.
    fn connected(
        client: impl FnMut(u64) -> Result<()> + 'static,
        server: impl FnOnce() -> Result<Infallible> + 'static,
    ) -> Self {
        Self::keeping((), client, server)
    }

    /// The same, with something that the parent keeps.
    fn keeping(
        kept: impl Any,
        client: impl FnMut(u64) -> Result<()> + 'static,
        server: impl FnOnce() -> Result<Infallible> + 'static,
    ) -> Self {
        Self {
            server: Box::new(|| Ok(([0; 2], Box::new(server)))),
            client: Box::new(|_| Ok(Box::new(client))),
            kept: Box::new(kept),
        }
    }
}

/// Whether a mechanism can do a task.
pub(crate) fn can(mechanism: Mechanism, task: Task) -> bool {
    use Mechanism as M;
    match task {
        Task::RoundTrip => mechanism != M::ProcessVmReadv,
        Task::Copy(_) => {
            matches!(mechanism, M::M3 | M::Pipe | M::UnixStream | M::Tipc | M::ProcessVmReadv)
        }
    }
}

/// A pair for `task`.
///
/// # Errors
/// When the machine has not what the mechanism needs.
pub(crate) fn pair(mechanism: Mechanism, task: Task) -> Result<Pair> {
    match (task, mechanism) {
        (Task::RoundTrip, Mechanism::M3) => m3::round_trip(),
        (Task::RoundTrip, Mechanism::Pipe) => stream::pipes()?.round_trip(),
        (Task::RoundTrip, Mechanism::Fifo) => stream::fifos()?.round_trip(),
        (Task::RoundTrip, Mechanism::UnixStream) => stream::unix_stream()?.round_trip(),
        (Task::RoundTrip, Mechanism::UnixSeqpacket) => stream::unix_seqpacket()?.round_trip(),
        (Task::RoundTrip, Mechanism::PosixMq) => queue::posix(),
        (Task::RoundTrip, Mechanism::SysvQueue) => queue::sysv(),
        (Task::RoundTrip, Mechanism::Tcp) => stream::tcp()?.round_trip(),
        (Task::RoundTrip, Mechanism::Tipc) => stream::tipc_seqpacket()?.round_trip(),
        (Task::RoundTrip, Mechanism::Binder) => binder::round_trip(),
        (Task::RoundTrip, Mechanism::Futex) => futex::round_trip(),
        (Task::Copy(bytes), Mechanism::M3) => m3::copy(bytes),
        (Task::Copy(bytes), Mechanism::Pipe) => stream::pipes()?.copy(bytes),
        (Task::Copy(bytes), Mechanism::UnixStream) => stream::unix_stream()?.copy(bytes),
        (Task::Copy(bytes), Mechanism::Tipc) => stream::tipc_stream()?.copy(bytes),
        (Task::Copy(bytes), Mechanism::ProcessVmReadv) => memory::copy(bytes),
        (task, mechanism) => bail!("{mechanism} does no {task:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn what_a_mechanism_can_do_is_there() {
        for &mechanism in Mechanism::value_variants() {
            for task in [Task::RoundTrip, Task::Copy(4096)] {
                let refused = pair(mechanism, task)
                    .is_err_and(|error| error.to_string().contains(" does no "));
                assert_eq!(refused, !can(mechanism, task), "{mechanism} {task:?}");
            }
        }
    }
}
