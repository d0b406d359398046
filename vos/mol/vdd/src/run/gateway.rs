// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD gateway as a process: a thread and an endpoint for each connection.

use super::target::Target;
use super::RunError;
use crate::nbd::serve_connection;
use core::str::FromStr;
use dvk::{Port, Slot};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

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

/// What a gateway is to do.
#[derive(Clone, Debug)]
pub struct GatewayPlan {
    /// Which device.
    pub target: Target,
    /// Where it listens.
    pub listen: Listen,
}

/// Passes a device on to NBD clients until it cannot.
///
/// # Errors
/// [`RunError`]. It does not end otherwise.
pub fn gateway(plan: &GatewayPlan) -> Result<(), RunError> {
    let plan = Arc::new(plan.clone());
    let at = |error: io::Error| RunError::Listen { listen: plan.listen.clone(), error };
    // What cannot be served is told now, and not to the first client.
    let geometry =
        plan.target.open(&Port::open(&plan.target.dvk, Slot::Any)?, |disk| *disk.geometry())?;
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
        let port = match Port::open(&plan.target.dvk, Slot::Any) {
            Ok(port) => port,
            Err(error) => return eprintln!("mol-vdd: cannot serve a client: {error}"),
        };
        let name = plan.target.minor.to_string();
        let served = plan.target.open(&port, |disk| {
            if let Err(error) = serve_connection(&mut stream, &name, disk) {
                eprintln!("mol-vdd: {error}");
            }
        });
        if let Err(error) = served {
            eprintln!("mol-vdd: cannot serve a client: {error}");
        }
    });
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
