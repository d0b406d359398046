// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file server as a process: one thread that serves, and one that finds out which clients are gone.

mod images;
mod kernel;
pub mod transfer;
mod watch;

pub use self::images::{check, make_image, Checked};

use self::kernel::Kernel;
use self::transfer::TransferError;
use self::watch::Watch;
use crate::error::Error;
use crate::format::MakeError;
use crate::server::Server;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use dvk::{Endpoint, Errno, How, Message, Port, Received, Slot, Then, Timeout};
use mol_protocol::file::FileServer;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// How often it is looked for what is due.
const ROUND: Duration = Duration::from_secs(1);

/// Where a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In an image file, or on a block device of Linux.
    Path(PathBuf),
    /// On a disk server.
    Device {
        /// Which server.
        server: Servers,
        /// The device's minor.
        minor: u32,
    },
}

/// How the server of a device is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// In this slot.
    Slot(u32),
    /// The one that answers for the device in this group of servers, each of which has a replica.
    Group(String),
}

/// What a server is to have.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The device of the container.
    pub dvk: PathBuf,
    /// The number under which clients find it; without one they need its endpoint.
    pub slot: Option<u32>,
    /// The disks that can be mounted, by their labels.
    pub disks: Vec<(String, Source)>,
    /// What is mounted at once, and whether for reading only.
    pub mounts: Vec<(String, bool)>,
    /// How many bytes of each disk are kept in memory.
    pub cache_bytes: usize,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file or device.
    #[error("cannot {what} {path}: {error}")]
    File {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A file system in an image.
    #[error("{path}: {error}")]
    FileSystem {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        error: Error,
    },
    /// No file system can be made in an image.
    #[error("{path}: {error}")]
    Make {
        /// The image.
        path: PathBuf,
        /// Why not.
        error: MakeError,
    },
    /// What was to be mounted at once is not.
    #[error("disk `{0}` cannot be mounted, as said above")]
    NotMounted(String),
    /// The DVK.
    #[error(transparent)]
    Dvk(#[from] dvk::Error),
    /// Files of a server.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The process cannot be told to end.
    #[error("cannot take signals: {0}")]
    Signals(std::io::Error),
}

/// Mounts and serves until it is told to end, by SIGTERM or SIGINT; then it writes everything.
///
/// # Errors
/// [`RunError`]. What was mounted is written then as well.
pub fn serve(plan: &Plan) -> Result<(), RunError> {
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, ends.clone()).map_err(RunError::Signals)?;
    }
    let slot = plan.slot.map_or(Slot::Any, Slot::Server);
    let port = Arc::new(Port::open(&plan.dvk, slot)?);
    let mut server = Server::new(Kernel::new(port.clone(), plan), plan.cache_bytes);
    let done = mount_all(&mut server, plan).and_then(|()| {
        eprintln!("mol-fs: serving as {}", port.endpoint());
        run(&mut server, &port, &Watch::start(&plan.dvk), &ends)
    });
    server.end();
    print_news(&mut server);
    done
}

fn mount_all(server: &mut Server<Kernel>, plan: &Plan) -> Result<(), RunError> {
    for (label, read_only) in &plan.mounts {
        let mounted = server.mount_label(label, *read_only);
        print_news(server);
        mounted.map_err(|_| RunError::NotMounted(label.clone()))?;
    }
    Ok(())
}

fn run(
    server: &mut Server<Kernel>,
    port: &Port,
    watch: &Watch,
    ends: &AtomicBool,
) -> Result<(), RunError> {
    let mut next_round = Instant::now() + ROUND;
    let mut reply = None;
    while !ends.load(Ordering::Relaxed) {
        let rest = next_round.saturating_duration_since(Instant::now());
        match receive(port, reply.take(), rest.max(Duration::from_millis(1)).into()) {
            Ok(received) => {
                if let (Then::Reply(message), How::Request) =
                    (server.handle(&received), received.how)
                {
                    reply = Some((received.source(), message));
                }
            }
            Err(error) if error.is(Errno::TimedOut) || error.is(Errno::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= next_round {
            // Nobody waits for what is due but is not asked for.
            if let Some((to, message)) = reply.take() {
                let _ = port.reply(to, &message);
            }
            next_round = Instant::now() + ROUND;
            watch.gone().into_iter().for_each(|client| server.forget(client));
            watch.look_for(server.clients());
            server.tick();
        }
        print_news(server);
    }
    // Whoever asked last has an answer.
    if let Some((to, message)) = reply {
        let _ = port.reply(to, &message);
    }
    Ok(())
}

/// Gives a reply, if there is one, and waits for a message.
fn receive(
    port: &Port,
    reply: Option<(Endpoint, Message)>,
    timeout: Timeout,
) -> Result<Received, dvk::Error> {
    let Some((to, message)) = reply else { return port.receive(Endpoint::ANY, timeout) };
    port.reply_receive(to, &message, Endpoint::ANY, timeout).or_else(|error| {
        // A client that does not wait any more is its own affair. After these, the reply has been given.
        match error.is(Errno::TimedOut) || error.is(Errno::Interrupted) {
            true => Err(error),
            false => port.receive(Endpoint::ANY, timeout),
        }
    })
}

fn print_news(server: &mut Server<Kernel>) {
    for news in server.take_news() {
        eprintln!("mol-fs: {news}");
    }
}
