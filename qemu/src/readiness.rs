// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the nodes of a cluster have found each other, asked of each node's own API.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::{Duration, Instant};

use dvs_client::Client;
use serde::Deserialize;

use crate::error::{Error, Result};

/// How often a node is asked.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long to wait for the first answers. Short: a connection made before the guest listens never gets an answer.
const PATIENCE_FIRST: Duration = Duration::from_millis(400);
/// How long it may become where guests are slow.
const PATIENCE_LAST: Duration = Duration::from_secs(4);

/// How far one node has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether its API answers.
    pub answers: bool,
    /// How many nodes it sees in state `ready`, itself included.
    pub ready: usize,
}

impl Progress {
    /// In a few words, in a cluster of `nodes`.
    pub fn describe(&self, nodes: usize) -> String {
        match self {
            Progress { answers: false, .. } => "booting".to_owned(),
            Progress { ready, .. } if *ready >= nodes => "ready".to_owned(),
            Progress { ready, .. } => format!("sees {ready} of {nodes} ready"),
        }
    }
}

/// What of `GET /v1/nodes` matters here.
#[derive(Deserialize)]
struct Node {
    state: String,
}

/// Waits until each of `apis` says that as many nodes are ready as there are APIs. `progress` is told of changes, and
/// at least every quarter of a second; when it says false, the waiting ends as if the time were up.
pub fn wait_ready(
    apis: &[Client],
    timeout: Duration,
    mut progress: impl FnMut(&[Progress]) -> bool,
) -> Result<()> {
    let start = Instant::now();
    let nodes = apis.len();
    let done = AtomicBool::new(false);
    let mut all = vec![Progress::default(); nodes];
    let all_ready = std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        for (number, api) in apis.iter().enumerate() {
            let (sender, done) = (sender.clone(), &done);
            scope.spawn(move || {
                let mut patience = PATIENCE_FIRST;
                while !done.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let seen = ask(api, patience);
                    if !seen.answers {
                        patience = (2 * patience).min(PATIENCE_LAST);
                    }
                    if sender.send((number, seen)).is_err() || seen.ready >= nodes {
                        return;
                    }
                    std::thread::sleep(INTERVAL.saturating_sub(asked.elapsed()));
                }
            });
        }
        let ready = loop {
            if all.iter().all(|node| node.ready >= nodes) {
                break true;
            }
            let rest = timeout.saturating_sub(start.elapsed());
            if rest.is_zero() {
                break false;
            }
            match receiver.recv_timeout(rest.min(INTERVAL)) {
                Ok((number, seen)) => all[number] = seen,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break false,
            }
            if !progress(&all) {
                break false;
            }
        };
        done.store(true, Ordering::Relaxed);
        ready
    });
    if all_ready {
        return Ok(());
    }
    let states =
        all.iter().enumerate().map(|(n, node)| format!("node{n} {}", node.describe(nodes)));
    let summary = states.collect::<Vec<_>>().join(", ");
    Err(Error::NotReady { seconds: start.elapsed().as_secs(), summary })
}

fn ask(api: &Client, patience: Duration) -> Progress {
    // A connection of its own each time: the last one may have been made before the guest listened.
    let request = api.agent(patience).get(format!("{}/v1/nodes", api.address().base()));
    let request =
        request.config().timeout_global(Some(patience)).http_status_as_error(true).build().call();
    let nodes = request.and_then(|mut answer| answer.body_mut().read_json::<Vec<Node>>());
    match nodes {
        Ok(nodes) => {
            let ready = nodes.iter().filter(|node| node.state == "ready").count();
            Progress { answers: true, ready }
        }
        // An API that refuses, because its node isn't so far, does answer.
        Err(ureq::Error::StatusCode(_)) => Progress { answers: true, ready: 0 },
        Err(_) => Progress::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// An API whose n-th answer shows what `states(n)` says.
    fn api(states: impl Fn(usize) -> &'static [&'static str] + Send + 'static) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap();
                assert!(request[..length].starts_with(b"GET /v1/nodes HTTP/1.1\r\n"));
                let nodes =
                    states(n).iter().map(|state| format!(r#"{{"id":0,"state":"{state}"}}"#));
                let body = format!("[{}]", nodes.collect::<Vec<_>>().join(","));
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all((head + &body).as_bytes()).unwrap();
            }
        });
        client(&url)
    }

    fn client(url: &str) -> Client {
        Client::new(url.parse().unwrap(), None)
    }

    #[test]
    fn ready_is_when_all_see_all() {
        let slow = api(|n| if n < 2 { &["ready", "joining"] } else { &["ready", "ready"] });
        let quick = api(|_| &["ready", "ready"]);
        let mut told = Vec::new();
        wait_ready(&[slow, quick], Duration::from_secs(20), |all| {
            told.push(all.to_vec());
            true
        })
        .unwrap();
        assert!(told.iter().any(|all| all[0] == Progress { answers: true, ready: 1 }));
    }

    #[test]
    fn the_error_says_who_is_not_ready() {
        let alone = api(|_| &["ready", "down"]);
        let closed = client("http://127.0.0.1:1");
        let apis = [alone, closed];
        let error = wait_ready(&apis, Duration::from_millis(800), |_| true).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("node0 sees 1 of 2 ready, node1 booting"), "{text}");
    }

    #[test]
    fn waiting_can_be_given_up() {
        let closed = client("http://127.0.0.1:1");
        let start = Instant::now();
        assert!(wait_ready(&[closed], Duration::from_secs(60), |_| false).is_err());
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
