// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine that boots over the network is offered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use dvs_config::{AddressRange, InterfaceAddress, Mac};

use crate::dhcp::{Answer, BootFile, Kind, Lease, Question};
use crate::files::{IPXE_BIOS, SCRIPT, UNIFIED};

/// How long an address may be used without being asked for again, in seconds.
pub const LEASE_SECONDS: u32 = 3600;

/// Addresses that may be given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The first one.
    pub first: Ipv4Addr,
    /// How many there are from there.
    pub count: u32,
    /// The mask of the network.
    pub mask: Ipv4Addr,
}

impl Pool {
    /// The addresses of a range, given away by the one that has `own`.
    ///
    /// # Errors
    /// For people: they are outside of its network, or its own is among them.
    pub fn of(range: AddressRange, own: InterfaceAddress) -> Result<Self, String> {
        range.check_beside(own).map_err(|why| format!("giving addresses away: {why}"))?;
        Ok(Self { first: range.first(), count: range.count(), mask: own.netmask() })
    }
}

/// Answers questions of DHCP.
#[derive(Clone, Debug)]
pub struct Offers {
    server: Ipv4Addr,
    /// `None` beside another DHCP server, which has the addresses.
    pool: Option<Pool>,
    leases: BTreeMap<Mac, (Ipv4Addr, Duration)>,
}

impl Offers {
    /// A server at the address `server`.
    pub fn new(server: Ipv4Addr, pool: Option<Pool>) -> Self {
        Self { server, pool, leases: BTreeMap::new() }
    }

    /// What `question` is answered at `now`, a time that only grows; `None` when it is another server's affair, or there is no address
    /// left.
    ///
    /// Machines that do not boot over the network are left to others: nobody gets an address from here and then misses what a site's
    /// own server would have said.
    pub fn answer(&mut self, question: &Question, now: Duration) -> Option<Answer> {
        if !question.boots && !question.ipxe {
            return None;
        }
        let file = Some(BootFile { server: self.server, name: file(question)?.to_owned() });
        let server = self.server;
        let Some(pool) = self.pool else {
            // To discover, beside the other server's offer; a request comes here only on the port of boot servers.
            let kind = match question.kind {
                Kind::Discover => Kind::Offer,
                _ => Kind::Ack,
            };
            return Some(Answer { kind, server, lease: None, file });
        };
        if question.server.is_some_and(|chosen| chosen != server) {
            return None;
        }
        let address = self.lease(question.mac, pool, now)?;
        let kind = match question.kind {
            Kind::Discover => Kind::Offer,
            Kind::Inform => return Some(Answer { kind: Kind::Ack, server, lease: None, file }),
            _ => {
                let asked = question.wanted.unwrap_or(question.own);
                if asked != address {
                    return Some(Answer { kind: Kind::Nak, server, lease: None, file: None });
                }
                Kind::Ack
            }
        };
        let lease = Lease { address, mask: pool.mask, seconds: LEASE_SECONDS };
        Some(Answer { kind, server, lease: Some(lease), file })
    }

    /// The address of a machine: the one that it had, or one that nobody has.
    fn lease(&mut self, mac: Mac, pool: Pool, now: Duration) -> Option<Ipv4Addr> {
        let until = now + Duration::from_secs(LEASE_SECONDS.into());
        if let Some((address, end)) = self.leases.get_mut(&mac) {
            *end = until;
            return Some(*address);
        }
        self.leases.retain(|_, (_, end)| *end > now);
        let taken: BTreeSet<_> = self.leases.values().map(|(address, _)| *address).collect();
        let all = (0..pool.count).map(|n| Ipv4Addr::from(u32::from(pool.first) + n));
        let address = { all }.find(|address| !taken.contains(address))?;
        self.leases.insert(mac, (address, until));
        Some(address)
    }
}

/// What a machine begins with; `None` when its processor is not ours.
fn file(question: &Question) -> Option<&'static str> {
    match (question.architecture, question.ipxe) {
        (Some(0 | 7 | 9) | None, true) => Some(SCRIPT),
        (Some(7 | 9), false) => Some(UNIFIED),
        (Some(0) | None, false) => Some(IPXE_BIOS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::tests::question;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
    const NOW: Duration = Duration::from_secs(100);

    fn pool(count: u32) -> Option<Pool> {
        let mask = Ipv4Addr::new(255, 255, 0, 0);
        Some(Pool { first: Ipv4Addr::new(10, 9, 0, 2), count, mask })
    }

    fn from(number: u8, kind: Kind) -> Question {
        Question { mac: Mac([2, 0, 0, 0, 0, number]), ..question(kind) }
    }

    fn address(answer: Option<Answer>) -> Option<Ipv4Addr> {
        answer.and_then(|answer| answer.lease).map(|lease| lease.address)
    }

    #[test]
    fn each_machine_gets_an_address_of_its_own_and_keeps_it() {
        let mut offers = Offers::new(SERVER, pool(2));
        let mut ask = |number| address(offers.answer(&from(number, Kind::Discover), NOW));
        let (first, second) = (ask(1), ask(2));
        assert_eq!(first, Some([10, 9, 0, 2].into()));
        assert_eq!(second, Some([10, 9, 0, 3].into()));
        assert_eq!(ask(3), None);
        assert_eq!(ask(1), first);
        let later = NOW + Duration::from_secs(u64::from(LEASE_SECONDS) + 1);
        assert_eq!(address(offers.answer(&from(3, Kind::Discover), later)), first);
    }

    #[test]
    fn only_the_own_address_is_confirmed_and_only_of_this_server() {
        let mut offers = Offers::new(SERVER, pool(9));
        let own = address(offers.answer(&from(1, Kind::Discover), NOW));
        let request = Question { wanted: own, server: Some(SERVER), ..from(1, Kind::Request) };
        let answer = offers.answer(&request, NOW).unwrap();
        assert_eq!((answer.kind, answer.lease.map(|lease| lease.address)), (Kind::Ack, own));
        let other = Question { wanted: Some([10, 9, 0, 200].into()), ..request.clone() };
        let answer = offers.answer(&other, NOW).unwrap();
        assert_eq!((answer.kind, answer.lease, answer.file), (Kind::Nak, None, None));
        let elsewhere = Question { server: Some([10, 9, 0, 77].into()), ..request };
        assert_eq!(offers.answer(&elsewhere, NOW), None);
    }

    #[test]
    fn beside_another_server_no_address_is_given() {
        let mut offers = Offers::new(SERVER, None);
        let answer = offers.answer(&from(1, Kind::Discover), NOW).unwrap();
        assert_eq!((answer.kind, answer.lease), (Kind::Offer, None));
        assert_eq!(answer.file.unwrap().server, SERVER);
        let answer = offers.answer(&from(1, Kind::Request), NOW).unwrap();
        assert_eq!((answer.kind, answer.lease), (Kind::Ack, None));
    }

    #[test]
    fn machines_that_do_not_boot_or_are_of_another_kind_are_left_to_others() {
        for pool in [None, pool(9)] {
            let mut offers = Offers::new(SERVER, pool);
            let idle = Question { boots: false, ..from(1, Kind::Discover) };
            assert_eq!(offers.answer(&idle, NOW), None);
            let arm = Question { architecture: Some(11), ..from(1, Kind::Discover) };
            assert_eq!(offers.answer(&arm, NOW), None);
        }
    }

    #[test]
    fn firmware_gets_what_it_can_run() {
        let begins =
            |architecture, ipxe| file(&Question { architecture, ipxe, ..from(1, Kind::Discover) });
        assert_eq!(begins(Some(0), false), Some(IPXE_BIOS));
        assert_eq!(begins(Some(0), true), Some(SCRIPT));
        assert_eq!(begins(Some(7), false), Some(UNIFIED));
        assert_eq!(begins(Some(9), true), Some(SCRIPT));
    }
}
