// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transport as Raft uses it.

use std::sync::Arc;
use std::time::Duration;

use dvs_state::nodes::MemberId;
use openraft::error::{
    Infallible, InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, RaftNetwork, RaftNetworkFactory};

use crate::message::{decode, encode, Ask, Reply, Request};
use crate::transport::{CallError, Transport};
use crate::types::{Peer, TypeConfig};

/// Reaches the members of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub cluster: u64,
    pub transport: Arc<dyn Transport>,
    /// How long a member that cannot be reached is left alone.
    pub pause: Duration,
}

impl Network {
    /// Asks a member.
    pub(crate) async fn ask(
        &self,
        to: MemberId,
        peer: &Peer,
        body: Ask,
    ) -> Result<Reply, CallError> {
        let request = encode(&Request { cluster: self.cluster, to, body });
        let answer = self.transport.call(peer, request.ok_or(CallError::NotSent)?).await?;
        match decode(&answer) {
            Some(Reply::NotMe | Reply::Malformed) => Err(CallError::NotSent),
            Some(reply) => Ok(reply),
            None => Err(CallError::NoAnswer),
        }
    }
}

/// One member as Raft sees it.
pub(crate) struct Line {
    network: Network,
    to: MemberId,
    peer: Peer,
}

type RaftResult<T, E> = Result<T, RPCError<MemberId, Peer, RaftError<MemberId, E>>>;

impl Line {
    async fn ask<T, E: std::error::Error>(
        &self,
        ask: Ask,
        pick: impl FnOnce(Reply) -> Option<Result<T, RaftError<MemberId, E>>>,
    ) -> RaftResult<T, E> {
        let unreachable =
            |error: CallError| RPCError::Unreachable(Unreachable::from(AnyError::new(&error)));
        let reply = self.network.ask(self.to, &self.peer, ask).await.map_err(unreachable)?;
        match pick(reply) {
            Some(answer) => {
                answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.to, error)))
            }
            // An answer to another question is no answer.
            None => Err(unreachable(CallError::NoAnswer)),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Line;

    async fn new_client(&mut self, target: MemberId, node: &Peer) -> Line {
        Line { network: self.clone(), to: target, peer: *node }
    }
}

impl RaftNetwork<TypeConfig> for Line {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> RaftResult<AppendEntriesResponse<MemberId>, Infallible> {
        let pick = |reply| if let Reply::Append(answer) = reply { Some(answer) } else { None };
        self.ask(Ask::Append(rpc), pick).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> RaftResult<InstallSnapshotResponse<MemberId>, InstallSnapshotError> {
        let pick = |reply| if let Reply::Snapshot(answer) = reply { Some(answer) } else { None };
        self.ask(Ask::Snapshot(rpc), pick).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<MemberId>,
        _: RPCOption,
    ) -> RaftResult<VoteResponse<MemberId>, Infallible> {
        let pick = |reply| if let Reply::Vote(answer) = reply { Some(answer) } else { None };
        self.ask(Ask::Vote(rpc), pick).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.network.pause))
    }
}
