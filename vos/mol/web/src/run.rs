// SPDX-License-Identifier: MIT OR Apache-2.0
//! The web server as a process.

use crate::pool::Pool;
use crate::server::{serve, Limits};
use crate::source::{Directory, Door, FileServer};
use mol_fs::run::Servers;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;
use tokio::signal::unix::{signal, SignalKind};

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// In a directory of the host.
    Directory(PathBuf),
    /// At a file server.
    Server(Servers),
}

/// What a server is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The device of the container.
    pub dvk: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the files are.
    pub from: From,
    /// Which mount of the file server; its first, if it is empty.
    pub label: String,
    /// How many threads wait for files, each with an endpoint of its own.
    pub threads: usize,
    /// How many connections there may be at once.
    pub connections: usize,
    /// Whether a line is written about every request.
    pub is_logged: bool,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address.
    #[error("cannot listen at {address}: {error}; choose a free one by --listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The directory.
    #[error("cannot open the directory {path}: {error}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The process: its threads or signals.
    #[error("cannot start to serve: {0}")]
    Process(io::Error),
    /// The DVK.
    #[error(transparent)]
    Dvk(#[from] dvk::Error),
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`]. A file server that is not there is none: requests wait for it.
pub fn run(plan: &Plan) -> Result<(), RunError> {
    let pool = pool(plan)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(RunError::Process)?;
    let done = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Process)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Process)?;
        let at = |error| RunError::Listen { address: plan.listen, error };
        let listener = TcpListener::bind(plan.listen).await.map_err(at)?;
        eprintln!("mol-web: serving at http://{}/", listener.local_addr().map_err(at)?);
        let limits = Limits { connections: plan.connections, ..Limits::default() };
        let ends = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve(listener, pool, limits, plan.is_logged, ends).await;
        Ok(())
    });
    // Threads that wait for a file server end with the process.
    runtime.shutdown_background();
    done
}

fn pool(plan: &Plan) -> Result<Pool, RunError> {
    match &plan.from {
        From::Directory(path) => {
            let failed = |error| RunError::Directory { path: path.clone(), error };
            let directory = Directory::open(path).map_err(failed)?;
            Ok(Pool::start(vec![directory; plan.threads]))
        }
        From::Server(servers) => {
            let source = |_| {
                let door = Door { dvk: plan.dvk.clone(), servers: servers.clone() };
                FileServer::new(door, &plan.label)
            };
            Ok(Pool::start((0..plan.threads).map(source).collect::<Result<_, _>>()?))
        }
    }
}
