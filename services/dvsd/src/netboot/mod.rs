// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots other machines over the network, as the machine configuration says: with the image that this node runs itself.
//!
//! The configuration is what is wanted, and is looked at again and again; what is wanted and does not work is tried again. So a node serves
//! from its start, before there is a cluster, and goes on whatever becomes of that.

pub mod api;
mod host;
mod image;

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dvs_api::{NetbootImage, NetbootMachine, NetbootRequest, NetbootService, NetbootStatus};
use dvs_config::Netboot as Wanted;
use dvs_netboot::files::{INITRAMFS, IPXE_BIOS, UNIFIED};
use dvs_netboot::offer::Pool;
use dvs_netboot::server::{Event, Settings};
use dvs_state::events::Sight;
use tokio::sync::{watch, Notify};
use tokio::time::timeout;

use crate::agreement::Journal;
use crate::containers::blocking;
use crate::rejects::Throttle;
use crate::release;
use crate::sightings::Sighting;
use crate::trial;
pub use host::{Host, Interface, Service, ThisMachine};
use image::{Shelf, COPIED, INSTALLED};

/// How often the configuration is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How soon something is tried again that failed.
const RETRY: Duration = Duration::from_secs(5);
/// How long is waited for what somebody asks for: a CD may be slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many machines are remembered.
const MACHINES_MAX: usize = 32;

/// Boots other machines.
#[derive(Clone, Debug)]
pub struct Netboot(Arc<Shared>);

struct Shared {
    /// Where the configuration is, and what is kept.
    directory: PathBuf,
    host: Arc<dyn Host>,
    journal: Journal,
    work: Mutex<Work>,
    told: watch::Sender<Told>,
    booted: Mutex<Booted>,
    /// Rung when the configuration has changed.
    bell: Notify,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// What is being done.
#[derive(Default)]
struct Work {
    /// The text of the configuration at the last look.
    seen: String,
    /// For what the last attempt was.
    heeded: Option<Wanted>,
    running: Option<Running>,
    retry: Option<Instant>,
    /// Begin anew even if nothing has changed.
    anew: bool,
}

struct Running {
    service: Box<dyn Service>,
    interface: Interface,
}

/// What has come of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    /// How often something was begun or ended.
    attempts: u64,
    wanted: Option<Wanted>,
    serves: Option<NetbootService>,
    trouble: Option<String>,
}

/// The machines that were booted.
#[derive(Debug, Default)]
struct Booted {
    count: u64,
    /// The newest first.
    last: VecDeque<(Instant, NetbootMachine)>,
    lines: Throttle<String>,
    events: Throttle<String>,
}

impl Netboot {
    /// For the machine `host`; `directory` is where PID 1 and the daemon leave each other files. What should be known of by all nodes goes
    /// to `journal`.
    pub fn new(directory: &Path, host: Arc<dyn Host>, journal: Journal) -> Self {
        Self(Arc::new(Shared {
            directory: directory.to_owned(),
            host,
            journal,
            work: Mutex::default(),
            told: watch::Sender::default(),
            booted: Mutex::default(),
            bell: Notify::new(),
        }))
    }

    /// Does what the configuration says, until it is dropped.
    pub async fn run(self) {
        loop {
            let shared = Arc::clone(&self.0);
            blocking(move || shared.look(Instant::now())).await;
            // Either will do.
            let _ = timeout(LOOK, self.0.bell.notified()).await;
        }
    }

    /// How it is, as the API tells it.
    fn status(&self, node: Option<u32>) -> NetbootStatus {
        let Told { wanted, serves, trouble, .. } = self.0.told.borrow().clone();
        let wanted = wanted.map(|wanted| NetbootRequest {
            interface: wanted.interface.to_string(),
            address: wanted.address.map(|address| address.to_string()),
            addresses: wanted.addresses.map(|addresses| addresses.to_string()),
            append: wanted.append.map(|append| append.masked()),
        });
        let booted = self.0.booted.lock().unwrap_or_else(PoisonError::into_inner);
        let machines = booted.last.iter().map(|(at, machine)| {
            let ago_s = at.elapsed().as_secs();
            NetbootMachine { ago_s, ..machine.clone() }
        });
        let (booted, machines) = (booted.count, machines.collect());
        NetbootStatus { node, wanted, serves, trouble, booted, machines }
    }

    /// The image that this node runs, and which release it is.
    ///
    /// # Errors
    /// For people: why it is not to be had.
    pub fn running_image(&self) -> Result<(Vec<u8>, String), String> {
        self.0.running_image()
    }

    fn shelf(&self) -> Shelf {
        Shelf::new(&self.0.directory)
    }

    /// Has the configuration say what is wanted, and waits until that is done, or has failed; what failed is taken back.
    async fn want(&self, wanted: Option<Wanted>) -> Result<(), Refused> {
        let shared = Arc::clone(&self.0);
        let mut told = self.0.told.subscribe();
        let asked = wanted.clone();
        let begun = blocking(move || {
            let mut work = shared.work.lock().unwrap_or_else(PoisonError::into_inner);
            let before = trial::read(&shared.directory).map_err(Refused::Broken)?.1.netboot;
            trial::set_netboot(&shared.directory, asked).map_err(Refused::Conflict)?;
            work.anew = true;
            let attempts = shared.told.borrow().attempts;
            Ok::<_, Refused>((before, attempts))
        });
        let (before, attempts) = begun.await?;
        self.0.bell.notify_one();
        let done = told.wait_for(|told| told.attempts > attempts && told.wanted == wanted);
        let done = timeout(PATIENCE, done).await.map_err(|_| {
            Refused::Failed("it is not done yet; `dvsctl pxe status` tells what comes of it".into())
        })?;
        // The sender is in what is asked here.
        let trouble = done.map_err(|error| Refused::Broken(error.to_string()))?.trouble.clone();
        let Some(why) = trouble else { return Ok(()) };
        let shared = Arc::clone(&self.0);
        let back = blocking(move || trial::set_netboot(&shared.directory, before)).await;
        self.0.bell.notify_one();
        Err(match back {
            Ok(()) => Refused::Failed(why),
            Err(error) => Refused::Failed(format!("{why}; and it is tried again: {error}")),
        })
    }
}

/// Why something is not done.
enum Refused {
    /// Something else is going on.
    Conflict(String),
    /// It does not work.
    Failed(String),
    /// The node itself does not.
    Broken(String),
}

impl Shared {
    /// Looks what is wanted, and does it if it is not done.
    fn look(self: &Arc<Self>, now: Instant) {
        // What cannot be read stays as it is: the daemon says so, and is started anew.
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(text) = fs::read_to_string(self.directory.join(trial::CONFIG)) else { return };
        let failure = work.running.as_ref().and_then(|running| running.service.failure());
        // What somebody asks for anew is tried whatever came of it before.
        let failure = failure.filter(|_| !work.anew);
        let due = work.retry.is_some_and(|retry| now >= retry) || work.anew;
        let idle = failure.is_none() && !due;
        if idle && text == work.seen {
            return;
        }
        let Ok((_, config)) = trial::read(&self.directory) else { return };
        work.seen = text;
        if idle && config.netboot == work.heeded {
            return;
        }
        self.end(&mut work);
        work.anew = false;
        work.retry = None;
        let begun = match (&config.netboot, failure) {
            (None, _) => Shelf::new(&self.directory).clear().map(|()| None),
            // At once would be too soon: it has just been tried.
            (Some(_), Some(why)) => Err(why),
            (Some(wanted), None) => self.begin(wanted, &mut work).map(Some),
        };
        work.heeded.clone_from(&config.netboot);
        let (serves, trouble) = match begun {
            Ok(serves) => (serves, None),
            Err(why) => {
                work.retry = config.netboot.is_some().then_some(now + RETRY);
                (None, Some(why))
            }
        };
        self.told.send_modify(|told| {
            match (&serves, &trouble) {
                (Some(it), _) => println!(
                    "booting machines on {} from {}, with {} of {}",
                    it.interface, it.address, it.image.release, it.image.origin
                ),
                (_, Some(why)) if told.trouble != trouble => {
                    println!("error: no machines are booted over the network: {why}");
                }
                (None, None) if told.serves.is_some() => {
                    println!("no machines are booted over the network any more");
                }
                _ => {}
            }
            let attempts = told.attempts + 1;
            *told = Told { attempts, wanted: config.netboot, serves, trouble };
        });
    }

    /// Ends what is being done.
    fn end(&self, work: &mut Work) {
        let Some(Running { service, interface }) = work.running.take() else { return };
        drop(service);
        if interface.given {
            if let Err(why) = self.host.withdraw(&interface) {
                println!("error: {why}");
            }
        }
    }

    fn begin(self: &Arc<Self>, wanted: &Wanted, work: &mut Work) -> Result<NetbootService, String> {
        let interface = self.host.prepare(wanted)?;
        match self.serve(wanted, &interface) {
            Ok((service, told)) => {
                work.running = Some(Running { service, interface });
                Ok(told)
            }
            Err(why) => {
                if interface.given {
                    if let Err(why) = self.host.withdraw(&interface) {
                        println!("error: {why}");
                    }
                }
                Err(why)
            }
        }
    }

    fn serve(
        self: &Arc<Self>,
        wanted: &Wanted,
        interface: &Interface,
    ) -> Result<(Box<dyn Service>, NetbootService), String> {
        let own = interface.own;
        let pool = wanted.addresses.map(|addresses| Pool::of(addresses, own)).transpose()?;
        let (image, origin) = self.image()?;
        let append = wanted.append.as_ref().map_or("", |append| append.secret());
        let files = image.files(append, self.host.ipxe())?;
        let bios = files.get(IPXE_BIOS).is_some();
        let name = interface.name.clone();
        let settings = Settings { interface: name.clone(), address: own.address(), pool };
        let shared = Arc::downgrade(self);
        let report = move |event| {
            if let Some(shared) = shared.upgrade() {
                shared.heard(event);
            }
        };
        let service = self.host.serve(settings, files, Arc::new(report))?;
        let image = NetbootImage { release: image.release, bytes: image.bytes, origin };
        Ok((service, NetbootService { interface: name, address: own.to_string(), image, bios }))
    }

    /// The image that is kept, or else the one that this node runs, which is kept from then on: what it was copied from may go.
    fn image(&self) -> Result<(image::Image, String), String> {
        let shelf = Shelf::new(&self.directory);
        if let Some(kept) = shelf.image()? {
            return Ok(kept);
        }
        let (partial, mut file) = shelf.begin(COPIED)?;
        let kept = self.host.copy_image(&mut file).and_then(|origin| {
            shelf.finish(&partial, &origin)?;
            shelf.image()?.ok_or_else(|| "the image is gone that was kept just now".to_owned())
        });
        if kept.is_err() {
            // What is there of it takes memory. Somebody may be handing another one over meanwhile.
            let _ = fs::remove_file(&partial);
        }
        kept
    }

    /// The image that this node runs, which is kept no longer than it is asked for.
    fn running_image(&self) -> Result<(Vec<u8>, String), String> {
        let shelf = Shelf::new(&self.directory);
        if let Some((kept, _)) = shelf.image()? {
            if kept.release == release::own() {
                return Ok((kept.content()?, kept.release));
            }
        }
        let (partial, mut file) = shelf.begin(INSTALLED)?;
        let copied = self.host.copy_image(&mut file);
        // The file is there as long as it is open.
        let _ = fs::remove_file(&partial);
        copied?;
        let image = image::Image::of(file)?;
        Ok((image.content()?, image.release))
    }

    /// Takes in what the server says.
    fn heard(&self, event: Event) {
        let now_ms = trial::now_s() * 1000;
        let mut booted = self.booted.lock().unwrap_or_else(PoisonError::into_inner);
        let (client, file) = match event {
            Event::Sent { client, file }
                if [INITRAMFS, UNIFIED].contains(&file.trim_start_matches('/')) =>
            {
                (client, file)
            }
            Event::Sent { .. } => return,
            // Whoever is on the segment can have any of this said, and should not fill the log.
            Event::Answered { mac, .. } | Event::NotAnswered { mac, .. } => {
                return booted.say(now_ms, mac.to_string(), &event)
            }
            Event::NoFile { client, .. } | Event::NotSent { client, .. } => {
                return booted.say(now_ms, client.ip().to_string(), &event)
            }
            Event::Lost(_) => return println!("error: {event}"),
        };
        let SocketAddr::V4(address) = client else { return };
        let address = *address.ip();
        let mac = self.host.neighbour(address).map(|mac| mac.to_string());
        let machine = NetbootMachine { mac, address: address.to_string(), file, ago_s: 0 };
        let name = machine.mac.as_ref().map(|mac| format!("{mac}, ")).unwrap_or_default();
        let text = format!("sent a machine all that it boots from ({name}{address})");
        println!("{text}");
        let who = machine.mac.as_ref().unwrap_or(&machine.address).clone();
        if booted.events.admits(now_ms, who) {
            let (sight, about) = (Sight::MachineBooted, None);
            self.journal.record(Sighting { sight, about, text });
        }
        booted.count += 1;
        booted.last.truncate(MACHINES_MAX - 1);
        booted.last.push_front((Instant::now(), machine));
    }
}

impl Booted {
    /// A line about somebody, if there was none lately.
    fn say(&mut self, now_ms: u64, who: String, event: &Event) {
        if self.lines.admits(now_ms, who) {
            println!("netboot: {event}");
        }
    }
}
