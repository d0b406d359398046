// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a node's API is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The socket of the node that a program runs on.
pub const SOCKET: &str = "/run/dvs/api.sock";

/// Where a node's API is, and how it is spoken with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `https://HOST:PORT`: TLS, with certificates both ways.
    Tls(String),
    /// `http://HOST:PORT`: in the clear, as a node without a cluster token answers on its own machine.
    Plain(String),
    /// `unix:PATH`: the socket of the node that the program runs on.
    Socket(PathBuf),
}

/// It is no address of an API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no endpoint: expected https://HOST:PORT, http://HOST:PORT or unix:PATH")]
pub struct ParseAddressError(String);

impl Address {
    /// What URLs of requests there begin with. They do not say where that is, which may be nothing that stands in a URL.
    pub fn base(&self) -> &'static str {
        match self {
            Self::Tls(_) => "https://node",
            Self::Plain(_) | Self::Socket(_) => "http://node",
        }
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    /// What has no scheme is an address of TLS, which may leave out the port.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let wrong = || ParseAddressError(text.to_owned());
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Self::Socket(path.into())),
                false => Err(wrong()),
            };
        }
        let (tls, at) = match text.split_once("://") {
            Some(("https", at)) => (true, at),
            Some(("http", at)) => (false, at),
            Some(_) => return Err(wrong()),
            None => (true, text),
        };
        let at = at.trim_end_matches('/');
        if at.is_empty() || at.contains(|c: char| "/?#@,".contains(c) || c.is_whitespace()) {
            return Err(wrong());
        }
        let port = match at.rsplit_once(':') {
            Some((_, port)) if !at.ends_with(']') => Some(port),
            _ => None,
        };
        let at = match port {
            Some(port) => {
                port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
                at.to_owned()
            }
            None => format!("{at}:7700"),
        };
        Ok(if tls { Self::Tls(at) } else { Self::Plain(at) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(at) => write!(f, "https://{at}"),
            Self::Plain(at) => write!(f, "http://{at}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed_and_written_back() {
        for (text, whole) in [
            ("https://h:1/", "https://h:1"),
            ("h", "https://h:7700"),
            ("10.0.0.1:8", "https://10.0.0.1:8"),
            ("[fe80::1%eth0]", "https://[fe80::1%eth0]:7700"),
            ("http://127.0.0.1:7700", "http://127.0.0.1:7700"),
            ("unix:/run/dvs/api.sock", "unix:/run/dvs/api.sock"),
            ("unix:///x", "unix:/x"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), whole);
            assert_eq!(whole.parse(), Ok(address));
        }
        for wrong in ["", "ftp://h:1", "https://h/x", "h:0", "h:x", "a b", "unix:x", "u@h:1"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
