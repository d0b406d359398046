// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD gateway as a process: a thread and an endpoint for each connection.

use super::{ByGroup, BySlot, RunError};
use crate::client::{Disk, DiskError, Finder};
use crate::nbd::serve_connection;
use core::str::FromStr;
use core::time::Duration;
use dvk::{Port, Slot};
use mol_protocol::block::OPEN_WRITE;
use mol_protocol::Errno;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

/// How long a request may take, a failover included, before the client is told that it failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a gateway listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On a socket of this path.
    Unix(PathBuf),
    /// On an address.
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.strip_prefix("tcp:").and_then(|address| address.parse().ok());
        let expected = || format!("`{text}`: expected unix:PATH or tcp:ADDRESS:PORT");
        address.map(Self::Tcp).ok_or_else(expected)
    }
}

impl core::fmt::Display for Listen {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// How the server of a device is found.
#[derive(Clone, Debug)]
pub enum Found {
    /// As the primary of a group.
    Group(String),
    /// By its server slot on this node.
    Slot(u32),
}

/// What a gateway is to do.
#[derive(Clone, Debug)]
pub struct GatewayPlan {
    /// The device of the container.
    pub dvk: PathBuf,
    /// Where it listens.
    pub listen: Listen,
    /// Whose device.
    pub server: Found,
    /// Which device of it.
    pub minor: u32,
}

/// Passes a device on to NBD clients until it cannot.
///
/// # Errors
/// [`RunError`]. It does not end otherwise.
pub fn gateway(plan: &GatewayPlan) -> Result<(), RunError> {
    let plan = Arc::new(plan.clone());
    let at = |error: io::Error| RunError::Listen { listen: plan.listen.clone(), error };
    // What cannot be served is told now, and not to the first client.
    let geometry = open(&Port::open(&plan.dvk, Slot::Any)?, &plan, |disk| *disk.geometry())?;
    let serve = || eprintln!("mol-vdd: passing on {} bytes to NBD clients", geometry.bytes);
    match &plan.listen {
        Listen::Unix(path) => {
            // One that was left behind by a gateway that was killed is nobody's.
            if std::os::unix::net::UnixStream::connect(path).is_err() {
                let _ = std::fs::remove_file(path);
            }
            let listener = UnixListener::bind(path).map_err(at)?;
            serve();
            loop {
                let (stream, _) = listener.accept().map_err(at)?;
                begin(stream, plan.clone());
            }
        }
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).map_err(at)?;
            serve();
            loop {
                let (stream, _) = listener.accept().map_err(at)?;
                // Answers are short, and waited for.
                stream.set_nodelay(true).map_err(at)?;
                begin(stream, plan.clone());
            }
        }
    }
}

fn begin(stream: impl Read + Write + Send + 'static, plan: Arc<GatewayPlan>) {
    std::thread::spawn(move || {
        let mut stream = stream;
        let port = match Port::open(&plan.dvk, Slot::Any) {
            Ok(port) => port,
            Err(error) => return eprintln!("mol-vdd: cannot serve a client: {error}"),
        };
        let name = plan.minor.to_string();
        let served = open(&port, &plan, |disk| {
            if let Err(error) = serve_connection(&mut stream, &name, disk) {
                eprintln!("mol-vdd: {error}");
            }
        });
        if let Err(error) = served {
            eprintln!("mol-vdd: cannot serve a client: {error}");
        }
    });
}

/// Opens the device for writing, or for reading if it takes no writes.
fn open<T>(
    port: &Port,
    plan: &GatewayPlan,
    work: impl FnOnce(&mut Disk<'_, Port, Box<dyn Finder + '_>>) -> T,
) -> Result<T, RunError> {
    let finder = || -> Result<Box<dyn Finder + '_>, dvk::Error> {
        Ok(match &plan.server {
            Found::Group(group) => Box::new(ByGroup::new(&plan.dvk, group, plan.minor)?),
            Found::Slot(slot) => Box::new(BySlot::new(port, *slot)),
        })
    };
    let open = |flags| -> Result<_, dvk::Error> {
        Ok(Disk::open(port, finder()?, plan.minor, flags, PATIENCE))
    };
    let mut disk = match open(OPEN_WRITE)? {
        Err(DiskError::Refused { errno: Errno::ReadOnly, .. }) => open(0)?,
        other => other,
    }?;
    let done = work(&mut disk);
    disk.close();
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_listen_is_a_path_or_an_address() {
        assert_eq!("unix:/run/a".parse(), Ok(Listen::Unix("/run/a".into())));
        let address = "127.0.0.1:10809".parse().expect("an address");
        assert_eq!("tcp:127.0.0.1:10809".parse(), Ok(Listen::Tcp(address)));
        for text in ["unix:", "tcp:127.0.0.1", "/run/a"] {
            assert!(text.parse::<Listen>().unwrap_err().contains(text));
        }
    }
}
