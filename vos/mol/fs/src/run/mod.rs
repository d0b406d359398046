// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file server as a process: one thread that serves, and one that finds out which clients are gone.

mod blank;
mod images;
mod kernel;
mod servers;
pub mod transfer;
mod watch;

pub use self::images::{check, make_image, Checked};
pub use self::servers::{is_label, role, Servers, ServersError};

use self::kernel::Kernel;
use self::transfer::TransferError;
use self::watch::Watch;
use crate::error::Error;
use crate::format::MakeError;
use crate::server::{Outside, Server};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use dvk::{Endpoint, Errno, How, Message, Port, Received, Slot, Then, Timeout};
use dvk_services::role::{Role, Standing};
use mol_protocol::file::FileServer;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// How often it is looked for what is due.
const ROUND: Duration = Duration::from_secs(1);
/// How often a server of a group looks whether it is the one that serves.
const GLANCE: Duration = Duration::from_millis(100);

/// Where a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In an image file, or on a block device of Linux.
    Path(PathBuf),
    /// On a disk server.
    Device {
        /// Which server: of a group, that which answers for the device.
        server: Servers,
        /// The device's minor.
        minor: u32,
    },
}

/// What a server is to have.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The device of the container.
    pub dvk: PathBuf,
    /// Where clients find it; if it is not said they need its endpoint. Of a group, one serves, and the others wait.
    pub place: Option<Servers>,
    /// The disks that can be mounted, by their labels.
    pub disks: Vec<(String, Source)>,
    /// What is mounted at once, and whether for reading only.
    pub mounts: Vec<(String, bool)>,
    /// Whether a disk that is to be mounted, and has nothing on it, gets a file system.
    pub makes_missing: bool,
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
    /// No file system can be made on a disk that has none.
    #[error("disk `{label}`, which is blank: {error}")]
    NotMade {
        /// The disk.
        label: String,
        /// Why not.
        error: MakeError,
    },
    /// Another server of the group may serve from now on.
    #[error("the nodes have not agreed for too long that this is the server of group `{0}`, so another one may serve; what was not synced is lost")]
    Superseded(String),
    /// The server that is asked.
    #[error(transparent)]
    Servers(#[from] ServersError),
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
    let slot = match plan.place {
        Some(Servers::Slot(slot)) => Slot::Server(slot),
        _ => Slot::Any,
    };
    let port = Arc::new(Port::open(&plan.dvk, slot)?);
    let duty = match &plan.place {
        Some(Servers::Group(group)) => {
            let role = Role::stand(&plan.dvk, &role(group), port.endpoint())?;
            Some(Arc::new(Duty { role, group: group.clone() }))
        }
        _ => None,
    };
    if let Some(duty) = &duty {
        eprintln!("mol-fs: waiting to serve for group {}", duty.group);
        if !duty.await_turn(&ends)? {
            return Ok(());
        }
    }
    let kernel = Kernel::new(port.clone(), plan, duty.clone());
    if plan.makes_missing {
        let mut written = plan.mounts.iter().filter(|(_, read_only)| !read_only);
        written.try_for_each(|(label, _)| make_missing(&kernel, label))?;
    }
    let mut server = Server::new(kernel, plan.cache_bytes);
    let done = mount_all(&mut server, plan).and_then(|()| {
        eprintln!("mol-fs: serving as {}", port.endpoint());
        run(&mut server, &port, &Watch::start(&plan.dvk), duty.as_deref(), &ends)
    });
    // Without the duty nothing is written any more: the disks are another server's.
    if let Some(Err(error)) = duty.as_ref().map(|duty| duty.check()) {
        print_news(&mut server);
        return done.and(Err(error));
    }
    server.end();
    print_news(&mut server);
    done
}

/// That this server is the one of its group.
struct Duty {
    role: Role,
    group: String,
}

impl Duty {
    /// Waits until it is this server's turn; says whether it is, or the process is to end.
    fn await_turn(&self, ends: &AtomicBool) -> Result<bool, RunError> {
        while !ends.load(Ordering::Relaxed) {
            match self.role.standing() {
                Standing::Waiting => std::thread::sleep(GLANCE),
                Standing::Held { .. } => return Ok(true),
                Standing::Lost => return self.check().map(|()| true),
            }
        }
        Ok(false)
    }

    fn is_held(&self) -> bool {
        self.role.is_held()
    }

    fn check(&self) -> Result<(), RunError> {
        match self.is_held() {
            true => Ok(()),
            false => Err(RunError::Superseded(self.group.clone())),
        }
    }
}

fn mount_all(server: &mut Server<Kernel>, plan: &Plan) -> Result<(), RunError> {
    for (label, read_only) in &plan.mounts {
        let mounted = server.mount_label(label, *read_only);
        print_news(server);
        mounted.map_err(|_| RunError::NotMounted(label.clone()))?;
    }
    Ok(())
}

/// Makes a file system on a disk that is blank, or on which that was broken off. Whatever else cannot be done with it is told by mounting it.
fn make_missing(kernel: &Kernel, label: &str) -> Result<(), RunError> {
    let Ok(mut disk) = kernel.open(label, false) else { return Ok(()) };
    let made = blank::make_if_blank(&mut *disk, images::seconds());
    if made.map_err(|error| RunError::NotMade { label: label.to_owned(), error })? {
        eprintln!("mol-fs: disk `{label}` was blank, and has a file system now");
    }
    Ok(())
}

fn run(
    server: &mut Server<Kernel>,
    port: &Port,
    watch: &Watch,
    duty: Option<&Duty>,
    ends: &AtomicBool,
) -> Result<(), RunError> {
    let round = if duty.is_some() { GLANCE } else { ROUND };
    let mut next_round = Instant::now() + ROUND;
    let mut reply = None;
    while !ends.load(Ordering::Relaxed) {
        let rest = next_round.saturating_duration_since(Instant::now()).min(round);
        let received = receive(port, reply.take(), rest.max(Duration::from_millis(1)).into());
        // What another server may answer differently is not answered.
        duty.map_or(Ok(()), Duty::check)?;
        match received {
            Ok(received) => {
                if let (Then::Reply(message), How::Request) =
                    (server.handle(&received), received.how)
                {
                    duty.map_or(Ok(()), Duty::check)?;
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
            duty.map_or(Ok(()), Duty::check)?;
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
