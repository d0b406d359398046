// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask pxe serve`: boots the machines of an Ethernet segment from this checkout.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{anyhow, bail, Context, Result};
use dvs_config::{AddressRange, InterfaceAddress};
use dvs_netboot::files::{
    script, Content, Files, COMMAND_LINE, INITRAMFS, IPXE_BIOS, LINUX, SCRIPT, UNIFIED,
};
use dvs_netboot::offer::Pool;
use dvs_netboot::server::{Server, Settings};
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
    addresses: Option<AddressRange>,
    /// More kernel arguments; `dvs.…` ones are the machine configuration
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    append: Vec<String>,
}

impl Pxe {
    /// Serves until something fails.
    ///
    /// # Errors
    /// When the image does not build, the interface has no address, or a port cannot be used.
    pub(crate) fn run(&self, session: &Session, origin: &Origin) -> Result<()> {
        let Self::Serve(Serve { interface, addresses, append }) = self;
        let own = address_of(interface)?;
        let pool = addresses.map(|addresses| Pool::of(addresses, own)).transpose();
        let pool = pool.map_err(|why| anyhow!("{why}"))?;
        let address = own.address();
        let node = kernel::Variant::Node;
        let built = artefacts::build(session, origin, node, kernel::Image::BzImage, false)?;
        let folder = image::build(session, &built, What::Pxe, &image::folder(session))?;
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let mut files = Files::default();
        for name in [LINUX, INITRAMFS, UNIFIED, IPXE_BIOS] {
            files.add(name, Content::of(read(name)?));
        }
        let own = String::from_utf8(read(COMMAND_LINE)?).context("reading the command line")?;
        let command_line = [&[own.trim().to_owned()], &append[..]].concat().join(" ");
        files.add(SCRIPT, Content::of(script(&command_line).into_bytes()));
        if !append.is_empty() {
            session.notice("pxe", "UEFI firmware takes the arguments of the image alone; those given here reach machines with a BIOS or iPXE");
        }
        let beside = match pool {
            Some(pool) => format!("giving away {} addresses from {}", pool.count, pool.first),
            None => "beside the DHCP server of the segment".to_owned(),
        };
        session.notice("pxe", &format!("booting machines on {interface} from {address}, {beside}"));
        let settings = Settings { interface: interface.clone(), address, pool };
        let server = Server::start(settings, files, Arc::new(|event| eprintln!("{event}")));
        let server = server.context(
            "serving; is another DHCP or TFTP server running here, or are you not root?",
        )?;
        bail!("{}", server.wait())
    }
}

/// The IPv4 address of an interface.
fn address_of(interface: &str) -> Result<InterfaceAddress> {
    let all = getifaddrs().context("asking for the addresses of this machine")?;
    let mut known = false;
    for entry in all.filter(|entry| entry.interface_name == interface) {
        known = true;
        let ip = |storage: Option<nix::sys::socket::SockaddrStorage>| {
            storage.and_then(|storage| Some(storage.as_sockaddr_in()?.ip()))
        };
        if let Some((address, mask)) = ip(entry.address).zip(ip(entry.netmask)) {
            return of_host(address, mask);
        }
    }
    if known {
        bail!("booting machines on {interface}: it has no IPv4 address; give it one with `ip address add ADDRESS/LENGTH dev {interface}`");
    }
    bail!("booting machines on {interface}: this machine has no such interface")
}

fn of_host(address: Ipv4Addr, mask: Ipv4Addr) -> Result<InterfaceAddress> {
    let text = format!("{address}/{}", mask.to_bits().leading_ones());
    text.parse::<InterfaceAddress>().with_context(|| format!("booting machines from {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_asked_for_its_address() {
        let own = of_host([192, 168, 7, 2].into(), [255, 255, 255, 0].into()).unwrap();
        assert_eq!(own.to_string(), "192.168.7.2/24");
        let loopback = address_of("lo").unwrap_err();
        assert!(format!("{loopback:#}").contains("127.0.0.1 in `127.0.0.1/8` is a loopback"));
        let error = address_of("no-such-if0").unwrap_err().to_string();
        assert!(error.ends_with("this machine has no such interface"), "{error}");
    }
}
