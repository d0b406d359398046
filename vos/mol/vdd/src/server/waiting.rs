// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that wait for what they asked, and where their memory is.

use super::Outside;
use crate::replica::Request;
use dvk::protocol::Caller;
use dvk::{Endpoint, Granted, Message};
use mol_protocol::block;
use mol_protocol::segment::Segment;
use mol_protocol::Errno;

/// Memory that a client has lent, in one piece or several.
#[derive(Clone, Debug)]
pub(super) enum Place {
    One(Granted),
    Pieces(Endpoint, Vec<Segment>),
}

impl Place {
    /// The ranges of it, each of which goes on where the one before ends.
    fn pieces(&self, bytes: usize) -> Vec<(Granted, usize)> {
        match self {
            Self::One(granted) => vec![(*granted, bytes)],
            Self::Pieces(client, segments) => {
                let piece = |it: &Segment| (it.grant.of(*client, it.offset), it.bytes as usize);
                segments.iter().map(piece).collect()
            }
        }
    }

    /// Copies blocks into it, which it has room for.
    pub(super) fn fill<O: Outside>(&self, outside: &O, mut data: &[u8]) -> Result<(), Errno> {
        for (granted, bytes) in self.pieces(data.len()) {
            let (piece, rest) = data.split_at_checked(bytes).ok_or(Errno::Invalid)?;
            outside.copy_to(granted, piece)?;
            data = rest;
        }
        Ok(())
    }

    /// Copies blocks out of it.
    pub(super) fn take<O: Outside>(&self, outside: &O, bytes: usize) -> Result<Vec<u8>, Errno> {
        let mut data = vec![0; bytes];
        let mut rest = &mut data[..];
        for (granted, bytes) in self.pieces(bytes) {
            let (piece, after) = rest.split_at_mut_checked(bytes).ok_or(Errno::Invalid)?;
            outside.copy_from(granted, piece)?;
            rest = after;
        }
        Ok(data)
    }
}

/// Who waits, for what.
#[derive(Debug)]
pub(super) enum Waiting {
    Read(Caller<block::Read>, Place),
    ReadPieces(Caller<block::ReadPieces>, Place),
    Write(Caller<block::Write>),
    WritePieces(Caller<block::WritePieces>),
    Flush(Caller<block::Flush>),
    Trim(Caller<block::Trim>),
}

impl Waiting {
    pub(super) fn client(&self) -> Endpoint {
        match self {
            Self::Read(caller, _) => caller.endpoint(),
            Self::ReadPieces(caller, _) => caller.endpoint(),
            Self::Write(caller) => caller.endpoint(),
            Self::WritePieces(caller) => caller.endpoint(),
            Self::Flush(caller) => caller.endpoint(),
            Self::Trim(caller) => caller.endpoint(),
        }
    }

    /// Where blocks that were read are to go.
    pub(super) fn place(&self) -> Option<&Place> {
        match self {
            Self::Read(_, place) | Self::ReadPieces(_, place) => Some(place),
            _ => None,
        }
    }

    /// The answer, once the request was done or why it was not.
    pub(super) fn answer(
        self,
        request: &Request,
        result: Result<(), Errno>,
    ) -> (Endpoint, Message) {
        let bytes = match request {
            Request::Read { bytes, .. } => *bytes,
            Request::Change(change) => change.range().1,
            Request::Flush => 0,
        };
        match self {
            Self::Read(caller, _) => caller.answer(result),
            Self::ReadPieces(caller, _) => caller.answer(result.map(|()| bytes)),
            Self::Write(caller) => caller.answer(result),
            Self::WritePieces(caller) => caller.answer(result.map(|()| bytes)),
            Self::Flush(caller) => caller.answer(result),
            Self::Trim(caller) => caller.answer(result),
        }
    }
}
