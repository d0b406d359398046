// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps the messages between nodes secret and genuine on the segment: MACsec (IEEE 802.1AE) on every
//! cluster interface, under keys that every node derives from the cluster token.
//!
//! Each node sends with a key of its own and tells the others the how manieth that is; whoever has
//! the cluster token can derive it ([`key`]). When keys change is decided in [`schedule`], which keys of
//! others to hold in [`senders`], and what follows for the kernel's devices in [`device`]; all of them
//! are pure. [`macsec`] carries that out.
//!
//! A peer is routed only when both ends hold the key that the other sends with. So nothing leaves in
//! the clear: a device without a key drops what it is to send.

pub mod device;
pub mod key;
pub mod macsec;
pub mod schedule;
pub mod senders;
pub mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use dvs_config::Mac;
use dvs_secret::{ClusterSecret, Key};

use crate::carrier::Route;
use crate::membership::{Liveness, MemberView, View};
use crate::settings::Interface;
use device::{Call, Told, Wanted};
use key::association;
pub use schedule::Announced;
use schedule::{Change, Schedule, Situation};
use senders::{Heard, Senders};
use tally::Tally;
pub use tally::{DeviceCounts, Totals};

/// What is used, for people.
pub const CIPHER: &str = "GCM-AES-256";
/// Milliseconds before something that failed is tried again.
const RETRY_MS: u64 = 1_000;
/// Milliseconds between two looks at what the kernel counts, and at how long frames may be.
const COUNT_MS: u64 = 1_000;

/// A MACsec device as its maker names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Index of the device.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// The kernel's MACsec devices; tests put their own in its place. Errors are for people.
pub trait Devices: Send {
    /// Makes the device on a cluster interface, after removing one that an earlier run has left.
    ///
    /// # Errors
    /// What failed and why.
    fn make(&mut self, lower: &Interface) -> Result<Made, String>;

    /// Tells a device something. `derive` gives the key of a name.
    ///
    /// # Errors
    /// What failed and why.
    fn tell(
        &mut self,
        device: u32,
        call: &Call,
        derive: &dyn Fn(&key::KeyName) -> Key,
    ) -> Result<(), String>;

    /// Makes a device's frames as long as its interface takes them now: their lengths may change, and the
    /// kernel follows to shorter ones only.
    ///
    /// # Errors
    /// What failed and why.
    fn fit(&mut self, made: &Made, lower: &Interface) -> Result<(), String>;

    /// What was counted, by devices. One that is missing is not there any more.
    ///
    /// # Errors
    /// What failed and why.
    fn counts(&mut self) -> Result<BTreeMap<u32, DeviceCounts>, String>;
}

/// Says from another thread that the key is to be changed.
#[derive(Debug, Default)]
pub struct Wish(AtomicBool);

impl Wish {
    /// Wishes for another key.
    pub fn make(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// One cluster interface.
#[derive(Debug)]
struct Port {
    lower: Interface,
    device: Option<Device>,
    /// A device was made here before: how far its key's packets were counted is not known.
    spent: bool,
    /// What failed last, for people; empty if nothing did.
    trouble: String,
    /// When that is tried again.
    retry_ms: u64,
    /// When the length of frames is looked at again.
    fit_ms: u64,
}

#[derive(Debug)]
struct Device {
    made: Made,
    told: Told,
    counts: DeviceCounts,
}

/// The protection of one node's traffic.
pub struct Segment {
    secret: ClusterSecret,
    instance: u64,
    devices: Box<dyn Devices>,
    schedule: Schedule,
    senders: Senders,
    ports: BTreeMap<u32, Port>,
    tally: Tally,
    wish: Arc<Wish>,
    count_ms: u64,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("schedule", &self.schedule).finish_non_exhaustive()
    }
}

impl Segment {
    /// For the run `instance` of `dvsd`. Nothing is done yet.
    pub fn new(
        now_ms: u64,
        secret: ClusterSecret,
        instance: u64,
        interfaces: &[Interface],
        devices: Box<dyn Devices>,
    ) -> Self {
        let port = |lower: &Interface| {
            let lower = lower.clone();
            let (device, trouble) = (None, String::new());
            (lower.index, Port { lower, device, spent: false, trouble, retry_ms: 0, fit_ms: 0 })
        };
        Self {
            secret,
            instance,
            devices,
            schedule: Schedule::new(now_ms),
            senders: Senders::default(),
            ports: interfaces.iter().map(port).collect(),
            tally: Tally::default(),
            wish: Arc::default(),
            count_ms: 0,
        }
    }

    /// Brings the devices up to date with the membership; gives back the lines to tell.
    pub fn look(&mut self, now_ms: u64, view: &View) -> Vec<String> {
        let mut lines = Vec::new();
        let members: BTreeSet<_> = view.members.iter().map(|member| member.mac).collect();
        view.members.iter().filter_map(heard).for_each(|heard| self.senders.hear(now_ms, &heard));
        if self.senders.keep(&members) || self.wish.take() {
            self.schedule.rotate();
        }
        self.program(now_ms, &mut lines);
        if now_ms >= self.count_ms {
            self.count_ms = now_ms + COUNT_MS;
            self.count(now_ms, &mut lines);
        }
        if let Some(change) = self.schedule.step(now_ms, self.situation(view)) {
            let Announced { generation, .. } = self.schedule.announced();
            match change {
                Change::Announced => {}
                Change::Switched { hastily: false } => {
                    lines.push(format!("frames are sent under key {generation} from now on"));
                }
                Change::Switched { hastily: true } => lines.push(format!(
                    "frames are sent under key {generation} from now on, though some node has not \
                     said that it holds it"
                )),
            }
            self.program(now_ms, &mut lines);
        }
        lines
    }

    fn situation(&self, view: &View) -> Situation {
        let announced = self.schedule.announced();
        let live = |member: &&MemberView| !member.local && member.liveness == Liveness::Alive;
        let newest = association(announced.generation);
        let holds =
            |member: &MemberView| member.said.as_ref().and_then(|said| said.holds) == Some(newest);
        let devices = || self.ports.values().filter_map(|port| port.device.as_ref());
        let sending = association(announced.sending());
        let packets = |device: &Device| device.counts.next_packet.get(&sending).copied();
        Situation {
            packets: devices().filter_map(packets).max().unwrap_or_default(),
            // An interface without a device sends nothing.
            installed: devices().all(|device| device.told.has_own(announced.generation)),
            confirmed: view.members.iter().filter(live).all(holds),
        }
    }

    /// One interface that does not work keeps no other from working.
    fn program(&mut self, now_ms: u64, lines: &mut Vec<String>) {
        for index in self.ports.keys().copied().collect::<Vec<_>>() {
            let waits = |port: &Port| !port.trouble.is_empty() && now_ms < port.retry_ms;
            if self.ports.get(&index).is_some_and(waits) {
                continue;
            }
            let made = self.make(now_ms, index).and_then(|()| self.tell(now_ms, index));
            let failed = made.and_then(|()| self.fit(now_ms, index)).err().unwrap_or_default();
            let Some(port) = self.ports.get_mut(&index) else { continue };
            if port.trouble != failed && !failed.is_empty() {
                lines.push(format!("error: {failed}"));
            }
            port.trouble = failed;
            port.retry_ms = now_ms + RETRY_MS;
        }
    }

    fn make(&mut self, now_ms: u64, index: u32) -> Result<(), String> {
        let Some(port) = self.ports.get_mut(&index) else { return Ok(()) };
        if port.device.is_some() {
            return Ok(());
        }
        let made = self.devices.make(&port.lower)?;
        if std::mem::replace(&mut port.spent, true) {
            self.schedule.abandon(now_ms);
        }
        let (told, counts) = (Told::default(), DeviceCounts::default());
        port.device = Some(Device { made, told, counts });
        Ok(())
    }

    fn tell(&mut self, now_ms: u64, index: u32) -> Result<(), String> {
        let Self { secret, instance, devices, schedule, senders, ports, .. } = self;
        let Some(port) = ports.get_mut(&index) else { return Ok(()) };
        let Some(device) = &mut port.device else { return Ok(()) };
        let senders = senders.wanted(now_ms, index);
        let wanted = Wanted::new(schedule.announced(), port.lower.mac, *instance, senders);
        for call in device.told.plan(&wanted) {
            let told = devices.tell(device.made.index, &call, &|name| name.derive(secret));
            told.map_err(|error| format!("{}: {call}: {error}", device.made.name))?;
            device.told.done(&call);
        }
        Ok(())
    }

    fn fit(&mut self, now_ms: u64, index: u32) -> Result<(), String> {
        let Some(port) = self.ports.get_mut(&index) else { return Ok(()) };
        let Some(device) = port.device.as_ref().filter(|_| now_ms >= port.fit_ms) else {
            return Ok(());
        };
        port.fit_ms = now_ms + COUNT_MS;
        self.devices.fit(&device.made, &port.lower)
    }

    fn count(&mut self, now_ms: u64, lines: &mut Vec<String>) {
        // While the kernel cannot be asked, making devices fails too, and says why.
        let Ok(mut counts) = self.devices.counts() else { return };
        for (index, port) in &mut self.ports {
            let Some(device) = &mut port.device else { continue };
            match counts.remove(&device.made.index) {
                Some(counts) => {
                    self.tally.count(*index, &counts);
                    device.counts = counts;
                }
                None => {
                    let Made { name, .. } = &device.made;
                    lines.push(format!("warning: {name} is gone; it is made anew"));
                    port.device = None;
                }
            }
        }
        let ports = &self.ports;
        let name = |index| ports.get(&index).map_or_else(String::new, |it| it.lower.name.clone());
        lines.extend(self.tally.lines(now_ms, name));
    }

    /// What to tell the others of this node's keys.
    pub fn announced(&self) -> Announced {
        self.schedule.announced()
    }

    /// What to say of the keys of others: the association numbers of the newest ones that are held, by
    /// machine and run.
    pub fn held(&self, view: &View) -> BTreeMap<(Mac, u64), u8> {
        let newest = |member: &MemberView| {
            let path = member.said.as_ref()?.path?;
            let name = self.senders.newest(member.mac, member.instance, path.mac)?;
            let device = self.ports.get(&path.interface)?.device.as_ref()?;
            let held = device.told.holds(&name);
            held.then(|| ((member.mac, member.instance), name.association()))
        };
        view.members.iter().filter_map(newest).collect()
    }

    /// The way over MACsec to a member that is reached by `plain`; `None` as long as one of the two ends
    /// could not understand the other.
    pub fn route(&self, member: &MemberView, plain: Route) -> Option<Route> {
        let device = self.ports.get(&plain.interface)?.device.as_ref()?;
        let name = self.senders.newest(member.mac, member.instance, plain.mac)?;
        let speaks = device.told.understands(plain.mac) && device.told.sends();
        let answers = self.senders.answers(member.mac, name.instance);
        (speaks && answers).then_some(Route { interface: device.made.index, ..plain })
    }

    /// The name of a MACsec device, and the index of the interface it is on.
    pub fn device(&self, index: u32) -> Option<(&str, u32)> {
        self.ports.iter().find_map(|(lower, port)| {
            let made = &port.device.as_ref()?.made;
            (made.index == index).then_some((made.name.as_str(), *lower))
        })
    }

    /// The name of the MACsec device on an interface, once there is one.
    pub fn over(&self, lower: u32) -> Option<&str> {
        Some(self.ports.get(&lower)?.device.as_ref()?.made.name.as_str())
    }

    /// The names of all MACsec devices that there are.
    pub fn devices(&self) -> Vec<String> {
        let made = self.ports.values().filter_map(|port| port.device.as_ref());
        made.map(|device| device.made.name.clone()).collect()
    }

    /// What the kernel does not do, for people; empty if it does all.
    pub fn trouble(&self) -> &str {
        let mut troubles = self.ports.values().map(|port| port.trouble.as_str());
        troubles.find(|trouble| !trouble.is_empty()).unwrap_or_default()
    }

    /// How often frames that claim to be from an interface of another node's were accepted or dropped.
    pub fn of_sender(&self, interface: u32, mac: Mac) -> Totals {
        self.tally.of_sender(interface, mac)
    }

    /// Where another key can be wished for.
    pub fn wish(&self) -> Arc<Wish> {
        Arc::clone(&self.wish)
    }

    /// As the API tells it.
    pub fn report(&self, now_ms: u64) -> dvs_api::Segment {
        let announced = self.announced();
        let interface = |(index, port): (&u32, &Port)| {
            let Totals { accepted, forged, replayed, foreign } = self.tally.total(*index);
            dvs_api::SegmentInterface {
                name: port.lower.name.clone(),
                device: port.device.as_ref().map(|device| device.made.name.clone()),
                sent: port.device.as_ref().map_or(0, |device| device.counts.sent),
                accepted,
                forged,
                replayed,
                foreign,
            }
        };
        dvs_api::Segment {
            encrypted: true,
            cipher: Some(CIPHER.into()),
            key: announced.sending(),
            next: announced.pending.then_some(announced.generation),
            age_s: self.schedule.age_ms(now_ms) / 1000,
            trouble: Some(self.trouble().to_owned()).filter(|text| !text.is_empty()),
            interfaces: self.ports.iter().map(interface).collect(),
        }
    }
}

/// What a member says of its keys, if it is heard.
fn heard(member: &MemberView) -> Option<Heard> {
    let said = member.said.as_ref().filter(|_| !member.local)?;
    let path = said.path?;
    Some(Heard {
        identity: member.mac,
        instance: member.instance,
        interface: path.interface,
        mac: path.mac,
        announced: said.keys?,
        holds: said.holds,
    })
}

#[cfg(test)]
mod tests;
