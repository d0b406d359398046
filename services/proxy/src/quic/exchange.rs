// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames over one connection, both ways.

use super::endpoint::{explain, Ends};
use super::Broken;
use crate::batch::{pieces, Decoder, Encoder, HEAD_BYTES, PLAIN_BYTES_MAX};
use crate::link::{Link, Refused};
use crate::passage::Passage;
use anyhow::{anyhow, Context};
use core::future::Future;
use core::pin::pin;
use core::task::{Context as Polling, Poll, Waker};
use dvk::Frames;
use quinn::{Connection, ConnectionError, ReadToEndError, SendDatagramError, WriteError};
use std::time::Instant;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

impl From<ConnectionError> for Broken {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(anyhow!(explain(&error)))
    }
}

/// Exchanges frames until the connection is over, or replaced by another one of the peer's. Says why, and gives the other one.
pub(super) async fn run<L: Link>(
    passage: Passage<'_, L>,
    connection: &Connection,
    ends: &mut Ends,
    frames: Receiver<Frames>,
) -> (Broken, Option<Connection>) {
    tokio::select! {
        Err(broken) = send(passage, connection, frames) => (broken, None),
        Err(broken) = receive(passage, connection) => (broken, None),
        error = connection.closed() => (error.into(), None),
        // It has proved to be the peer, which has forgotten this one then.
        next = ends.accept(passage) => {
            (Broken::Connection(anyhow!("the peer has connected anew")), Some(next))
        }
    }
}

/// Sends frames until there are none any more: then the thread that fetches them knows why.
async fn send<L: Link>(
    passage: Passage<'_, L>,
    connection: &Connection,
    mut from: Receiver<Frames>,
) -> Result<core::convert::Infallible, Broken> {
    let mut encoder = Encoder::new(passage.compression).map_err(Broken::Link)?;
    let (mut long, mut bytes) = (Frames::new(), Vec::new());
    while let Some(frames) = from.recv().await {
        long.clear();
        let mut carried = 0;
        for frame in frames.iter() {
            // How long a packet may be changes with what is found out about the path.
            if connection.max_datagram_size().is_some_and(|max| frame.len() <= max) {
                match connection.send_datagram_wait(frame.to_vec().into()).await {
                    Ok(()) => carried += frame.len(),
                    Err(SendDatagramError::ConnectionLost(error)) => return Err(error.into()),
                    // The path has become narrower since it was asked.
                    Err(_) => long.push(frame),
                }
            } else {
                long.push(frame);
            }
        }
        for piece in pieces(long.as_bytes()) {
            bytes.clear();
            encoder.encode(piece, &mut bytes).map_err(Broken::Link)?;
            let began = Instant::now();
            let mut stream = connection.open_uni().await?;
            stream.write_all(&bytes).await.map_err(|error| match error {
                WriteError::ConnectionLost(error) => error.into(),
                other => Broken::Connection(anyhow!("writing frames: {other}")),
            })?;
            // Who finishes a stream that was not stopped does not fail.
            let _ = stream.finish();
            encoder.taken(bytes.len(), began.elapsed());
            carried += bytes.len();
        }
        passage.counters.sent(&frames, carried);
    }
    Err(Broken::Connection(anyhow!("there are no frames any more")))
}

/// Receives frames.
async fn receive<L: Link>(
    passage: Passage<'_, L>,
    connection: &Connection,
) -> Result<core::convert::Infallible, Broken> {
    let mut streams = JoinSet::new();
    let (mut decoder, mut frames) = (Decoder::default(), Frames::new());
    loop {
        tokio::select! {
            datagram = connection.read_datagram() => {
                frames.clear();
                frames.push(&datagram?);
                // What has come meanwhile goes with it.
                while frames.has_room(PLAIN_BYTES_MAX) {
                    let Some(next) = ready(connection.read_datagram()) else { break };
                    frames.push(&next?);
                }
                put(passage, &frames, frames.iter().map(<[u8]>::len).sum())?;
            }
            stream = connection.accept_uni() => {
                let mut stream = stream?;
                // As many at once as the peer may open.
                streams.spawn(async move {
                    stream.read_to_end(HEAD_BYTES + PLAIN_BYTES_MAX).await
                });
            }
            Some(read) = streams.join_next() => {
                let read = read.context("reading a stream").map_err(Broken::Link)?;
                match read {
                    Ok(bytes) => take(passage, &bytes, &mut decoder, &mut frames)?,
                    Err(ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => {
                        return Err(error.into());
                    }
                    Err(error) => return Err(Broken::Connection(anyhow!("reading frames: {error}"))),
                }
            }
        }
    }
}

/// Takes what was in a stream.
fn take<L: Link>(
    passage: Passage<'_, L>,
    bytes: &[u8],
    decoder: &mut Decoder,
    frames: &mut Frames,
) -> Result<(), Broken> {
    decoder.incoming().extend_from_slice(bytes);
    while let Some(carried) = decoder.next(frames).map_err(Broken::Connection)? {
        put(passage, frames, carried)?;
    }
    if !decoder.is_empty() {
        return Err(Broken::Connection(anyhow!("a stream ended in the middle of a batch")));
    }
    Ok(())
}

fn put<L: Link>(passage: Passage<'_, L>, frames: &Frames, carried: usize) -> Result<(), Broken> {
    if frames.is_empty() {
        return Ok(());
    }
    passage.counters.received(frames, carried);
    match passage.link.put(frames) {
        Ok(()) | Err(Refused::Quiet) => Ok(()),
        Err(Refused::TakenOver) => Err(Broken::TakenOver),
        Err(Refused::Failed(error)) => Err(Broken::Link(error)),
    }
}

/// What a future gives if it need not wait.
fn ready<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Polling::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
