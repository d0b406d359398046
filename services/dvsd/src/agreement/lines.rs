// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines to the members on other nodes: connections that are made when somebody is asked, carry any
//! number of requests at once, and are given up when nothing comes back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dvs_authority::{explain, Authority, OpenIdentity};
use dvs_consensus::{Call, CallError, Peer, Transport};
use dvs_state::nodes::NodeId;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout, Instant, MissedTickBehavior};
use tokio_rustls::client::TlsStream;
use tokio_rustls::TlsConnector;

use super::frame::{Frame, Kind};

/// Where each node is that is heard.
pub(super) type Directory = BTreeMap<NodeId, SocketAddr>;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How often the other end is asked whether it is still there.
const PROBE: Duration = Duration::from_millis(500);
/// After so long without a byte from it, it is not.
const SILENCE: Duration = Duration::from_millis(2_500);
/// How long a node is left alone to which no connection could be made.
const PAUSE: Duration = Duration::from_millis(200);
/// Requests that may wait to be sent.
const QUEUE: usize = 64;

type Answer = Result<Vec<u8>, CallError>;

struct Job {
    request: Vec<u8>,
    done: oneshot::Sender<Answer>,
}

/// The lines of one node.
pub(super) struct Lines {
    caller: Arc<Caller>,
    to: Mutex<BTreeMap<NodeId, mpsc::Sender<Job>>>,
}

/// What makes connections.
struct Caller {
    authority: Authority,
    connector: TlsConnector,
    directory: watch::Receiver<Directory>,
}

impl Lines {
    /// None yet. `directory` tells where nodes are.
    pub(super) fn new(
        authority: Authority,
        identity: &OpenIdentity,
        directory: watch::Receiver<Directory>,
    ) -> Result<Self, String> {
        let config = identity.client().map_err(|error| format!("TLS to other nodes: {error:#}"))?;
        let connector = TlsConnector::from(Arc::new(config));
        let caller = Arc::new(Caller { authority, connector, directory });
        Ok(Self { caller, to: Mutex::default() })
    }

    fn line(&self, node: NodeId) -> mpsc::Sender<Job> {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let line = to.entry(node).or_insert_with(|| {
            let (line, jobs) = mpsc::channel(QUEUE);
            // It ends with the lines.
            tokio::spawn(Arc::clone(&self.caller).serve(node, jobs));
            line
        });
        line.clone()
    }
}

impl Transport for Lines {
    fn call<'a>(&'a self, peer: &'a Peer, request: Vec<u8>) -> Call<'a> {
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            let sent = self.line(peer.node).try_send(Job { request, done });
            sent.map_err(|_| CallError::NotSent)?;
            answer.await.unwrap_or(Err(CallError::NoAnswer))
        })
    }
}

impl Caller {
    /// Does what is asked of one node until nobody can ask any more.
    async fn serve(self: Arc<Self>, node: NodeId, mut jobs: mpsc::Receiver<Job>) {
        let mut told = String::new();
        while let Some(job) = jobs.recv().await {
            if job.done.is_closed() {
                continue;
            }
            match self.connect(node).await {
                Ok(stream) => {
                    told.clear();
                    carry(stream, job, &mut jobs).await;
                }
                Err(why) => {
                    // Whoever asked may have given up meanwhile.
                    let _ = job.done.send(Err(CallError::NotSent));
                    while let Ok(job) = jobs.try_recv() {
                        let _ = job.done.send(Err(CallError::NotSent));
                    }
                    if let Some(why) = why.filter(|why| *why != told) {
                        println!("warning: reach node {node} to agree with it: {why}");
                        told = why;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Connects; an error without a text is that the node is not heard, which others tell.
    async fn connect(&self, node: NodeId) -> Result<TlsStream<TcpStream>, Option<String>> {
        let address = self.directory.borrow().get(&node).copied().ok_or(None)?;
        let name: ServerName<'static> =
            self.authority.server_name(node.into()).map_err(|error| Some(format!("{error:#}")))?;
        let connected = timeout(CONNECT, async {
            let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let connected = self.connector.connect(name, stream).await;
            connected.map_err(|error| why_not(&error))
        });
        match connected.await {
            Ok(connected) => connected.map_err(|why| Some(format!("connect to {address}: {why}"))),
            Err(_) => Err(None),
        }
    }
}

/// Why there is no TLS with the other end, for people.
pub(super) fn why_not(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.map_or_else(|| error.to_string(), explain)
}

/// Carries requests there and answers back until the connection breaks or nobody asks any more.
async fn carry(stream: TlsStream<TcpStream>, first: Job, jobs: &mut mpsc::Receiver<Job>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (departing, mut to_write) = mpsc::channel::<Frame>(QUEUE);
    let (arrived, mut arrivals) = mpsc::channel::<Frame>(QUEUE);
    // Reading and writing are not to be given up half way, so each has a task; they end with this one.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(frame) = to_write.recv().await {
            if frame.write(&mut writer).await.is_err() {
                return;
            }
        }
    });
    tasks.spawn(async move {
        while let Ok(frame) = Frame::read(&mut reader).await {
            if arrived.send(frame).await.is_err() {
                return;
            }
        }
    });
    let mut waiting: BTreeMap<u64, oneshot::Sender<Answer>> = BTreeMap::new();
    let mut number = 0;
    let mut heard = Instant::now();
    let mut probe = interval(PROBE);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = Some(first);
    loop {
        if let Some(Job { request, done }) = next.take() {
            number += 1;
            match departing.try_send(Frame::request(number, Kind::Consensus, &request)) {
                Ok(()) => drop(waiting.insert(number, done)),
                Err(_) => drop(done.send(Err(CallError::NotSent))),
            }
        }
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) if job.done.is_closed() => {}
                Some(job) => next = Some(job),
                None => return,
            },
            frame = arrivals.recv() => match frame {
                Some(Frame { number, body }) => {
                    heard = Instant::now();
                    if let Some(done) = waiting.remove(&number) {
                        // Whoever asked may have given up.
                        let _ = done.send(Ok(body));
                    }
                }
                None => break,
            },
            _ = probe.tick() => {
                // What was given up is not waited for.
                waiting.retain(|_, done| !done.is_closed());
                if heard.elapsed() > SILENCE {
                    break;
                }
                number += 1;
                // A full queue is a reason to ask later.
                let _ = departing.try_send(Frame::request(number, Kind::Probe, &[]));
            }
        }
    }
    for done in waiting.into_values() {
        let _ = done.send(Err(CallError::NoAnswer));
    }
}
