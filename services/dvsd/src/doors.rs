// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the API is answered: on a socket of this machine, and by TLS for nodes and administrators.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::serve::Listener;
use axum::Router;
use dvs_authority::{explain, Authority};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::TlsAcceptor;

use crate::daemon::Snapshot;
use crate::peers;
use crate::rejects::Throttle;
use crate::settings::Settings;

/// What is spoken inside of TLS, as ALPN has it.
pub(crate) const SPOKEN: &[u8] = b"http/1.1";
/// How long the other end may take to prove who it is.
const PROOF: Duration = Duration::from_secs(10);
/// Connections whose other end is proving that, at once.
const PROVING_MAX: usize = 128;
/// How long until an address is tried again that could not be listened on.
const RETRY: Duration = Duration::from_secs(1);

/// What the daemon knows, as the API has it.
type Snapshots = watch::Receiver<Arc<Snapshot>>;

/// The doors of one node.
#[derive(Debug)]
pub struct Doors {
    socket: PathBuf,
    address: SocketAddr,
    authority: Option<Arc<Authority>>,
}

impl Doors {
    /// Closed ones, with the authority of the cluster, if there is one. `socket` is the path of the socket.
    pub fn new(settings: &Settings, socket: PathBuf, authority: Option<Arc<Authority>>) -> Self {
        Self { socket, address: settings.api, authority }
    }

    /// Has them answered until the daemon ends.
    pub fn open(self, router: &Router, snapshots: &Snapshots) {
        let Self { socket, address, authority } = self;
        tokio::spawn(keep_open(socket.display().to_string(), router.clone(), move || {
            let socket = socket.clone();
            async move { bind(&socket) }
        }));
        let door = format!("{address}");
        let Some(authority) = authority else {
            tokio::spawn(keep_open(door, router.clone(), move || TcpListener::bind(address)));
            return;
        };
        let (router, snapshots) = (router.clone(), snapshots.clone());
        tokio::spawn(guarded(address, router.clone(), Arc::clone(&authority), snapshots.clone()));
        // For other nodes, wherever they are found.
        tokio::spawn(answer_neighbours(snapshots, router, authority));
    }
}

/// Answers at the link-local addresses of the cluster interfaces, as they come.
async fn answer_neighbours(mut snapshots: Snapshots, router: Router, authority: Arc<Authority>) {
    let mut open = BTreeSet::new();
    loop {
        let underlays = snapshots.borrow_and_update().underlays.clone();
        for underlay in underlays {
            let address = SocketAddr::from(SocketAddrV6::new(
                underlay.address,
                peers::PORT,
                0,
                underlay.index,
            ));
            if open.insert((underlay.index, underlay.address)) {
                tokio::spawn(guarded(
                    address,
                    router.clone(),
                    Arc::clone(&authority),
                    snapshots.clone(),
                ));
            }
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// Answers those who have proven that they may come to an address.
async fn guarded(
    address: SocketAddr,
    router: Router,
    authority: Arc<Authority>,
    snapshots: Snapshots,
) {
    let listen = move || {
        let (authority, snapshots) = (Arc::clone(&authority), snapshots.clone());
        async move { Guarded::new(TcpListener::bind(address).await?, authority, snapshots) }
    };
    keep_open(address.to_string(), router, listen).await;
}

async fn keep_open<L, F>(door: String, router: Router, listen: impl Fn() -> F)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
    F: std::future::Future<Output = io::Result<L>>,
{
    let mut told = false;
    loop {
        match listen().await {
            Ok(listener) => {
                println!("the API listens on {door}");
                if let Err(error) = axum::serve(listener, router.clone()).await {
                    println!("error: the API on {door} ended: {error}");
                }
            }
            Err(error) if !told => {
                println!("warning: listen on {door} for the API: {error}; trying on");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Takes the place of what an earlier run left. It is not to be seen before nobody but us can connect to it.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    let new = socket.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, socket)?;
    Ok(listener)
}

/// Gives out the connections whose other ends have proven that they may come.
#[derive(Debug)]
pub struct Guarded {
    proven: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl Guarded {
    /// Those of a listener, by the authority's word. This node proves itself with the id that it has.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(
        listener: TcpListener,
        authority: Arc<Authority>,
        snapshots: Snapshots,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (pass, proven) = mpsc::channel(1);
        let node = snapshots.borrow().status.node;
        let acceptor = acceptor(&authority, node)?;
        let guard =
            Guard { listener, authority, snapshots, node, acceptor, told: Throttle::default() };
        tokio::spawn(guard.stand(pass));
        Ok(Self { proven, address })
    }
}

impl Listener for Guarded {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.proven.recv().await {
            Some(proven) => proven,
            // The guard stands for as long as this exists.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

fn acceptor(authority: &Authority, node: Option<u32>) -> io::Result<TlsAcceptor> {
    let config = authority.api_server(node, SPOKEN);
    let config = config.map_err(|error| io::Error::other(format!("{error:#}")))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Looks at certificates at the door, several at once: somebody who is slow must not keep others out.
struct Guard {
    listener: TcpListener,
    authority: Arc<Authority>,
    snapshots: Snapshots,
    /// With which id this node proves itself.
    node: Option<u32>,
    acceptor: TlsAcceptor,
    told: Throttle<String>,
}

impl Guard {
    async fn stand(mut self, pass: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
        let start = Instant::now();
        let mut proving = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if proving.len() < PROVING_MAX => match accepted {
                    Ok((stream, from)) => {
                        self.know_itself();
                        let (acceptor, pass) = (self.acceptor.clone(), pass.clone());
                        proving.spawn(async move {
                            // Without it answers only come later.
                            let _ = stream.set_nodelay(true);
                            match timeout(PROOF, acceptor.accept(stream)).await {
                                Ok(Ok(stream)) => {
                                    let _ = pass.send((stream, from)).await;
                                    None
                                }
                                Ok(Err(error)) => refusal(&error).map(|why| format!("{}: {why}", from.ip())),
                                Err(_) => None,
                            }
                        });
                    }
                    // Such as too many open files: those that there are will end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(ended) = proving.join_next() => {
                    let now_ms = start.elapsed().as_millis() as u64;
                    if let Some(text) = ended.ok().flatten() {
                        if self.told.admits(now_ms, text.clone()) {
                            println!("warning: the API was asked for from {text}");
                        }
                    }
                }
                () = pass.closed() => return,
            }
        }
    }

    /// A node gets its id when it joins, and may get another one later.
    fn know_itself(&mut self) {
        let node = self.snapshots.borrow().status.node;
        if node == self.node {
            return;
        }
        match acceptor(&self.authority, node) {
            Ok(acceptor) => (self.acceptor, self.node) = (acceptor, node),
            Err(error) => println!("error: prove to be node {node:?} by TLS: {error}"),
        }
    }
}

/// Why somebody was not let in; nothing is said of one who only looked whether there is a door.
fn refusal(error: &io::Error) -> Option<String> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.map(explain)
}
