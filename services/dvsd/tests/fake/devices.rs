// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pretended MACsec devices that refuse what the real ones refuse, and one thing more: a key that has
//! been sent with before.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use dvs_config::Mac;
use dvsd::segment::device::Call;
use dvsd::segment::key::{association, KeyName};
use dvsd::segment::{DeviceCounts, Devices, Made};
use dvsd::settings::Interface;

type Key = [u8; 32];

/// Added to the index of an interface for that of the device on it.
pub(crate) const SECURED: u32 = 100;

#[derive(Default)]
struct Device {
    index: u32,
    own: BTreeMap<u8, Key>,
    sends: Option<u8>,
    senders: BTreeMap<Mac, BTreeMap<u8, Key>>,
    forged: u64,
}

/// All devices by the address of the interface that they are on.
#[derive(Default)]
pub(crate) struct Secured {
    devices: BTreeMap<Mac, Device>,
    spent: HashSet<Key>,
}

#[allow(dead_code, reason = "not every test needs everything")]
impl Secured {
    /// Whether frames between two interfaces are understood at both ends.
    pub(crate) fn understand_each_other(&self, one: Mac, other: Mac) -> bool {
        let understood = |from: &Mac, to: &Mac| {
            let sent =
                self.devices.get(from).and_then(|it| Some((it.sends?, it.own.get(&it.sends?)?)));
            let keys = self.devices.get(to).and_then(|it| it.senders.get(from));
            sent.is_some_and(|(number, key)| keys.and_then(|keys| keys.get(&number)) == Some(key))
        };
        understood(&one, &other) && understood(&other, &one)
    }

    /// Somebody sends forgeries of a sender's frames.
    pub(crate) fn forge(&mut self, to: Mac, count: u64) {
        self.devices.get_mut(&to).unwrap().forged += count;
    }

    /// Somebody removes a device.
    pub(crate) fn remove(&mut self, mac: Mac) {
        self.devices.remove(&mac);
    }
}

/// The devices of one machine.
pub(crate) struct FakeDevices {
    mac: Mac,
    secured: Arc<Mutex<Secured>>,
}

impl FakeDevices {
    pub(crate) fn new(mac: Mac, secured: Arc<Mutex<Secured>>) -> Self {
        Self { mac, secured }
    }

    fn secured(&self) -> MutexGuard<'_, Secured> {
        self.secured.lock().unwrap()
    }
}

impl Devices for FakeDevices {
    fn make(&mut self, lower: &Interface) -> Result<Made, String> {
        let index = SECURED + lower.index;
        self.secured().devices.insert(lower.mac, Device { index, ..Device::default() });
        Ok(Made { index, name: format!("sec-{}", lower.name) })
    }

    fn tell(
        &mut self,
        index: u32,
        call: &Call,
        derive: &dyn Fn(&KeyName) -> dvs_secret::Key,
    ) -> Result<(), String> {
        let mut secured = self.secured();
        let Secured { devices, spent } = &mut *secured;
        let device = devices.get_mut(&self.mac).filter(|it| it.index == index).ok_or("ENODEV")?;
        let busy = |taken: bool| if taken { Err("EBUSY".to_owned()) } else { Ok(()) };
        match *call {
            Call::AddOwnKey(name) => {
                let key = *derive(&name);
                assert!(!spent.contains(&key), "{name:?} was sent with before");
                busy(device.own.insert(association(name.generation), key).is_some())
            }
            Call::SendWith(number) => {
                spent.insert(*device.own.get(&number).ok_or("it has no such key")?);
                device.sends = Some(number);
                Ok(())
            }
            Call::RemoveOwnKey(number) => {
                device.own.remove(&number).map(drop).ok_or("ENODEV".into())
            }
            Call::AddSender(mac) => busy(device.senders.insert(mac, BTreeMap::new()).is_some()),
            Call::RemoveSender(mac) => device.senders.remove(&mac).map(drop).ok_or("ENODEV".into()),
            Call::AddKey(name) => {
                let keys = device.senders.get_mut(&name.mac).ok_or("ENODEV")?;
                busy(keys.insert(name.association(), *derive(&name)).is_some())
            }
            Call::RemoveKey(mac, number) => {
                let keys = device.senders.get_mut(&mac).ok_or("ENODEV")?;
                keys.remove(&number).map(drop).ok_or("ENODEV".into())
            }
        }
    }

    fn fit(&mut self, _: &Made, _: &Interface) -> Result<(), String> {
        Ok(())
    }

    fn counts(&mut self) -> Result<BTreeMap<u32, DeviceCounts>, String> {
        let secured = self.secured();
        let counts = |device: &Device| {
            let malformed = device.forged;
            (device.index, DeviceCounts { malformed, ..DeviceCounts::default() })
        };
        Ok(secured.devices.get(&self.mac).map(counts).into_iter().collect())
    }
}
