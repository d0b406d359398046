// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine that boots others: its interfaces, its media and its ports.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dvs_bootdisk::{firmware, medium, volume};
use dvs_config::{InterfaceAddress, InterfaceKind, InterfaceSelector, Mac, Netboot};
use dvs_netboot::files::Files;
use dvs_netboot::server::{Report, Server, Settings};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::image::{copy, Image};
use crate::boot::Disk;
use crate::netlink::Conversation;
use crate::release;

/// iPXE for a BIOS whose own PXE can do little, as it is in the root of a node.
const IPXE: &str = "/usr/libexec/dvs/undionly.kpxe";
/// Where Linux tells which machine has which address.
const NEIGHBOURS: &str = "/proc/net/arp";

/// An interface that is ready to be served on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// The address from which is served.
    pub own: InterfaceAddress,
    /// Whether it was given that address for this.
    pub given: bool,
}

/// A server that runs until it is dropped.
pub trait Service: Send {
    /// Why it serves nothing any more.
    fn failure(&self) -> Option<String>;
}

impl Service for Server {
    fn failure(&self) -> Option<String> {
        Server::failure(self)
    }
}

/// The machine that boots others, or what a test pretends it to be. Everything here may block; errors are for people.
pub trait Host: Send + Sync {
    /// Finds the interface, and sees to it that it is up and has the address.
    ///
    /// # Errors
    /// There is none, or it has no address.
    fn prepare(&self, wanted: &Netboot) -> Result<Interface, String>;

    /// Takes back the address that an interface was given.
    ///
    /// # Errors
    /// What the kernel says.
    fn withdraw(&self, interface: &Interface) -> Result<(), String>;

    /// Copies the image that this machine runs, and says where it was.
    ///
    /// # Errors
    /// It is nowhere to be found, or does not fit into memory.
    fn copy_image(&self, to: &mut File) -> Result<String, String>;

    /// iPXE, for machines that have none.
    fn ipxe(&self) -> Option<Vec<u8>>;

    /// Begins to serve.
    ///
    /// # Errors
    /// A port is in use.
    fn serve(
        &self,
        settings: Settings,
        files: Files,
        report: Arc<Report>,
    ) -> Result<Box<dyn Service>, String>;

    /// The machine that has an address, as far as is known.
    fn neighbour(&self, address: Ipv4Addr) -> Option<Mac>;
}

/// This machine.
#[derive(Debug)]
pub struct ThisMachine {
    disk: Disk,
    /// Where a medium is mounted while the image is copied from it.
    point: PathBuf,
}

impl ThisMachine {
    /// One that has booted from this disk, or why it has not; `directory` is where PID 1 and the daemon leave each other files.
    pub fn new(disk: Disk, directory: &Path) -> Self {
        Self { disk, point: directory.join("medium") }
    }
}

impl Host for ThisMachine {
    fn prepare(&self, wanted: &Netboot) -> Result<Interface, String> {
        let failed =
            |error: io::Error| format!("look for the interface {}: {error}", wanted.interface);
        let mut route = Conversation::open(NETLINK_ROUTE).map_err(failed)?;
        let all = route.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP);
        let (name, index) = choose(&all.map_err(failed)?, &wanted.interface)?;
        let failed = |attempt: String| move |error: io::Error| format!("{attempt}: {error}");
        let mut link = LinkMessage::default();
        link.header.index = index;
        (link.header.flags, link.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
        let up = route.ask(RouteNetlinkMessage::SetLink(link), NLM_F_ACK);
        up.map_err(failed(format!("bring {name} up")))?;
        let mut asked = AddressMessage::default();
        asked.header.family = AddressFamily::Inet;
        let all = route.ask(RouteNetlinkMessage::GetAddress(asked), NLM_F_DUMP);
        let all = all.map_err(failed(format!("ask for the addresses of {name}")))?;
        let present = addresses(&all, index);
        let (own, given) = match (wanted.address, present.first()) {
            (Some(own), _) => (own, !present.contains(&own)),
            (None, Some(own)) => (*own, false),
            (None, None) => {
                return Err(format!(
                    "{name} has no IPv4 address to boot machines from; give it one with `address`"
                ));
            }
        };
        if given {
            let message = RouteNetlinkMessage::NewAddress(assignment(index, own));
            let given = route.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
            given.map_err(failed(format!("give {name} the address {own}")))?;
        }
        Ok(Interface { name, index, own, given })
    }

    fn withdraw(&self, interface: &Interface) -> Result<(), String> {
        let Interface { name, index, own, .. } = interface;
        let failed = |error: io::Error| format!("take the address {own} from {name}: {error}");
        let mut route = Conversation::open(NETLINK_ROUTE).map_err(failed)?;
        let message = RouteNetlinkMessage::DelAddress(assignment(*index, *own));
        route.ask(message, NLM_F_ACK).map(drop).map_err(failed)
    }

    fn copy_image(&self, to: &mut File) -> Result<String, String> {
        let mut tried = Vec::new();
        match &self.disk {
            Ok(disk) => {
                let origin = disk.device().display().to_string();
                let copied = disk.with_running(|image| {
                    copy(image, image.len() as u64, to)
                        .map_err(volume::Error::when("copy the image that runs"))
                });
                match copied {
                    Ok(()) => return Ok(origin),
                    Err(error) => tried.push(format!("{origin}: {error}")),
                }
            }
            Err(why) => tried.push(why.clone()),
        }
        for device in medium::found(Path::new(firmware::BLOCK), Path::new("/dev")) {
            let copied = medium::with_image(&device, &self.point, |file| {
                let same = is_own(&file, release::own()).map_err(io::Error::other);
                same.and_then(|()| copy(&file, file.metadata()?.len(), to))
                    .map_err(volume::Error::when("copy the image"))
            });
            match copied {
                Ok(()) => return Ok(device.display().to_string()),
                Err(error) => tried.push(format!("{}: {error}", device.display())),
            }
        }
        Err(format!(
            "this node does not find the image that it runs ({}); hand it over with `dvsctl pxe enable --image dvs.efi`",
            tried.join("; ")
        ))
    }

    fn ipxe(&self) -> Option<Vec<u8>> {
        fs::read(IPXE).ok()
    }

    fn serve(
        &self,
        settings: Settings,
        files: Files,
        report: Arc<Report>,
    ) -> Result<Box<dyn Service>, String> {
        let server = Server::start(settings, files, report).map_err(|error| error.to_string())?;
        Ok(Box::new(server))
    }

    fn neighbour(&self, address: Ipv4Addr) -> Option<Mac> {
        neighbour_of(&fs::read_to_string(NEIGHBOURS).ok()?, address)
    }
}

/// Refuses an image of another release than the one that runs.
fn is_own(file: &File, own: &str) -> Result<(), String> {
    let image = Image::of(file.try_clone().map_err(|error| error.to_string())?)?;
    match image.release == own {
        true => Ok(()),
        false => Err(format!("it is of release {}, and this node runs {own}", image.release)),
    }
}

/// Name and index of the first Ethernet interface that is meant.
fn choose(
    all: &[RouteNetlinkMessage],
    wanted: &InterfaceSelector,
) -> Result<(String, u32), String> {
    let mut names = Vec::new();
    for message in all {
        let RouteNetlinkMessage::NewLink(link) = message else { continue };
        let (mut name, mut mac, mut permanent) = (None, None, None);
        let (mut kind, mut is_member) = (InterfaceKind::Adapter, false);
        let address = |bytes: &Vec<u8>| bytes.as_slice().try_into().ok().map(Mac);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Address(bytes) => mac = address(bytes),
                LinkAttribute::PermAddress(bytes) => permanent = address(bytes),
                LinkAttribute::LinkInfo(parts) => {
                    for part in parts {
                        match part {
                            LinkInfo::Kind(InfoKind::Bond) => kind = InterfaceKind::Bond,
                            LinkInfo::Kind(InfoKind::Vlan) => kind = InterfaceKind::Vlan,
                            LinkInfo::Kind(_) => kind = InterfaceKind::Other,
                            LinkInfo::PortKind(port) => is_member = *port == InfoPortKind::Bond,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
        let (Some(name), Some(mac), true) = (name, permanent.or(mac), is_ethernet) else {
            continue;
        };
        // What is in a bond sends and hears as the bond.
        if is_member {
            continue;
        }
        if wanted.selects(kind, &name, mac) {
            return Ok((name, link.header.index));
        }
        names.push(name);
    }
    let there = match &names[..] {
        [] => "it has none at all".to_owned(),
        names => format!("it has {}", names.join(", ")),
    };
    Err(format!("this machine has no Ethernet interface that matches `{wanted}`; {there}"))
}

/// The IPv4 addresses of an interface.
fn addresses(all: &[RouteNetlinkMessage], index: u32) -> Vec<InterfaceAddress> {
    let found = all.iter().filter_map(|message| {
        let RouteNetlinkMessage::NewAddress(message) = message else { return None };
        let of_it = message.header.index == index && message.header.family == AddressFamily::Inet;
        of_it.then_some(())?;
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        })?;
        format!("{local}/{}", message.header.prefix_len).parse().ok()
    });
    found.collect()
}

fn assignment(index: u32, own: InterfaceAddress) -> AddressMessage {
    let ip = IpAddr::V4(own.address());
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = own.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

/// Who has an address, in the kernel's table of neighbours.
fn neighbour_of(table: &str, address: Ipv4Addr) -> Option<Mac> {
    let wanted = address.to_string();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let mac: Mac = fields.get(3)?.parse().ok()?;
        (*fields.first()? == wanted && !mac.is_group_or_zero()).then_some(mac)
    })
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::sample;
    use super::*;

    fn link(name: &str, index: u32, kind: LinkLayerType) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.link_layer_type = kind;
        let mac = vec![2, 0, 0, 0, 0, index as u8];
        link.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::Address(mac)];
        RouteNetlinkMessage::NewLink(link)
    }

    #[test]
    fn the_interface_is_one_that_matches_or_those_that_there_are_are_named() {
        let all = [
            link("lo", 1, LinkLayerType::Loopback),
            link("eth0", 2, LinkLayerType::Ether),
            link("eth1", 3, LinkLayerType::Ether),
        ];
        let choose = |wanted: &str| choose(&all, &wanted.parse().unwrap());
        assert_eq!(choose("02:00:00:00:00:03"), Ok(("eth1".into(), 3)));
        assert_eq!(choose("eth*"), Ok(("eth0".into(), 2)));
        let error = choose("lo").unwrap_err();
        assert!(error.ends_with("matches `lo`; it has eth0, eth1"), "{error}");
    }

    #[test]
    fn no_member_of_a_bond_is_the_interface_and_a_vlan_only_if_it_is_named() {
        let with = |message, part| {
            let RouteNetlinkMessage::NewLink(mut link) = message else { unreachable!() };
            link.attributes.push(LinkAttribute::LinkInfo(vec![part]));
            RouteNetlinkMessage::NewLink(link)
        };
        let adapter = |name: &str, index| link(name, index, LinkLayerType::Ether);
        let all = [
            with(adapter("eth0", 2), LinkInfo::PortKind(InfoPortKind::Bond)),
            with(adapter("eth1.5", 3), LinkInfo::Kind(InfoKind::Vlan)),
            with(adapter("bond0", 4), LinkInfo::Kind(InfoKind::Bond)),
            adapter("eth1", 5),
        ];
        let choose = |wanted: &str| choose(&all, &wanted.parse().unwrap()).map(|(name, _)| name);
        assert_eq!(choose("eth*"), Ok("eth1".into()));
        assert_eq!(choose("eth1.5"), Ok("eth1.5".into()));
        assert_eq!(choose("bond?"), Ok("bond0".into()));
        assert!(choose("eth0").unwrap_err().ends_with("it has eth1.5, bond0, eth1"));
        assert!(choose("02:00:00:00:00:03").is_err());
    }

    #[test]
    fn the_addresses_of_an_interface_are_told_from_those_of_others() {
        let address = |index, text: &str| {
            RouteNetlinkMessage::NewAddress(assignment(index, text.parse().unwrap()))
        };
        let all = [
            address(2, "10.0.0.1/24"),
            address(3, "10.0.1.1/16"),
            link("eth0", 2, LinkLayerType::Ether),
        ];
        assert_eq!(addresses(&all, 3), ["10.0.1.1/16".parse().unwrap()]);
        assert_eq!(addresses(&all, 4), []);
    }

    #[test]
    fn a_neighbour_is_known_by_its_address() {
        let table = "IP address HW type Flags HW address Mask Device\n\
             10.0.0.7 0x1 0x2 02:00:00:00:00:07 * eth0\n10.0.0.8 0x1 0x0 00:00:00:00:00:00 * eth0\n\n";
        let of = |address: [u8; 4]| neighbour_of(table, address.into());
        assert_eq!(of([10, 0, 0, 7]), Some(Mac([2, 0, 0, 0, 0, 7])));
        assert_eq!((of([10, 0, 0, 8]), of([10, 0, 0, 9])), (None, None));
    }

    #[test]
    fn an_image_of_another_release_is_not_the_own_one() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &sample("1.0.0+a")).unwrap();
        assert_eq!(is_own(&file, "1.0.0+a"), Ok(()));
        let error = is_own(&file, "1.0.0+b").unwrap_err();
        assert_eq!(error, "it is of release 1.0.0+a, and this node runs 1.0.0+b");
    }
}
