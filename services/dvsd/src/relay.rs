// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that are for another node, whose API whoever asks does not reach: this node has them answered by that one.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::Router;
use dvs_api::RELAY_NODE;
use dvs_state::nodes::NodeId;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::sync::Semaphore;

use crate::api::{bad, unavailable, Failure};
use crate::daemon::Handle;
use crate::peers::Peers;

/// Requests that are passed on at once, those that have become streams included.
const RELAYED_MAX: usize = 64;
/// How long another node may take to begin an answer: some wait for something to happen.
const PATIENCE: Duration = Duration::from_secs(90);

/// What it takes to pass requests on.
#[derive(Debug)]
struct Relay {
    daemon: Handle,
    peers: Peers,
    room: Arc<Semaphore>,
}

/// The node that a request is for, if it says so.
fn meant(headers: &HeaderMap) -> Result<Option<NodeId>, Failure> {
    let Some(value) = headers.get(RELAY_NODE) else { return Ok(None) };
    let node = value.to_str().ok().and_then(|text| text.parse().ok());
    node.map(Some).ok_or_else(|| bad(format!("the header {RELAY_NODE} has no id of a node")))
}

/// The same routes, for all nodes.
pub fn relaying(router: Router, daemon: Handle, peers: Peers) -> Router {
    let room = Arc::new(Semaphore::new(RELAYED_MAX));
    let relay = Arc::new(Relay { daemon, peers, room });
    router.layer(middleware::from_fn_with_state(relay, pass_on))
}

/// Passes a request on if it is for another node.
async fn pass_on(State(relay): State<Arc<Relay>>, request: Request, next: Next) -> Response {
    let meant = match meant(request.headers()) {
        Ok(Some(node)) => node,
        Ok(None) => return next.run(request).await,
        Err(failure) => return failure.into_response(),
    };
    let own = relay.daemon.snapshots.borrow().status.node;
    if own == Some(meant.into()) {
        return next.run(request).await;
    }
    relay.relayed(meant, request).await.unwrap_or_else(IntoResponse::into_response)
}

impl Relay {
    async fn relayed(&self, node: NodeId, mut request: Request) -> Result<Response, Failure> {
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            unavailable(format!("{RELAYED_MAX} requests are passed on to other nodes already"))
        })?;
        // The other end answers this, and nobody else: it is not to be passed on again.
        request.headers_mut().remove(RELAY_NODE);
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("node"));
        let here = hyper::upgrade::on(&mut request);
        let passed = self.peers.ask(node, request, PATIENCE).await;
        let mut answer = passed.map_err(|why| Failure(StatusCode::BAD_GATEWAY, why))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let there = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move {
                if let (Ok(here), Ok(there)) = tokio::join!(here, there) {
                    // Either end may go away at any time; the other one is to go then, too.
                    let _ =
                        copy_bidirectional(&mut TokioIo::new(here), &mut TokioIo::new(there)).await;
                }
                drop(permit);
            });
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_by_number_whom_it_is_for() {
        let headers = |value: &str| {
            HeaderMap::from_iter([(RELAY_NODE.parse().unwrap(), value.parse().unwrap())])
        };
        assert_eq!(meant(&HeaderMap::new()).unwrap(), None);
        assert_eq!(meant(&headers("3")).unwrap(), Some(3));
        for text in ["", "-1", "65536", "node3"] {
            let headers: HeaderMap = headers(text);
            assert!(meant(&headers).is_err(), "{text}");
        }
    }
}
