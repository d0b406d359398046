// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses as people write them: the interface of a link-local one by its name.

use anyhow::{Context, Result};
use std::net::{SocketAddr, SocketAddrV6};

/// Reads `ADDRESS:PORT` or `[ADDRESS%INTERFACE]:PORT`; `index` gives the index of an interface.
///
/// # Errors
/// When it is no address, or there is no such interface.
pub fn parse(text: &str, index: impl Fn(&str) -> Result<u32>) -> Result<SocketAddr> {
    let Some((before, rest)) = text.split_once('%') else {
        return text.parse().with_context(|| format!("`{text}` is no ADDRESS:PORT"));
    };
    let (interface, port) =
        rest.split_once(']').with_context(|| format!("`{text}` has no `]` after the interface"))?;
    let address: SocketAddrV6 = format!("{before}]{port}")
        .parse()
        .with_context(|| format!("`{text}` is no [ADDRESS%INTERFACE]:PORT"))?;
    let scope = match interface.parse() {
        Ok(number) => number,
        Err(_) => index(interface)?,
    };
    Ok(SocketAddrV6::new(*address.ip(), address.port(), 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_known_by_name_and_by_number() {
        let index = |name: &str| match name {
            "eth0" => Ok(2),
            _ => anyhow::bail!("no such interface"),
        };
        let parse = |text| parse(text, index);
        let zoned: SocketAddr = SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 2).into();
        assert_eq!(parse("[fe80::1%eth0]:7").unwrap(), zoned);
        assert_eq!(parse("[fe80::1%2]:7").unwrap(), zoned);
        assert_eq!(parse("10.0.0.1:7").unwrap(), "10.0.0.1:7".parse().unwrap());
        assert_eq!(parse("[::1]:7").unwrap(), "[::1]:7".parse().unwrap());
        for wrong in ["[fe80::1%eth9]:7", "fe80::1%eth0:7", "[fe80::1%eth0]", "host:7", "", "%]"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
