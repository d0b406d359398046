// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask pxe serve`: boots the machines of an Ethernet segment from this checkout.

use std::fs;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{bail, ensure, Context, Result};
use dvs_netboot::files::{
    script, Files, COMMAND_LINE, INITRAMFS, IPXE_BIOS, LINUX, SCRIPT, UNIFIED,
};
use dvs_netboot::offer::Pool;
use dvs_netboot::server::{serve, Settings};
use nix::ifaddrs::getifaddrs;

use crate::artefacts;
use crate::image::{self, What};
use crate::kernel;
use crate::source::Origin;
use crate::step::Session;

/// Boot machines over the network.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Pxe {
    /// Answer the machines of one Ethernet segment, until Ctrl-C; needs root, for the ports of DHCP and TFTP
    Serve(Serve),
}

/// Arguments of `cargo xtask pxe serve`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Serve {
    /// The interface on that segment; no other is answered. It must have an IPv4 address
    #[arg(long)]
    interface: String,
    /// Addresses to give to the machines, of the interface's network, such as 192.168.7.100-192.168.7.199. Without it the segment has a
    /// DHCP server that does so, and machines hear from here only what to boot
    #[arg(long, value_name = "FIRST-LAST")]
    addresses: Option<Addresses>,
    /// More kernel arguments; `dvs.…` ones are the machine configuration
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    append: Vec<String>,
}

/// A range of addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no range of addresses, such as 192.168.7.100-192.168.7.199");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let [first, last] = [first, last].map(|address| address.trim().parse::<Ipv4Addr>());
        match (first, last) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(wrong()),
        }
    }
}

impl Addresses {
    /// The pool that they are, in the network of `own`.
    fn pool(self, own: Ipv4Addr, mask: Ipv4Addr) -> Result<Pool> {
        let Self { first, last } = self;
        let network = |address: Ipv4Addr| u32::from(address) & u32::from(mask);
        ensure!(
            network(first) == network(own) && network(last) == network(own),
            "giving away the addresses {first} to {last}: they are not all in the network of {own} with mask {mask}"
        );
        ensure!(
            !(first..=last).contains(&own),
            "giving away the addresses {first} to {last}: the interface's own, {own}, is one of them"
        );
        Ok(Pool { first, count: u32::from(last) - u32::from(first) + 1, mask })
    }
}

impl Pxe {
    /// Serves until something fails.
    ///
    /// # Errors
    /// When the image does not build, the interface has no address, or a port cannot be used.
    pub(crate) fn run(&self, session: &Session, origin: &Origin) -> Result<()> {
        let Self::Serve(Serve { interface, addresses, append }) = self;
        let (address, mask) = address_of(interface)?;
        let pool = addresses.map(|addresses| addresses.pool(address, mask)).transpose()?;
        let node = kernel::Variant::Node;
        let built = artefacts::build(session, origin, node, kernel::Image::BzImage, false)?;
        let folder = image::build(session, &built, What::Pxe, &image::folder(session))?;
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let mut files = Files::default();
        for name in [LINUX, INITRAMFS, UNIFIED, IPXE_BIOS] {
            files.add(name, read(name)?);
        }
        let own = String::from_utf8(read(COMMAND_LINE)?).context("reading the command line")?;
        let command_line = [&[own.trim().to_owned()], &append[..]].concat().join(" ");
        files.add(SCRIPT, script(&command_line).into_bytes());
        if !append.is_empty() {
            session.notice("pxe", "UEFI firmware takes the arguments of the image alone; those given here reach machines with a BIOS or iPXE");
        }
        let beside = match pool {
            Some(pool) => format!("giving away {} addresses from {}", pool.count, pool.first),
            None => "beside the DHCP server of the segment".to_owned(),
        };
        session.notice("pxe", &format!("booting machines on {interface} from {address}, {beside}"));
        let settings = Settings { interface: interface.clone(), address, pool };
        serve(&settings, files, Arc::new(|line| eprintln!("{line}")))
            .context("serving; is another DHCP or TFTP server running here, or are you not root?")
    }
}

/// The IPv4 address of an interface, and its mask.
fn address_of(interface: &str) -> Result<(Ipv4Addr, Ipv4Addr)> {
    let all = getifaddrs().context("asking for the addresses of this machine")?;
    let mut known = false;
    for entry in all.filter(|entry| entry.interface_name == interface) {
        known = true;
        let ip = |storage: Option<nix::sys::socket::SockaddrStorage>| {
            storage.and_then(|storage| Some(storage.as_sockaddr_in()?.ip()))
        };
        if let Some(found) = ip(entry.address).zip(ip(entry.netmask)) {
            return Ok(found);
        }
    }
    if known {
        bail!("booting machines on {interface}: it has no IPv4 address; give it one with `ip address add ADDRESS/LENGTH dev {interface}`");
    }
    bail!("booting machines on {interface}: this machine has no such interface")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_addresses_are_read() {
        let range: Addresses = "10.0.0.5-10.0.0.9".parse().unwrap();
        let mask = Ipv4Addr::new(255, 255, 255, 0);
        let pool = range.pool([10, 0, 0, 1].into(), mask).unwrap();
        assert_eq!((pool.first, pool.count), ([10, 0, 0, 5].into(), 5));
        for text in ["", "10.0.0.5", "10.0.0.9-10.0.0.5", "10.0.0.5-x"] {
            assert!(text.parse::<Addresses>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_given_away_are_refused() {
        let range: Addresses = "10.0.0.5-10.0.0.9".parse().unwrap();
        let mask = Ipv4Addr::new(255, 255, 255, 0);
        let own = range.pool([10, 0, 0, 7].into(), mask).unwrap_err().to_string();
        assert!(own.contains("the interface's own, 10.0.0.7"), "{own}");
        assert!(range.pool([10, 0, 1, 1].into(), mask).is_err());
    }

    #[test]
    fn an_interface_is_asked_for_its_address() {
        assert_eq!(address_of("lo").unwrap().0, Ipv4Addr::LOCALHOST);
        let error = address_of("no-such-if0").unwrap_err().to_string();
        assert!(error.ends_with("this machine has no such interface"), "{error}");
    }
}
