// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines and listeners on this machine's loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dvs_authority::Authority;
use dvs_consensus::{CallError, Peer, Transport};
use dvs_secret::ClusterSecret;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, Instant};

use super::lines::Lines;
use super::listener::{Answer, Listener};
use super::SPOKEN;

const TOKEN: &str = "sixteen letters or more";

fn authority(token: &str) -> Authority {
    Authority::derived(&ClusterSecret::new(&token.parse().unwrap()), "lab").unwrap()
}

/// Answers with what was asked, or not at all.
fn echo() -> Answer {
    Arc::new(|request| {
        Box::pin(async move {
            if request == b"never" {
                std::future::pending::<()>().await;
            }
            Some(request)
        })
    })
}

/// A port that nobody has at the moment.
async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn listener(token: &str, node: u32, at: SocketAddr) -> Listener {
    let identity = authority(token).open_identity(node, SPOKEN).unwrap();
    let mut listener = Listener::new(&identity, echo()).unwrap();
    listener.listen(&[at]);
    listener
}

fn lines(to: &[(u16, SocketAddr)]) -> (Lines, watch::Sender<BTreeMap<u16, SocketAddr>>) {
    let (directory, see) = watch::channel(to.iter().copied().collect());
    let identity = authority(TOKEN).open_identity(9, SPOKEN).unwrap();
    (Lines::new(authority(TOKEN), &identity, see).unwrap(), directory)
}

async fn ask(lines: &Lines, node: u16, request: &[u8]) -> Result<Vec<u8>, CallError> {
    lines.call(&Peer { node }, request.to_vec()).await
}

/// Asks until there is an answer.
async fn await_answer(lines: &Lines, node: u16) {
    let start = Instant::now();
    while ask(lines, node, b"hello").await != Ok(b"hello".to_vec()) {
        assert!(start.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn requests_are_answered_at_once_and_in_any_order() {
    let at = free().await;
    let _listener = listener(TOKEN, 3, at);
    let (lines, _directory) = lines(&[(3, at)]);
    await_answer(&lines, 3).await;
    let peer = Peer { node: 3 };
    let never = lines.call(&peer, b"never".to_vec());
    tokio::pin!(never);
    let large = vec![7; 1_500_000];
    tokio::select! {
        answer = &mut never => panic!("{answer:?}"),
        answer = ask(&lines, 3, &large) => assert!(answer == Ok(large.clone())),
    }
    assert_eq!(ask(&lines, 4, b"x").await, Err(CallError::NotSent), "it is heard nowhere");
}

#[tokio::test]
async fn a_node_that_comes_back_elsewhere_is_found_and_what_it_was_asked_is_not_answered() {
    let (one, two) = (free().await, free().await);
    let first = listener(TOKEN, 3, one);
    let (lines, directory) = lines(&[(3, one)]);
    await_answer(&lines, 3).await;
    let peer = Peer { node: 3 };
    let never = lines.call(&peer, b"never".to_vec());
    tokio::pin!(never);
    tokio::select! {
        answer = &mut never => panic!("{answer:?}"),
        _ = await_answer(&lines, 3) => {}
    }
    drop(first);
    assert_eq!(never.await, Err(CallError::NoAnswer));
    let _second = listener(TOKEN, 3, two);
    directory.send_replace(BTreeMap::from([(3, two)]));
    await_answer(&lines, 3).await;
}

#[tokio::test]
async fn strangers_and_nodes_that_are_others_are_asked_nothing() {
    let (stranger, other) = (free().await, free().await);
    let _stranger = listener("seventeen letters or so", 3, stranger);
    let _other = listener(TOKEN, 5, other);
    let (lines, _directory) = lines(&[(3, stranger), (4, other), (5, other)]);
    await_answer(&lines, 5).await;
    for node in [3, 4] {
        assert_eq!(ask(&lines, node, b"secret").await, Err(CallError::NotSent));
    }
}

#[tokio::test]
async fn a_node_that_falls_silent_is_given_up() {
    let (real, at) = (free().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let _listener = listener(TOKEN, 3, real);
    let address = at.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    // Passes on what comes, both ways, until it is told not to; the connections stay.
    let relay = tokio::spawn(async move {
        let (mut near, _) = at.accept().await.unwrap();
        let mut far = loop {
            match TcpStream::connect(real).await {
                Ok(far) => break far,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let mut until = stopped.clone();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = until.wait_for(|stop| *stop) => {}
        }
        std::future::pending::<()>().await;
    });
    let (lines, _directory) = lines(&[(3, address)]);
    await_answer(&lines, 3).await;
    stop.send_replace(true);
    assert_eq!(ask(&lines, 3, b"lost").await, Err(CallError::NoAnswer));
    relay.abort();
}
