// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's MACsec devices: made over rtnetlink, given keys over generic netlink.

mod messages;

use std::collections::BTreeMap;
use std::io;

use dvs_secret::Key;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoMacSec, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacSecCipherId, MacSecValidate,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::device::Call;
use super::key::KeyName;
use super::{DeviceCounts, Devices, Made};
use crate::genl::Family;
use crate::netlink::Conversation;
use crate::settings::Interface;
use messages::{Command, FAMILY};

/// How many packet numbers a frame may come behind the latest of its sender: as many as a sender has
/// under way to all its peers (64 frames to each of 51). A frame of those that somebody sends again is
/// dropped by the link it is for, as one that the network repeats.
pub const WINDOW: u32 = 4_096;

/// Bytes by which MACsec makes a frame longer: its tag, with the sender in it, and the seal.
const OVERHEAD: u32 = 32;

/// Longest name of a network interface.
const NAME_MAX: usize = 15;

/// Whom to tell of devices, and whom of keys.
#[derive(Debug)]
struct Open {
    route: Conversation,
    keys: Family,
}

/// The kernel of this machine.
#[derive(Debug, Default)]
pub struct Macsec(Option<Open>);

impl Macsec {
    fn open(&mut self) -> Result<&mut Open, String> {
        if self.0.is_none() {
            self.0 = Some(Open::new()?);
        }
        self.0.as_mut().ok_or_else(String::new)
    }
}

impl Devices for Macsec {
    fn make(&mut self, lower: &Interface) -> Result<Made, String> {
        let open = self.open()?;
        let name = device_name(lower);
        let attempt = |what: &'static str| {
            let name = &name;
            move |error: io::Error| format!("{what} {name} on {}: {error}", lower.name)
        };
        if let Some(index) = open.find(&name).map_err(attempt("look for"))? {
            // Keys of an earlier run of dvsd, of which nothing is known.
            open.remove(index).map_err(attempt("remove an earlier"))?;
        }
        open.create(&name, lower.index).map_err(attempt("make"))?;
        let index = open.find(&name).map_err(attempt("find"))?;
        let index = index.ok_or_else(|| format!("find {name}: it is gone again"))?;
        open.start(index).map_err(attempt("start"))?;
        Ok(Made { index, name })
    }

    fn tell(
        &mut self,
        device: u32,
        call: &Call,
        derive: &dyn Fn(&KeyName) -> Key,
    ) -> Result<(), String> {
        let open = self.open()?;
        let told = match call {
            Call::SendWith(association) => open.send_with(device, *association),
            _ => messages::requests(device, call, derive)
                .into_iter()
                .try_for_each(|(command, attributes)| open.keys.tell(command as u8, attributes)),
        };
        told.map_err(|error| error.to_string())
    }

    fn fit(&mut self, made: &Made, lower: &Interface) -> Result<(), String> {
        let open = self.open()?;
        let attempt = |error: io::Error| {
            format!("fit the frames of {} to {}: {error}", made.name, lower.name)
        };
        let room = open.mtu(lower.index).map_err(attempt)?.saturating_sub(OVERHEAD);
        if open.mtu(made.index).map_err(attempt)? != room {
            open.resize(made.index, room).map_err(attempt)?;
        }
        Ok(())
    }

    fn counts(&mut self) -> Result<BTreeMap<u32, DeviceCounts>, String> {
        let answers = self.open()?.keys.list(Command::Get as u8);
        let answers = answers.map_err(|error| format!("read the counters of MACsec: {error}"))?;
        Ok(answers.iter().filter_map(|answer| messages::counts(answer.as_bytes())).collect())
    }
}

fn device_name(lower: &Interface) -> String {
    let name = format!("sec-{}", lower.name);
    if name.len() <= NAME_MAX {
        name
    } else {
        format!("sec-{}", lower.index)
    }
}

impl Open {
    fn new() -> Result<Self, String> {
        let route = Conversation::open(NETLINK_ROUTE);
        let route = route.map_err(|error| format!("open a netlink socket: {error}"))?;
        let keys = Family::open(FAMILY).map_err(|error| {
            format!(
                "find MACsec in the kernel: {error}; boot the kernel of a DVS image, or set \
                 cluster.insecure on all nodes"
            )
        })?;
        Ok(Self { route, keys })
    }

    /// The index of the MACsec device of a name.
    fn find(&mut self, name: &str) -> io::Result<Option<u32>> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let answers = match self.route.ask(RouteNetlinkMessage::GetLink(link), NLM_F_ACK) {
            Err(error) if error.raw_os_error() == Some(NO_DEVICE) => return Ok(None),
            answers => answers?,
        };
        let is_macsec = |attribute: &LinkAttribute| {
            matches!(attribute, LinkAttribute::LinkInfo(parts)
                if parts.contains(&LinkInfo::Kind(InfoKind::MacSec)))
        };
        let index = |answer: &RouteNetlinkMessage| match answer {
            RouteNetlinkMessage::NewLink(link) if link.attributes.iter().any(is_macsec) => {
                Some(link.header.index)
            }
            _ => None,
        };
        Ok(answers.iter().find_map(index))
    }

    fn remove(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.route.ask(RouteNetlinkMessage::DelLink(link), NLM_F_ACK).map(drop)
    }

    fn create(&mut self, name: &str, lower: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        let settings = vec![
            InfoMacSec::Port(messages::PORT),
            InfoMacSec::CipherSuite(MacSecCipherId::GcmAes256),
            InfoMacSec::Encrypt(1),
            InfoMacSec::Protect(1),
            InfoMacSec::IncSci(1),
            InfoMacSec::Validation(MacSecValidate::Strict),
            InfoMacSec::ReplayProtect(1),
            InfoMacSec::Window(WINDOW),
        ];
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(lower),
            info(settings),
        ];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.route.ask(RouteNetlinkMessage::NewLink(link), flags).map(drop)
    }

    /// Switches a device on. It has the same link-local address as the interface below, whose MAC address it has: others that hear that one
    /// know where to send what goes from container to container.
    fn start(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let addresses = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::Eui64)];
        link.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(addresses)])];
        self.route.ask(RouteNetlinkMessage::SetLink(link), NLM_F_ACK)?;
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.route.ask(RouteNetlinkMessage::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// The most bytes that a frame of a device carries.
    fn mtu(&mut self, index: u32) -> io::Result<u32> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let answers = self.route.ask(RouteNetlinkMessage::GetLink(link), NLM_F_ACK)?;
        mtu(&answers).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn resize(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.route.ask(RouteNetlinkMessage::SetLink(link), NLM_F_ACK).map(drop)
    }

    fn send_with(&mut self, index: u32, association: u8) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![info(vec![InfoMacSec::EncodingSa(association)])];
        self.route.ask(RouteNetlinkMessage::NewLink(link), NLM_F_ACK).map(drop)
    }
}

/// `ENODEV`.
const NO_DEVICE: i32 = 19;

fn mtu(answers: &[RouteNetlinkMessage]) -> Option<u32> {
    answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => {
            link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            })
        }
        _ => None,
    })
}

fn info(settings: Vec<InfoMacSec>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::MacSec),
        LinkInfo::Data(InfoData::MacSec(settings)),
    ])
}

#[cfg(test)]
mod tests {
    use dvs_config::Mac;

    use super::*;

    #[test]
    fn names_fit_the_kernel() {
        let interface = |name: &str| Interface { name: name.into(), index: 7, mac: Mac([2; 6]) };
        assert_eq!(device_name(&interface("eth0")), "sec-eth0");
        assert_eq!(device_name(&interface("enp0s31f600")), "sec-enp0s31f600");
        assert_eq!(device_name(&interface("enp0s31f6001")), "sec-7");
    }

    /// Needs no rights, only a kernel: an answer is an answer, and a refusal says why.
    #[test]
    fn the_kernel_is_understood() {
        let mut route = Conversation::open(NETLINK_ROUTE).unwrap();
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName("lo".into())];
        let answers = route.ask(RouteNetlinkMessage::GetLink(link), NLM_F_ACK).unwrap();
        assert!(matches!(&answers[..], [RouteNetlinkMessage::NewLink(lo)] if lo.header.index == 1));
        assert!(mtu(&answers).is_some_and(|mtu| mtu > 0));
    }
}
