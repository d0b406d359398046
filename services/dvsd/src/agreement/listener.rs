// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the members on other nodes connect.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dvs_authority::OpenIdentity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::frame::{Frame, Kind};
use super::lines::why_not;

/// How long the other end may take to prove who it is.
const PROOF: Duration = Duration::from_secs(5);
/// A connection on which nothing came for so long is closed: the other end asks twice a second.
const SILENCE: Duration = Duration::from_secs(10);
/// How long until an address is tried again that could not be listened on.
const RETRY: Duration = Duration::from_secs(1);
/// Connections at an address at once.
const CONNECTIONS: usize = 256;
/// Requests of a connection that are answered at once.
const REQUESTS: usize = 64;

/// An answer to come; `None` if there is nobody to give one.
pub(super) type Answering = Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>>;

/// Answers requests.
pub(super) type Answer = Arc<dyn Fn(Vec<u8>) -> Answering + Send + Sync>;

/// Listens on the addresses that it is told.
pub(super) struct Listener {
    acceptor: TlsAcceptor,
    answer: Answer,
    listening: BTreeMap<SocketAddr, AbortHandle>,
}

impl Listener {
    pub(super) fn new(identity: &OpenIdentity, answer: Answer) -> Result<Self, String> {
        let config =
            identity.server().map_err(|error| format!("TLS from other nodes: {error:#}"))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, answer, listening: BTreeMap::new() })
    }

    /// Listens on these addresses and no others.
    pub(super) fn listen(&mut self, wanted: &[SocketAddr]) {
        self.listening.retain(|address, task| {
            let keep = wanted.contains(address);
            if !keep {
                task.abort();
            }
            keep
        });
        for address in wanted {
            self.listening.entry(*address).or_insert_with(|| {
                let (acceptor, answer) = (self.acceptor.clone(), Arc::clone(&self.answer));
                tokio::spawn(keep_listening(*address, acceptor, answer)).abort_handle()
            });
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listening.values().for_each(AbortHandle::abort);
    }
}

async fn keep_listening(address: SocketAddr, acceptor: TlsAcceptor, answer: Answer) {
    let mut told = String::new();
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => accept(&listener, &acceptor, &answer).await,
            Err(error) => error,
        };
        let text = format!("warning: listen on {address} for other nodes: {error}; trying on");
        if text != told {
            println!("{text}");
            told = text;
        }
        sleep(RETRY).await;
    }
}

/// Takes connections until that fails; those that there are end with it.
async fn accept(listener: &TcpListener, acceptor: &TlsAcceptor, answer: &Answer) -> std::io::Error {
    let mut connections = JoinSet::new();
    let mut told = String::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, from) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => return error,
                };
                if connections.len() >= CONNECTIONS {
                    continue;
                }
                let (acceptor, answer) = (acceptor.clone(), Arc::clone(answer));
                connections.spawn(async move {
                    // Without it answers only come later.
                    let _ = stream.set_nodelay(true);
                    match timeout(PROOF, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            serve(stream, &answer).await;
                            None
                        }
                        Ok(Err(error)) => Some(format!("{}: {}", from.ip(), why_not(&error))),
                        Err(_) => None,
                    }
                });
            }
            Some(ended) = connections.join_next() => {
                // A stranger may come again and again, which is told once.
                if let Some(text) = ended.ok().flatten().filter(|text| *text != told) {
                    println!("warning: another node wants to agree with this one, from {text}");
                    told = text;
                }
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + 'static, answer: &Answer) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (answered, mut answers) = mpsc::channel::<Frame>(REQUESTS);
    let room = Arc::new(Semaphore::new(REQUESTS));
    // What is being done for the other end is given up with the connection.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(frame) = answers.recv().await {
            if frame.write(&mut writer).await.is_err() {
                return;
            }
        }
    });
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(Ok(frame)) = timeout(SILENCE, Frame::read(&mut reader)).await else { return };
        let (kind, content) = match frame.content() {
            Some((kind, content)) => (kind, content.to_vec()),
            None => return,
        };
        if kind == Kind::Probe {
            if answered.send(Frame { number: frame.number, body: Vec::new() }).await.is_err() {
                return;
            }
            continue;
        }
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (answering, answered) = (answer(content), answered.clone());
        let number = frame.number;
        tasks.spawn(async move {
            let body = answering.await.unwrap_or_default();
            // Whoever asked may have gone.
            let _ = answered.send(Frame { number, body }).await;
            drop(permit);
        });
    }
}
