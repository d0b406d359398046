// SPDX-License-Identifier: MIT OR Apache-2.0
//! How members reach each other: bytes there, bytes back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::types::Peer;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request did not leave this node, so it has done nothing.
    #[error("the node cannot be reached")]
    NotSent,
    /// The request may have arrived.
    #[error("the node did not answer")]
    NoAnswer,
}

/// An answer to come.
pub type Call<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, CallError>> + Send + 'a>>;

/// Carries requests to the members on other nodes, which answer them by [`Consensus::serve`](crate::Consensus::serve).
///
/// It must see to it that whoever is at the other end belongs to the cluster: the bytes are not authenticated otherwise. It may lose,
/// repeat and delay. A caller that does not want to wait drops the call.
pub trait Transport: Send + Sync + 'static {
    /// Asks a node.
    fn call<'a>(&'a self, peer: &'a Peer, request: Vec<u8>) -> Call<'a>;
}

impl fmt::Debug for dyn Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}
