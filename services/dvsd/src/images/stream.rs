// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies of requests and answers that do not fit into memory at once.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::mpsc;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait to be sent.
const QUEUE: usize = 4;

/// The next bytes of a body; `None` at its end.
pub(crate) async fn next(body: &mut Body) -> Result<Option<Bytes>, String> {
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(error.to_string()),
            // Trailers say nothing here.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(_) => continue,
            },
        }
    }
}

/// A file as a body. It is read where that holds nobody up; `held` is held until all of it was.
pub(super) fn of_file(file: File, held: impl Send + 'static) -> io::Result<Body> {
    let left = file.metadata()?.len();
    let (chunks, received) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let (mut file, _held) = (file, held);
        loop {
            let mut bytes = vec![0; CHUNK];
            let read = file.read(&mut bytes).map(|length| {
                bytes.truncate(length);
                Bytes::from(bytes)
            });
            let is_over = read.as_ref().is_ok_and(Bytes::is_empty);
            let has_failed = read.is_err();
            // Who has gone does not need the rest.
            if is_over || chunks.blocking_send(read).is_err() || has_failed {
                return;
            }
        }
    });
    Ok(Body::new(Chunks { received, left }))
}

struct Chunks {
    received: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.received.poll_recv(context).map(|chunk| {
            let chunk = chunk?;
            if let Ok(bytes) = &chunk {
                self.left = self.left.saturating_sub(bytes.len() as u64);
            }
            Some(chunk.map(Frame::data))
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_file_comes_as_it_is() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..3 * CHUNK + 5).map(|n| (n % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let mut body = of_file(file.reopen().unwrap(), ()).unwrap();
        assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
        let mut all = Vec::new();
        while let Some(chunk) = next(&mut body).await.unwrap() {
            all.extend_from_slice(&chunk);
        }
        assert!(all == bytes);
    }
}
