// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies of answers, and what is written down of a request when its answer is sent.

use crate::failover::Failure;
use crate::pool::File;
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll};
use hyper::body::{Bytes, Frame, SizeHint};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::sync::mpsc;

/// Bytes that are read at once.
const BLOCK: u64 = 128 << 10;
/// Blocks that wait to be sent, while another one is read.
const QUEUE: usize = 1;

/// A request, for the log and for complaints.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) peer: SocketAddr,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) began: Instant,
    pub(crate) is_logged: bool,
}

impl Subject {
    /// Tells whoever keeps the server of a failure that is not the client's.
    pub(crate) fn complain(&self, failure: &Failure) {
        eprintln!("mol-web: {:?}: {failure}", self.path);
    }
}

/// A body of an answer.
#[derive(Debug)]
pub(crate) struct Body {
    text: Option<Bytes>,
    blocks: Option<mpsc::Receiver<Result<Bytes, Failure>>>,
    /// Bytes that are still to be sent.
    left: u64,
    sent: u64,
    subject: Subject,
    status: u16,
}

impl Body {
    fn new(subject: Subject, status: u16) -> Self {
        Self { text: None, blocks: None, left: 0, sent: 0, subject, status }
    }

    pub(crate) fn empty(subject: Subject, status: u16) -> Self {
        Self::new(subject, status)
    }

    pub(crate) fn text(text: String, subject: Subject, status: u16) -> Self {
        let mut body = Self::new(subject, status);
        body.left = text.len() as u64;
        body.text = Some(Bytes::from(text));
        body
    }

    /// A part of a file. It is read ahead of what is sent.
    pub(crate) fn file(file: File, part: Range<u64>, subject: Subject, status: u16) -> Self {
        let (blocks, received) = mpsc::channel(QUEUE);
        let mut body = Self::new(subject, status);
        body.left = part.end - part.start;
        body.blocks = Some(received);
        tokio::spawn(pump(file, part, blocks));
        body
    }
}

async fn pump(file: File, part: Range<u64>, blocks: mpsc::Sender<Result<Bytes, Failure>>) {
    let mut position = part.start;
    while position < part.end {
        let bytes = BLOCK.min(part.end - position) as usize;
        let read = tokio::select! {
            read = file.read(position, bytes) => read,
            // The client has gone.
            () = blocks.closed() => return,
        };
        position += read.as_ref().map_or(0, Bytes::len) as u64;
        let has_failed = read.is_err();
        if blocks.send(read).await.is_err() || has_failed {
            return;
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let left = self.left;
        let block = match (self.text.take(), &mut self.blocks) {
            (Some(text), _) => Some(Ok(text)),
            (None, Some(_)) if left == 0 => None,
            (None, Some(blocks)) => match blocks.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                // Nobody reads any more, which only happens when the process ends.
                Poll::Ready(None) => Some(Err(Failure::Alone)),
                Poll::Ready(block) => block,
            },
            (None, None) => None,
        };
        match &block {
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                self.sent += bytes.len() as u64;
            }
            Some(Err(failure)) => self.subject.complain(failure),
            None => {}
        }
        Poll::Ready(block.map(|block| block.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let Subject { peer, method, path, began, is_logged } = &self.subject;
        if *is_logged {
            let (status, sent, ms) = (self.status, self.sent, began.elapsed().as_millis());
            let whole = if self.left == 0 { "yes" } else { "no" };
            eprintln!(
                "mol-web: peer={peer} method={method} path={path:?} status={status} bytes={sent} whole={whole} ms={ms}"
            );
        }
    }
}
