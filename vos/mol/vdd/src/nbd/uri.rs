// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exports of servers as people write them, by the URI format of NBD (`doc/uri.md` of the project NetworkBlockDevice/nbd):
//! `nbd://192.0.2.1:10809/export` and `nbd+unix:///export?socket=/run/nbd`.

use super::wire::{NAME_BYTES_MAX, PORT};
use core::fmt;
use core::str::FromStr;
use percent_encoding::percent_decode_str;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// On an address.
    Tcp(SocketAddr),
    /// On a socket of this path.
    Unix(PathBuf),
}

/// An export of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdUri {
    /// The server.
    pub server: Where,
    /// The export's name; the server's default if it is empty.
    pub export: String,
    text: String,
}

/// Why a text is no export of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// It has another form.
    #[error(
        "`{0}` is no volume: write nbd://ADDRESS:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH"
    )]
    Form(String),
    /// The server is named.
    #[error("`{0}` is no address of a server: write an IPv4 address, or an IPv6 address in brackets; names are not looked up")]
    Address(String),
    /// The export's name cannot be said.
    #[error("the export of `{0}` has no name of at most {NAME_BYTES_MAX} bytes of UTF-8")]
    Export(String),
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for NbdUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let form = || UriError::Form(text.to_owned());
        let decode = |part: &str| {
            let decoded = percent_decode_str(part).decode_utf8();
            decoded.map(|name| name.into_owned()).map_err(|_| UriError::Export(text.to_owned()))
        };
        let (server, export) = if let Some(rest) = text.strip_prefix("nbd+unix://") {
            let (path, query) = rest.split_once('?').ok_or_else(form)?;
            let socket = query.strip_prefix("socket=").filter(|socket| !socket.is_empty());
            let socket = socket.filter(|socket| !socket.contains('&')).ok_or_else(form)?;
            let export =
                if path.is_empty() { path } else { path.strip_prefix('/').ok_or_else(form)? };
            (Where::Unix(decode(socket)?.into()), export)
        } else {
            let rest = text.strip_prefix("nbd://").ok_or_else(form)?;
            let (server, export) = rest.split_once('/').unwrap_or((rest, ""));
            if export.contains('?') || server.is_empty() {
                return Err(form());
            }
            let address = read_address(server);
            (Where::Tcp(address.ok_or_else(|| UriError::Address(server.to_owned()))?), export)
        };
        let export = decode(export)?;
        if export.len() > NAME_BYTES_MAX {
            return Err(UriError::Export(text.to_owned()));
        }
        Ok(Self { server, export, text: text.to_owned() })
    }
}

/// An address with a port, or without.
fn read_address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = match bare {
        Some(six) => six.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    };
    alone.map(|ip| SocketAddr::new(ip, PORT)).or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_they_are_written() {
        let read = |text: &str| text.parse::<NbdUri>().expect(text);
        let tcp = |address: &str| Where::Tcp(address.parse().expect("an address"));
        let unix = |path: &str| Where::Unix(path.into());
        for (text, server, export) in [
            ("nbd://192.0.2.1:1/a", tcp("192.0.2.1:1"), "a"),
            ("nbd://192.0.2.1", tcp("192.0.2.1:10809"), ""),
            ("nbd://192.0.2.1/", tcp("192.0.2.1:10809"), ""),
            ("nbd://[2001:db8::1]/a%2Cb/c", tcp("[2001:db8::1]:10809"), "a,b/c"),
            ("nbd://[2001:db8::1]:7/", tcp("[2001:db8::1]:7"), ""),
            ("nbd+unix:///a?socket=/run/nbd", unix("/run/nbd"), "a"),
            ("nbd+unix://?socket=/run/a%20b", unix("/run/a b"), ""),
        ] {
            let uri = read(text);
            assert_eq!((uri.server.clone(), uri.export.as_str()), (server, export), "{text}");
            assert_eq!(uri.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_volume_is_told_apart() {
        let refused = |text: &str| text.parse::<NbdUri>().unwrap_err();
        for text in [
            "nbd:192.0.2.1",
            "nbds://192.0.2.1/",
            "nbd:///a",
            "nbd://192.0.2.1/a?tls=1",
            "nbd+unix:///a",
            "nbd+unix:///a?socket=",
            "nbd+unix://host/a?socket=/run/nbd",
            "nbd+unix:///a?socket=/run/nbd&x=1",
        ] {
            assert!(
                matches!(refused(text), UriError::Form(_) | UriError::Address(_)),
                "{text}: {:?}",
                refused(text)
            );
        }
        for text in ["nbd://example.org/a", "nbd://2001:db8::1/a", "nbd://192.0.2.1:65536/"] {
            assert!(matches!(refused(text), UriError::Address(_)), "{text}");
        }
        assert!(matches!(refused("nbd://192.0.2.1/%ff"), UriError::Export(_)));
        let long = format!("nbd://192.0.2.1/{}", "a".repeat(4097));
        assert!(matches!(refused(&long), UriError::Export(_)));
    }
}
