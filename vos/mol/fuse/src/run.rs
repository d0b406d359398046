// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mount as a process.

use crate::far;
use crate::gateway::{Gateway, GatewayError};
use core::time::Duration;
use dvk::{Port, Slot};
use fuser::{Config, MountOption, SessionACL};
use mol_fs::run::{Servers, ServersError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::{Path, PathBuf};

/// How long a server is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why nothing is mounted.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The DVK.
    #[error(transparent)]
    Dvk(#[from] dvk::Error),
    /// There is no server.
    #[error(transparent)]
    Servers(#[from] ServersError),
    /// The server.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The streams of a Linux on another machine.
    #[error("cannot pass on what is asked on another machine: {0}")]
    Far(std::io::Error),
    /// Linux.
    #[error("cannot {what} {path}: {error}")]
    Mount {
        /// What was attempted.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// How Linux mounts a gateway: with its checks of permissions, for all users.
pub fn config(label: &str, read_only: bool) -> Config {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.mount_options = vec![
        MountOption::FSName(format!("mol:{label}")),
        MountOption::Subtype("mol".to_owned()),
        MountOption::DefaultPermissions,
    ];
    if read_only {
        config.mount_options.push(MountOption::RO);
    }
    config
}

/// Answers what a Linux on another machine asks on standard input, on standard output, until it asks no more.
///
/// # Errors
/// [`RunError`].
pub fn answer(dvk: &Path, servers: &Servers, label: &str) -> Result<(), RunError> {
    let port = Port::open(dvk, Slot::Any)?;
    let server = servers.find(&port, PATIENCE)?;
    let gateway = Gateway::new(port, server, label)?.far();
    far::serve(gateway, std::io::stdin(), std::io::stdout()).map_err(RunError::Far)
}

/// Mounts a file system of a server until it is unmounted, or this process is told to end by SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`].
pub fn mount(
    dvk: &Path,
    servers: &Servers,
    label: &str,
    at: &Path,
    read_only: bool,
) -> Result<(), RunError> {
    let failed = |what| move |error| RunError::Mount { what, path: at.to_path_buf(), error };
    let port = Port::open(dvk, Slot::Any)?;
    let server = servers.find(&port, PATIENCE)?;
    let gateway = Gateway::new(port, server, label)?;
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed("take signals for"))?;
    let mut session =
        fuser::Session::new(gateway, at, &config(label, read_only)).map_err(failed("mount on"))?;
    let mut unmounter = session.unmount_callable();
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            // What still uses it keeps the mount, and this process, until it is done.
            if let Err(error) = unmounter.unmount() {
                eprintln!("mol-fuse: unmounting: {error}");
            }
        }
    });
    session.run().map_err(failed("serve"))
}
