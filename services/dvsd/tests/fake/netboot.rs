// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pretended machines that boot others: each has one interface, `eth0`, and says what it would serve.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use dvs_config::Mac;
use dvs_image::uki::{self, Section};
use dvs_netboot::files::{Files, INITRAMFS};
use dvs_netboot::server::{Event, Report, Settings};
use dvsd::netboot::{Host, Interface, Service};

/// What machines serve, and what they have.
#[derive(Default)]
pub(crate) struct Pretended {
    /// By the number of the machine.
    served: Mutex<BTreeMap<u8, Served>>,
    /// Machines that find the image that they run.
    pub(crate) with_image: Mutex<BTreeSet<u8>>,
    /// Machines whose interface was given an address.
    pub(crate) given: Mutex<BTreeSet<u8>>,
}

#[derive(Clone)]
struct Served {
    settings: Settings,
    files: Files,
    report: Arc<Report>,
    failure: Option<String>,
}

#[allow(dead_code, reason = "not every test needs everything")]
impl Pretended {
    /// What a machine serves, if it does.
    pub(crate) fn of(&self, number: u8) -> Option<(Settings, Files)> {
        let served = self.served.lock().unwrap();
        served.get(&number).map(|it| (it.settings.clone(), it.files.clone()))
    }

    /// Has a machine that is served by `number` boot.
    pub(crate) fn boot(&self, number: u8, address: Ipv4Addr) {
        let report = Arc::clone(&self.served.lock().unwrap()[&number].report);
        let client = SocketAddr::from((address, 2000));
        report(Event::Sent { client, file: "linux".into() });
        report(Event::Sent { client, file: INITRAMFS.into() });
    }

    /// Has what a machine serves fail.
    pub(crate) fn fail(&self, number: u8, why: &str) {
        self.served.lock().unwrap().get_mut(&number).unwrap().failure = Some(why.to_owned());
    }
}

/// An image of a release, which is small.
pub(crate) fn image(release: &str) -> Vec<u8> {
    let osrel = format!("ID=dvs\nPRETTY_NAME=\"dvs {release}\"\n");
    let sections = [
        Section { name: ".osrel", content: osrel.as_bytes() },
        Section { name: ".cmdline", content: b"quiet" },
        Section { name: ".initrd", content: &[8; 3000] },
        Section { name: ".linux", content: &[7; 5000] },
    ];
    uki::build(&uki::sample_stub_for(sections.len()), &sections).unwrap()
}

pub(crate) struct FakeHost {
    pub(crate) number: u8,
    pub(crate) pretended: Arc<Pretended>,
}

impl Host for FakeHost {
    fn prepare(&self, wanted: &dvs_config::Netboot) -> Result<Interface, String> {
        let interface = wanted.interface.to_string();
        if interface != "eth0" {
            return Err(format!("this machine has no interface `{interface}`; it has eth0"));
        }
        let own = wanted.address.ok_or("eth0 has no IPv4 address")?;
        self.pretended.given.lock().unwrap().insert(self.number);
        Ok(Interface { name: interface, index: 2, own, given: true })
    }

    fn withdraw(&self, _: &Interface) -> Result<(), String> {
        self.pretended.given.lock().unwrap().remove(&self.number);
        Ok(())
    }

    fn copy_image(&self, to: &mut File) -> Result<String, String> {
        if !self.pretended.with_image.lock().unwrap().contains(&self.number) {
            return Err("this node does not find the image that it runs".into());
        }
        to.write_all(&image("1.0.0+own")).unwrap();
        Ok("/dev/sr0".into())
    }

    fn ipxe(&self) -> Option<Vec<u8>> {
        Some(vec![9])
    }

    fn serve(
        &self,
        settings: Settings,
        files: Files,
        report: Arc<Report>,
    ) -> Result<Box<dyn Service>, String> {
        let served = Served { settings, files, report, failure: None };
        let before = self.pretended.served.lock().unwrap().insert(self.number, served);
        assert!(before.is_none(), "the one before was not ended");
        Ok(Box::new(FakeService { number: self.number, pretended: Arc::clone(&self.pretended) }))
    }

    fn neighbour(&self, address: Ipv4Addr) -> Option<Mac> {
        let [.., last] = address.octets();
        Some(Mac([2, 0, 0, 0, 0, last]))
    }
}

struct FakeService {
    number: u8,
    pretended: Arc<Pretended>,
}

impl Service for FakeService {
    fn failure(&self) -> Option<String> {
        self.pretended.served.lock().unwrap().get(&self.number)?.failure.clone()
    }
}

impl Drop for FakeService {
    fn drop(&mut self) {
        self.pretended.served.lock().unwrap().remove(&self.number);
    }
}
