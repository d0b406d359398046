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
/// How long an address is kept for a machine that was offered it and has not requested it, in seconds.
pub const OFFER_SECONDS: u32 = 60;

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
    fn has(&self, address: Ipv4Addr) -> bool {
        let number = u32::from(address).checked_sub(u32::from(self.first));
        number.is_some_and(|number| number < self.count)
    }

    /// How many addresses are at most kept for machines that have not requested them: whoever is on the segment can ask in the names of
    /// as many machines as he likes.
    fn offers_max(&self) -> usize {
        (self.count as usize / 2).max(1)
    }

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
    leases: BTreeMap<Mac, Kept>,
    /// The address in the pool, by number, from which the next one is looked for: one that was offered stays free for long.
    next: u32,
}

/// An address that is kept for a machine.
#[derive(Clone, Copy, Debug)]
struct Kept {
    address: Ipv4Addr,
    until: Duration,
    /// The machine wants it: it is more than an offer.
    requested: bool,
}

impl Offers {
    /// A server at the address `server`.
    pub fn new(server: Ipv4Addr, pool: Option<Pool>) -> Self {
        Self { server, pool, leases: BTreeMap::new(), next: 0 }
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
        self.leases.retain(|_, kept| kept.until > now);
        let (kind, address) = match question.kind {
            Kind::Inform => return Some(Answer { kind: Kind::Ack, server, lease: None, file }),
            Kind::Discover => (Kind::Offer, self.offer(question.mac, pool, now)?),
            _ => {
                let asked = question.wanted.unwrap_or(question.own);
                if !self.grant(question.mac, asked, pool, now) {
                    return Some(Answer { kind: Kind::Nak, server, lease: None, file: None });
                }
                (Kind::Ack, asked)
            }
        };
        let lease = Lease { address, mask: pool.mask, seconds: LEASE_SECONDS };
        Some(Answer { kind, server, lease: Some(lease), file })
    }

    /// The address that a machine may request: the one that is kept for it, or one that is kept for nobody. The oldest offers give way
    /// to others.
    fn offer(&mut self, mac: Mac, pool: Pool, now: Duration) -> Option<Ipv4Addr> {
        let until = now + Duration::from_secs(OFFER_SECONDS.into());
        if let Some(kept) = self.leases.get_mut(&mac) {
            kept.until = kept.until.max(until);
            return Some(kept.address);
        }
        let offers = self.leases.iter().filter(|(_, kept)| !kept.requested);
        let is_full = self.leases.len() >= pool.count as usize;
        if is_full || offers.clone().count() >= pool.offers_max() {
            let (&oldest, _) = offers.min_by_key(|(_, kept)| kept.until)?;
            self.leases.remove(&oldest);
        }
        let taken: BTreeSet<_> = self.leases.values().map(|kept| kept.address).collect();
        let mut numbers = (self.next..pool.count).chain(0..self.next.min(pool.count));
        let address = |number| Ipv4Addr::from(u32::from(pool.first) + number);
        let number = numbers.find(|number| !taken.contains(&address(*number)))?;
        self.next = number + 1;
        let address = address(number);
        self.leases.insert(mac, Kept { address, until, requested: false });
        Some(address)
    }

    /// Whether a machine may use the address that it asks for: one that is kept for it, or for nobody who has requested it.
    fn grant(&mut self, mac: Mac, asked: Ipv4Addr, pool: Pool, now: Duration) -> bool {
        let until = now + Duration::from_secs(LEASE_SECONDS.into());
        let others =
            self.leases.iter().find(|(other, kept)| **other != mac && kept.address == asked);
        let others = others.map(|(other, kept)| (*other, kept.requested));
        let is_own = self.leases.get(&mac).is_none_or(|kept| kept.address == asked);
        if !pool.has(asked) || !is_own || others.is_some_and(|(_, requested)| requested) {
            return false;
        }
        if let Some((other, _)) = others {
            self.leases.remove(&other);
        }
        self.leases.insert(mac, Kept { address: asked, until, requested: true });
        true
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
        let mut ask = |number| {
            let offered = address(offers.answer(&from(number, Kind::Discover), NOW))?;
            let request = Question { wanted: Some(offered), ..from(number, Kind::Request) };
            address(offers.answer(&request, NOW))
        };
        let (first, second) = (ask(1), ask(2));
        assert_eq!(first, Some([10, 9, 0, 2].into()));
        assert_eq!(second, Some([10, 9, 0, 3].into()));
        assert_eq!(ask(3), None);
        assert_eq!(ask(1), first);
        let later = NOW + Duration::from_secs(u64::from(LEASE_SECONDS) + 1);
        assert_eq!(address(offers.answer(&from(3, Kind::Discover), later)), first);
    }

    fn discover(offers: &mut Offers, number: u8, now: Duration) -> Option<Ipv4Addr> {
        address(offers.answer(&from(number, Kind::Discover), now))
    }

    fn request(offers: &mut Offers, number: u8, wanted: Option<Ipv4Addr>, now: Duration) -> Kind {
        offers.answer(&Question { wanted, ..from(number, Kind::Request) }, now).unwrap().kind
    }

    #[test]
    fn an_offer_that_nobody_requests_is_kept_for_a_minute() {
        let mut offers = Offers::new(SERVER, pool(2));
        let first = discover(&mut offers, 1, NOW);
        let just_before = NOW + Duration::from_secs(59);
        assert_eq!(discover(&mut offers, 1, just_before), first);
        let second = discover(&mut offers, 2, NOW + Duration::from_secs(120));
        assert_ne!(
            second, first,
            "the address that was offered last is the last to be offered again"
        );
        assert_eq!(offers.leases.len(), 1);
        // Whoever has requested keeps it for an hour, and asks for it again meanwhile.
        assert_eq!(request(&mut offers, 2, second, NOW + Duration::from_secs(121)), Kind::Ack);
        assert_eq!(discover(&mut offers, 2, NOW + Duration::from_secs(3700)), second);
        assert_eq!(request(&mut offers, 1, second, NOW + Duration::from_secs(3715)), Kind::Nak);
        assert_eq!(request(&mut offers, 1, second, NOW + Duration::from_secs(3761)), Kind::Ack);
    }

    #[test]
    fn machines_get_addresses_while_somebody_asks_in_the_names_of_many() {
        let mut offers = Offers::new(SERVER, pool(10));
        assert_eq!(discover(&mut offers, 1, NOW), Some([10, 9, 0, 2].into()));
        let mine = discover(&mut offers, 1, NOW);
        for forged in 100..=255 {
            assert!(discover(&mut offers, forged, NOW)
                .is_some_and(|address| pool(10).unwrap().has(address)));
            assert!(offers.leases.len() <= 5);
        }
        // By now it was offered to others many times.
        assert_eq!(request(&mut offers, 1, mine, NOW), Kind::Ack);
        for machine in 2..=10 {
            let offered = discover(&mut offers, machine, NOW);
            assert_eq!(request(&mut offers, machine, offered, NOW), Kind::Ack);
            assert!(discover(&mut offers, 200 + machine, NOW) != offered);
        }
        let used: BTreeSet<_> = offers.leases.values().map(|kept| kept.address).collect();
        assert_eq!((offers.leases.len(), used.len()), (10, 10));
        assert_eq!(discover(&mut offers, 99, NOW), None);
        assert_eq!(discover(&mut offers, 1, NOW), mine);
    }

    #[test]
    fn what_is_refused_or_only_asked_about_takes_no_address() {
        let mut offers = Offers::new(SERVER, pool(9));
        assert_eq!(request(&mut offers, 1, Some([10, 9, 0, 11].into()), NOW), Kind::Nak);
        assert_eq!(request(&mut offers, 1, Some([10, 9, 0, 1].into()), NOW), Kind::Nak);
        assert_eq!(request(&mut offers, 1, None, NOW), Kind::Nak);
        assert_eq!(offers.answer(&from(2, Kind::Inform), NOW).unwrap().kind, Kind::Ack);
        assert!(offers.leases.is_empty());
        // One that has another address has no use for a second one.
        assert_eq!(request(&mut offers, 1, Some([10, 9, 0, 10].into()), NOW), Kind::Ack);
        assert_eq!(request(&mut offers, 1, Some([10, 9, 0, 9].into()), NOW), Kind::Nak);
    }

    proptest::proptest! {
        /// Whatever machines ask for, no two may use the same address, and offers stay within their share.
        #[test]
        fn no_address_is_used_by_two(
            steps in proptest::collection::vec((0..12_u8, 0..6_u8, proptest::option::of(0..8_u8)), 0..200),
        ) {
            let mut offers = Offers::new(SERVER, pool(6));
            let mut used: BTreeMap<Mac, (Ipv4Addr, Duration)> = BTreeMap::new();
            let mut now = NOW;
            for (machine, wait, wanted) in steps {
                now += Duration::from_secs(u64::from(wait).pow(4));
                let mut question = from(machine, Kind::Discover);
                if let Some(number) = wanted {
                    let address = Ipv4Addr::new(10, 9, 0, 1 + number);
                    question = Question { kind: Kind::Request, wanted: Some(address), ..question };
                }
                let answer = offers.answer(&question, now);
                if let Some(Answer { kind: Kind::Ack, lease: Some(lease), .. }) = answer {
                    let until = now + Duration::from_secs(lease.seconds.into());
                    used.insert(question.mac, (lease.address, until));
                }
                used.retain(|_, (_, until)| *until > now);
                let addresses: BTreeSet<_> = used.values().map(|(address, _)| address).collect();
                proptest::prop_assert_eq!(addresses.len(), used.len());
                let only_offered = offers.leases.values().filter(|kept| !kept.requested).count();
                proptest::prop_assert!(only_offered <= 3);
            }
        }
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
