// SPDX-License-Identifier: MIT OR Apache-2.0
//! This node's links: attaches them, keeps their proxies running and looks at how they are.

use std::collections::BTreeMap;
use std::fmt;

use dvk_abi::ioctl::LinkInfo;
use dvs_api::Transport;

use crate::beacon::transport_of;
use crate::carrier::Carrier;
use crate::kernel::Kernel;
use crate::proxies::Proxies;
use crate::rates::{Bytes, Rates};
use crate::reconcile::{Call, Desired, Tables};
use crate::tipc::{Bearers, Network};

/// Milliseconds before a link is attached again where that failed.
const RETRY_MS: u64 = 1_000;

/// The kernel's link to a node.
#[derive(Clone, Copy, Debug)]
pub struct LinkReport {
    /// State and counters.
    pub info: LinkInfo,
    /// What is to carry it.
    pub carrier: Option<Carrier>,
    /// Bytes sent and received per second.
    pub rates: Bytes,
}

impl LinkReport {
    /// What carries it now.
    pub fn transport(&self) -> Option<Transport> {
        transport_of(self.info.transport)
    }
}

/// All links of this node.
pub struct Links {
    proxies: Box<dyn Proxies>,
    bearers: Box<dyn Bearers>,
    reports: BTreeMap<u16, LinkReport>,
    rates: BTreeMap<u16, Rates>,
    /// What could not be attached to a link.
    refused: BTreeMap<u16, Refused>,
    /// Why what was chosen cannot carry a link.
    obstacles: BTreeMap<u16, String>,
}

/// A carrier that could not be attached.
#[derive(Debug)]
struct Refused {
    carrier: Carrier,
    /// Why, for people.
    why: String,
    /// When it is tried again.
    retry_ms: u64,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("reports", &self.reports).finish_non_exhaustive()
    }
}

impl Links {
    /// None yet.
    pub fn new(proxies: Box<dyn Proxies>, bearers: Box<dyn Bearers>) -> Self {
        Self {
            proxies,
            bearers,
            reports: BTreeMap::new(),
            rates: BTreeMap::new(),
            refused: BTreeMap::new(),
            obstacles: BTreeMap::new(),
        }
    }

    /// Makes a control call. One that attaches a link may fail without consequences for others:
    /// that is told as the link's [trouble](Self::trouble), and the call is to be made again later.
    /// Says whether it was made.
    ///
    /// # Errors
    /// For people: why any other call failed.
    pub fn call(
        &mut self,
        now_ms: u64,
        kernel: &dyn Kernel,
        network: Option<&Network>,
        call: &Call,
    ) -> Result<bool, String> {
        let Call::LinkAttach { node, carrier } = call else {
            if *call == Call::End {
                self.bearers.disable();
            }
            return kernel.control(call).map(|()| true).map_err(|error| format!("{call}: {error}"));
        };
        let before = self.refused.get(node).filter(|refused| refused.carrier == *carrier);
        if before.is_some_and(|refused| now_ms < refused.retry_ms) {
            return Ok(false);
        }
        let ready = match (carrier, network) {
            (Carrier::Tipc, Some(network)) => self.bearers.enable(network),
            _ => Ok(()),
        };
        match ready.and_then(|()| kernel.control(call)) {
            Ok(()) => {
                self.refused.remove(node);
                Ok(true)
            }
            Err(error) => {
                let why = format!("{call}: {error}");
                if before.is_none_or(|refused| refused.why != why) {
                    println!("error: {why}");
                }
                let retry_ms = now_ms + RETRY_MS;
                self.refused.insert(*node, Refused { carrier: *carrier, why, retry_ms });
                Ok(false)
            }
        }
    }

    /// Runs the proxies that the tables want, and looks at all links.
    pub fn look(
        &mut self,
        now_ms: u64,
        kernel: &dyn Kernel,
        tables: &Tables,
        network: Option<&Network>,
        desired: Option<&Desired>,
    ) {
        self.obstacles = desired.map(|desired| desired.obstacles().clone()).unwrap_or_default();
        self.refused.retain(|node, refused| {
            let wanted = desired.and_then(|desired| desired.carrier(*node));
            wanted == Some(refused.carrier) && tables.carrier(*node) != wanted
        });
        let mut reports = BTreeMap::new();
        for node in tables.up() {
            // One that fails is shown as no link, and holds the node's readiness back.
            if let Ok(info) = kernel.link(node) {
                let rates = self.rates.entry(node).or_default();
                let rates = rates.record(now_ms, [info.bytes_sent, info.bytes_received]);
                let carrier = tables.carrier(node);
                reports.insert(node, LinkReport { info, carrier, rates });
            }
        }
        self.rates.retain(|node, _| reports.contains_key(node));
        self.reports = reports;
        let carried = |node| self.reports.get(&node).and_then(LinkReport::transport);
        self.proxies.run(now_ms, &tables.proxied(), &carried);
        self.bearers.look(now_ms, network);
    }

    /// How each link is, by the node at its other end.
    pub fn reports(&self) -> &BTreeMap<u16, LinkReport> {
        &self.reports
    }

    /// For people: why what was chosen does not carry the link to a node, if something is in its
    /// way.
    pub fn trouble(&self, node: u16) -> Option<String> {
        let refused = self.refused.get(&node).map(|refused| refused.why.clone());
        let obstacle = self.obstacles.get(&node).cloned();
        obstacle.or(refused).or_else(|| self.proxies.trouble(node))
    }
}
