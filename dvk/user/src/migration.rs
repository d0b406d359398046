// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints that change their place: by moving to another node, or by their backup's promotion.

use crate::control::Control;
use crate::error::{Call, Error, Subject};
use crate::sys;
use crate::timeout::Timeout;
use dvk_abi::errno::Errno;
use dvk_abi::{ioctl, Endpoint};

/// More than any endpoint's state has, so that a mistaken length takes no memory.
const STATE_BYTES_MAX: usize = 1 << 30;

/// The move of an endpoint to another node. It is started, and then committed or rolled back, on
/// every node of the container: see [`Control::migrate_start`].
///
/// The original DVS has the same steps (`migrate` with start, commit and rollback; the paper has the
/// outcome in III-C). That senders are queued and replayed is the kernel's affair; that the process
/// and its memory move is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Migration {
    /// The container.
    pub container: u32,
    /// The endpoint, which keeps its value.
    pub endpoint: Endpoint,
    /// The node it lives on.
    pub source: u32,
    /// The node it is to live on.
    pub destination: u32,
    /// Number of the move: the same on every node, not 0, and higher than at any move of the slot
    /// before.
    pub epoch: u32,
}

impl Migration {
    fn end(&self) -> ioctl::MigrateEnd {
        let Self { container, endpoint, epoch, .. } = *self;
        ioctl::MigrateEnd { endpoint: endpoint.raw(), container, epoch }
    }

    fn error(&self, call: Call, errno: rustix::io::Errno) -> Error {
        let subject = Subject::Of(self.endpoint);
        Error { call, subject, container: Some(self.container), errno }
    }
}

/// Migration and replicas.
impl Control {
    /// Freezes an endpoint of this node that is to move, and gives what the destination needs to
    /// know of it. To be called on the endpoint's node first, and
    /// [`migrate_follow`](Self::migrate_follow) then on the others.
    ///
    /// `timeout` is for the endpoint to be in no call but `receive`.
    ///
    /// # Errors
    /// `ENODEV` for an unknown container, `ESRCH` or `ESTALE` if there is no such endpoint,
    /// `ETIMEDOUT` or `EAGAIN` if it was not ready in time.
    pub fn migrate_start(&self, migration: &Migration, timeout: Timeout) -> Result<Vec<u8>, Error> {
        let mut state = vec![0; 4096];
        loop {
            let had = state.len();
            let (result, len) = self.migrate(migration, &mut state, timeout);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            match result {
                Ok(()) => {
                    state.truncate(len);
                    return Ok(state);
                }
                Err(error) if error.is(Errno::TooLong) && had < len && len <= STATE_BYTES_MAX => {
                    state.resize(len, 0);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Follows [`migrate_start`](Self::migrate_start) on the destination, which takes the `state`
    /// that the source gave, and on all other nodes, which ignore it.
    ///
    /// `timeout` is for the source to confirm.
    ///
    /// # Errors
    /// As there; `EINVAL` if `state` is not what a source gives.
    pub fn migrate_follow(
        &self,
        migration: &Migration,
        state: &[u8],
        timeout: Timeout,
    ) -> Result<(), Error> {
        // Were this the source after all, the kernel would write there.
        let mut state = state.to_vec();
        self.migrate(migration, &mut state, timeout).0
    }

    fn migrate(
        &self,
        migration: &Migration,
        state: &mut [u8],
        timeout: Timeout,
    ) -> (Result<(), Error>, u64) {
        let block = ioctl::Migrate {
            endpoint: migration.endpoint.raw(),
            container: migration.container,
            source: migration.source,
            destination: migration.destination,
            epoch: migration.epoch,
            timeout_ns: timeout.as_ns(),
            ..ioctl::Migrate::default()
        };
        let (result, len) = sys::migrate_start(&self.file, block, state);
        let failed = |errno| migration.error(Call::MigrateStart, errno);
        (result.map_err(failed), len)
    }

    /// The endpoint lives on its new node from here on. To be called on every node, on the
    /// source next to last and on the destination last.
    ///
    /// # Errors
    /// `ENODEV` for an unknown container, `ESTALE` if this move was not started here or was rolled
    /// back, `ENOTCONN` on the destination if nobody has adopted the endpoint.
    pub fn migrate_commit(&self, migration: &Migration) -> Result<(), Error> {
        let mut block = migration.end();
        sys::call::<{ ioctl::MIGRATE_COMMIT }, _>(&self.file, &mut block)
            .map_err(|errno| migration.error(Call::MigrateCommit, errno))
    }

    /// The endpoint stays where it was. To be called on every node, on the source first.
    ///
    /// # Errors
    /// As [`migrate_commit`](Self::migrate_commit).
    pub fn migrate_rollback(&self, migration: &Migration) -> Result<(), Error> {
        let mut block = migration.end();
        sys::call::<{ ioctl::MIGRATE_ROLLBACK }, _>(&self.file, &mut block)
            .map_err(|errno| migration.error(Call::MigrateRollback, errno))
    }

    /// Says that `endpoint` of `container` lives on another node, and that others may have a
    /// replica of it, this one included.
    ///
    /// # Errors
    /// As [`endpoint_set_remote`](Self::endpoint_set_remote); though a replica of it on this node is
    /// none.
    pub fn endpoint_set_replicated(
        &self,
        container: u32,
        endpoint: Endpoint,
        node: u32,
    ) -> Result<(), Error> {
        let flags = ioctl::REMOTE_REPLICATED;
        let mut block =
            ioctl::RemoteEndpoint { endpoint: endpoint.raw(), container, node, flags, reserved: 0 };
        self.call::<{ ioctl::ENDPOINT_SET_REMOTE }, _>(
            Call::EndpointSetRemote,
            Subject::To(endpoint),
            Some(container),
            &mut block,
        )
    }

    /// The backup of `endpoint` on `node` takes its place, and the one that was bound can never
    /// speak again. To be called on every node of the container, on the backup's last, with one
    /// `epoch`, higher than any before.
    ///
    /// # Errors
    /// `ENODEV` for an unknown container, `ENOTCONN` if there is no backup on this node, which is to
    /// have one, `ESTALE` for an epoch that is not higher.
    pub fn promote_backup(
        &self,
        container: u32,
        endpoint: Endpoint,
        node: u32,
        epoch: u32,
    ) -> Result<(), Error> {
        let endpoint_raw = endpoint.raw();
        let mut block =
            ioctl::PromoteBackup { endpoint: endpoint_raw, container, node, epoch, reserved: 0 };
        let subject = Subject::Of(endpoint);
        self.call::<{ ioctl::PROMOTE_BACKUP }, _>(
            Call::PromoteBackup,
            subject,
            Some(container),
            &mut block,
        )
    }
}
