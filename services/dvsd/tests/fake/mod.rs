// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole daemons in one process: real beacons over a pretended segment, a real API on a loopback
//! port, and a pretended DVK that refuses what the real one refuses.

mod containers;
mod devices;
pub(crate) mod inside;
pub(crate) mod netboot;
pub(crate) mod upgrades;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::{mpsc, Arc, Mutex, MutexGuard};
use std::time::Duration;

use dvk_abi::ioctl::{self, Info, LinkInfo, LINK_CONNECTING, LINK_UP};
use dvk_abi::{Endpoint, Message};
use dvs_api::{PowerAction, Transport};
use dvs_config::Mac;
use dvsd::beacon::{transport_number, Seat};
use dvsd::carrier::{Carrier, ProxyRoute};
use dvsd::containers::{ContainerCall, Containers, Runtime};
use dvsd::daemon::{Daemon, Surroundings};
use dvsd::images::Images;
use dvsd::kernel::{Failure, Kernel, Messenger, ServerPort};
use dvsd::links::Links;
use dvsd::multicast::{Datagram, Departure, Network};
use dvsd::netboot::Netboot;
use dvsd::peers::Peers;
use dvsd::proxies::Proxies;
use dvsd::reconcile::{Call, SYSTEM_CONTAINER};
use dvsd::services::Services;
use dvsd::settings::{Interface, Settings};
use dvsd::status::StatusFile;
use dvsd::tipc::{Bearers, Network as TipcNetwork};
use dvsd::upgrades::Upgrades;
use tokio::sync::mpsc as async_mpsc;
use tokio::task::AbortHandle;

use containers::FakeRuntime;
use devices::{FakeDevices, Secured, SECURED};

type Request = (Message, mpsc::Sender<Message>);

/// All kernels, and the wire between them.
#[derive(Default)]
struct World {
    kernels: HashMap<Mac, Tables>,
    ports: HashMap<u64, mpsc::Sender<Request>>,
    /// The proxies that each machine runs.
    proxies: HashMap<Mac, BTreeMap<u16, ProxyRoute>>,
    /// Servers in containers of machines, by container and slot.
    servers: HashMap<(Mac, u32, u32), async_mpsc::UnboundedSender<Request>>,
    /// What programs in containers have lent, by the number of the grant.
    lent: HashMap<u64, Vec<u8>>,
    /// How many endpoints and grants programs in containers have had.
    counted: u64,
}

impl World {
    /// The machine that is a node.
    fn machine(&self, node: u16) -> Option<&Tables> {
        let is = |tables: &&Tables| tables.init.is_some_and(|seat| seat.id == node);
        self.kernels.values().find(is)
    }
}

#[derive(Default)]
struct Tables {
    init: Option<Seat>,
    container: bool,
    leases: BTreeMap<u16, (u32, u32)>,
    /// Distributed Containers, and the slots of nodes in them.
    containers: BTreeMap<u16, BTreeMap<u16, u32>>,
    up: BTreeMap<u16, u32>,
    links: BTreeMap<u16, Carrier>,
    remotes: HashMap<u64, u16>,
    binds: u32,
}

/// The DVK of one machine.
struct FakeDvk {
    mac: Mac,
    world: Arc<Mutex<World>>,
    secured: Arc<Mutex<Secured>>,
    insecure: bool,
}

impl FakeDvk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

fn refuse(condition: bool, why: &str) -> Result<(), String> {
    if condition {
        Err(why.to_owned())
    } else {
        Ok(())
    }
}

impl Kernel for FakeDvk {
    fn control(&self, call: &Call) -> Result<(), String> {
        let mut world = self.world();
        let World { kernels, ports, .. } = &mut *world;
        let tables = kernels.entry(self.mac).or_default();
        if let Call::End = call {
            let own = tables.init.map(|seat| seat.id);
            if let Some((first, _)) = own.and_then(|own| tables.leases.get(&own)) {
                let first = u64::from(*first);
                ports.retain(|raw, _| !(first..first + 32).contains(&(raw & 0xffff_ffff)));
            }
            *tables = Tables::default();
            return Ok(());
        }
        if let Call::Init { seat, .. } = call {
            refuse(tables.init.is_some(), "EEXIST")?;
            tables.init = Some(*seat);
            return Ok(());
        }
        refuse(tables.init.is_none(), "ENODEV: no DVS")?;
        match *call {
            Call::End | Call::Init { .. } => {}
            Call::CreateContainer => {
                refuse(tables.container, "EEXIST")?;
                tables.container = true;
            }
            Call::AddNode { seat, first_slot, first_generation } => {
                refuse(!tables.container, "ENODEV: no container")?;
                refuse(first_slot < 64 || first_slot % 32 != 0, "EINVAL")?;
                let taken =
                    |(id, (first, _)): (&u16, &(u32, u32))| *id != seat.id && *first == first_slot;
                refuse(tables.leases.iter().any(taken), "EBUSY")?;
                tables.leases.insert(seat.id, (first_slot, first_generation));
            }
            Call::RemoveNode { node } => {
                tables.leases.remove(&node);
                tables.remotes.retain(|_, at| *at != node);
            }
            Call::NodeUp { seat } => {
                refuse(tables.init.is_some_and(|own| own.id == seat.id), "EINVAL: own node")?;
                tables.up.insert(seat.id, seat.incarnation);
            }
            Call::NodeDown { node } => {
                refuse(tables.up.remove(&node).is_none(), "ENODEV: not up")?;
            }
            Call::LinkAttach { node, carrier } => {
                refuse(!tables.up.contains_key(&node), "ENODEV: not up")?;
                refuse(carrier == Carrier::Tipc, "EINVAL: no such transport")?;
                if let Carrier::Ethernet(route) = carrier {
                    assert_eq!(route.interface < SECURED, self.insecure, "{route:?}");
                }
                if !matches!(carrier, Carrier::Proxy(_)) {
                    tables.links.insert(node, carrier);
                }
            }
            Call::LinkDetach { node } => {
                refuse(tables.links.remove(&node).is_none(), "ENOTCONN")?;
            }
            Call::SetRemote { node, endpoint } => {
                refuse(!tables.container, "ENODEV: no container")?;
                tables.remotes.insert(endpoint, node);
            }
        }
        Ok(())
    }

    fn container(&self, call: &ContainerCall) -> Result<(), String> {
        let mut world = self.world();
        let tables = world.kernels.entry(self.mac).or_default();
        refuse(tables.init.is_none(), "ENODEV: no DVS")?;
        let all = &mut tables.containers;
        let none = "ENODEV: no container";
        match call {
            ContainerCall::Create { id, .. } => drop(all.entry(*id).or_default()),
            ContainerCall::AddNode { id, node, first_slot, first_generation } => {
                let slots = all.get_mut(id).ok_or(none)?;
                let other = |(holder, first): (&u16, &u32)| holder != node && first == first_slot;
                refuse(slots.iter().any(other), "EBUSY")?;
                refuse(slots.contains_key(node), "EEXIST")?;
                refuse(*first_generation == 0, "EINVAL")?;
                slots.insert(*node, *first_slot);
            }
            ContainerCall::RemoveNode { id, node } => {
                all.get_mut(id).ok_or(none)?.remove(node);
            }
            ContainerCall::Destroy { id } => drop(all.remove(id)),
        }
        if let ContainerCall::Destroy { id } = call {
            let own = |(mac, container, _): &(Mac, u32, u32)| {
                (*mac, *container) == (self.mac, u32::from(*id))
            };
            world.servers.retain(|place, _| !own(place));
        }
        Ok(())
    }

    fn link(&self, node: u16) -> Result<LinkInfo, String> {
        let world = self.world();
        // A kernel that was told nothing yet knows no node either.
        let known = world.kernels.get(&self.mac).filter(|own| own.up.contains_key(&node));
        let own = known.ok_or("ENODEV")?;
        let carrier = own.links.get(&node);
        // It is up once the other end greets this one, in the right incarnation.
        let greets = world.machine(node).is_some_and(|peer| {
            let knows = |own: Seat| {
                peer.up.get(&own.id) == Some(&own.incarnation) && peer.links.contains_key(&own.id)
            };
            let itself = peer.init.map(|seat| (seat.id, seat.incarnation));
            own.init.is_some_and(knows)
                && carrier.is_some()
                && itself == own.up.get(&node).map(|incarnation| (node, *incarnation))
        });
        let understood = match carrier {
            Some(Carrier::Ethernet(route)) => {
                let secured = self.secured.lock().unwrap();
                self.insecure || secured.understand_each_other(self.mac, route.mac)
            }
            _ => true,
        };
        let state = if greets && understood { LINK_UP } else { LINK_CONNECTING };
        let transport = carrier.map_or(0, |carrier| transport_number(carrier.transport()));
        let node = u32::from(node);
        Ok(LinkInfo { node, state, transport, rtt_us: 200, ..LinkInfo::default() })
    }

    /// Those of the system container, which are bound on all machines in one world.
    fn endpoints(&self, container: u32) -> Result<Vec<Info>, String> {
        let world = self.world();
        let raws = world.ports.keys().filter(|_| container == SYSTEM_CONTAINER).copied();
        let holder = |raw: u64| {
            let slot = (raw & 0xffff_ffff) as u32;
            let all = world.kernels.values().flat_map(|tables| &tables.leases);
            all.clone().find(|(_, (first, _))| (*first..first + 32).contains(&slot)).map(|it| *it.0)
        };
        let node = |raw| holder(raw).map_or(ioctl::NODE_NONE, u32::from);
        let mut known: Vec<Info> = raws
            .map(|raw| Info {
                endpoint: raw,
                container,
                node: node(raw),
                state: ioctl::STATE_RECEIVE,
                waits_for: Endpoint::ANY.raw(),
                ..Info::default()
            })
            .collect();
        known.sort_by_key(|info| info.endpoint);
        Ok(known)
    }

    fn bind(&self) -> Result<Box<dyn Messenger>, String> {
        let mut world = self.world();
        let tables = world.kernels.get_mut(&self.mac).ok_or("ENODEV")?;
        let own = tables.init.ok_or("ENODEV")?.id;
        let (first_slot, first_generation) = *tables.leases.get(&own).ok_or("ENOSPC")?;
        let (slot, generation) = (tables.binds % 32, tables.binds / 32);
        tables.binds += 1;
        let raw = u64::from(first_generation + generation) << 32 | u64::from(first_slot + slot);
        let (sender, requests) = mpsc::channel();
        world.ports.insert(raw, sender);
        Ok(Box::new(FakePort {
            raw,
            requests,
            waiting: HashMap::new(),
            mac: self.mac,
            world: Arc::clone(&self.world),
        }))
    }

    fn serve(&self, container: u32, slot: u32) -> Result<Box<dyn ServerPort>, String> {
        let mut world = self.world();
        let tables = world.kernels.get(&self.mac).ok_or("ENODEV")?;
        let id = u16::try_from(container).map_err(|_| "ENODEV")?;
        refuse(!tables.containers.contains_key(&id), "ENODEV: no container")?;
        let place = (self.mac, container, slot);
        refuse(world.servers.get(&place).is_some_and(|it| !it.is_closed()), "EBUSY")?;
        let (port, requests) = inside::port(Arc::clone(&self.world));
        world.servers.insert(place, requests);
        Ok(Box::new(port))
    }
}

/// Proxies of one machine: they carry a link once those of both ends are there.
struct FakeProxies {
    mac: Mac,
    world: Arc<Mutex<World>>,
}

impl Proxies for FakeProxies {
    fn run(
        &mut self,
        _: u64,
        wanted: &BTreeMap<u16, ProxyRoute>,
        _: &dyn Fn(u16) -> Option<Transport>,
    ) {
        let mut world = self.world.lock().unwrap();
        world.proxies.insert(self.mac, wanted.clone());
        let World { kernels, proxies, .. } = &mut *world;
        let meets = |ours: &ProxyRoute| {
            let met = |theirs: &ProxyRoute| {
                theirs.over == ours.over && (theirs.local == ours.peer || theirs.peer == ours.local)
            };
            // There is no QUIC here.
            ours.over != Transport::Quic
                && proxies.iter().any(|(mac, all)| *mac != self.mac && all.values().any(met))
        };
        let Some(tables) = kernels.get_mut(&self.mac) else { return };
        for (node, route) in wanted.iter().filter(|(_, route)| meets(route)) {
            tables.links.insert(*node, Carrier::Proxy(*route));
        }
    }

    fn trouble(&self, node: u16) -> Option<String> {
        let world = self.world.lock().unwrap();
        let route = world.proxies.get(&self.mac)?.get(&node)?;
        (route.over == Transport::Quic).then(|| "nothing here speaks QUIC".to_owned())
    }
}

struct NoBearers;

impl Bearers for NoBearers {
    fn enable(&mut self, _: &TipcNetwork) -> Result<(), String> {
        Ok(())
    }

    fn disable(&mut self) {}

    fn look(&mut self, _: u64, _: Option<&TipcNetwork>) {}
}

struct FakePort {
    raw: u64,
    requests: mpsc::Receiver<Request>,
    waiting: HashMap<u64, mpsc::Sender<Message>>,
    mac: Mac,
    world: Arc<Mutex<World>>,
}

impl Drop for FakePort {
    fn drop(&mut self) {
        self.world.lock().unwrap().ports.remove(&self.raw);
    }
}

impl Messenger for FakePort {
    fn endpoint(&self) -> Endpoint {
        Endpoint::from_raw(self.raw)
    }

    fn request(
        &mut self,
        to: Endpoint,
        message: &Message,
        timeout: Duration,
    ) -> Result<Message, Failure> {
        let (sender, replies) = mpsc::channel();
        {
            let world = self.world.lock().unwrap();
            let tables = &world.kernels[&self.mac];
            let other = |why: &str| Failure::Other(why.to_owned());
            let local = tables
                .init
                .and_then(|own| tables.leases.get(&own.id))
                .is_some_and(|(first, _)| (*first..first + 32).contains(&to.slot()));
            if !local {
                let node = tables.remotes.get(&to.raw()).ok_or(other("ESRCH"))?;
                if !tables.up.contains_key(node) {
                    return Err(other("EHOSTUNREACH"));
                }
            }
            let port = world.ports.get(&to.raw()).ok_or(other("ESTALE"))?;
            let request = Message { source: self.raw, ..*message };
            port.send((request, sender)).map_err(|_| other("EOWNERDEAD"))?;
        }
        replies.recv_timeout(timeout).map_err(|_| Failure::TimedOut)
    }

    fn receive(&mut self, timeout: Duration) -> Result<Message, Failure> {
        match self.requests.recv_timeout(timeout) {
            Ok((message, reply)) => {
                self.waiting.insert(message.source, reply);
                Ok(message)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Err(Failure::TimedOut),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Failure::Other("EOWNERDEAD".into())),
        }
    }

    fn reply(&mut self, to: Endpoint, message: &Message) {
        if let Some(waiting) = self.waiting.remove(&to.raw()) {
            let _ = waiting.send(*message);
        }
    }
}

/// A machine on the segment.
struct Machine {
    arrived: async_mpsc::Sender<Datagram>,
    tasks: Vec<AbortHandle>,
}

/// A segment with machines on it, which run in the background as long as it lives.
pub(crate) struct Segment {
    runtime: tokio::runtime::Runtime,
    world: Arc<Mutex<World>>,
    machines: Arc<Mutex<BTreeMap<u8, Machine>>>,
    secured: Arc<Mutex<Secured>>,
    /// Where each machine's API is answered by TLS.
    guarded: Mutex<BTreeMap<u8, SocketAddr>>,
    /// Which machines were to restart or to be switched off.
    asked: Arc<Mutex<Vec<(u8, PowerAction)>>>,
    directory: tempfile::TempDir,
    /// What each machine's daemon knows.
    handles: Mutex<BTreeMap<u8, dvsd::daemon::Handle>>,
    /// Each machine's API, without a network.
    routers: Mutex<BTreeMap<u8, axum::Router>>,
    /// What makes its containers, which outlives its daemon.
    runtimes: Mutex<BTreeMap<u8, FakeRuntime>>,
    /// What its machines run.
    pub(crate) images: Arc<upgrades::Images>,
    /// What machines boot others with.
    pub(crate) netboot: Arc<netboot::Pretended>,
    /// Its part of the loopback addresses, held as long as it lives.
    part: (u16, std::net::TcpListener),
}

/// What a machine is told.
pub(crate) struct Boot<'a> {
    /// Its number: the last byte of its MAC address.
    pub(crate) number: u8,
    /// The cluster token.
    pub(crate) token: &'a str,
    /// `bootstrap_expect`.
    pub(crate) expect: u16,
    /// Whether its kernel has a DVK.
    pub(crate) dvk: bool,
    /// Whether it is told not to encrypt.
    pub(crate) insecure: bool,
}

#[allow(dead_code, reason = "not every test needs everything")]
impl Segment {
    pub(crate) fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            world: Arc::default(),
            machines: Arc::default(),
            secured: Arc::default(),
            guarded: Mutex::default(),
            handles: Mutex::default(),
            routers: Mutex::default(),
            asked: Arc::default(),
            runtimes: Mutex::default(),
            images: Arc::default(),
            netboot: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
            part: part_of_loopback(),
        }
    }

    /// Has every machine a loopback address of its own, so that it can be connected to: as many segments as tests run at once are
    /// told apart by a part of it that is the segment's.
    fn reach(&self) -> dvsd::agreement::Reach {
        let [a, b] = self.part.0.to_be_bytes();
        Arc::new(move |address| {
            let number = address.ip().octets()[15];
            SocketAddr::from(([127, a, b, number], address.port()))
        })
    }

    /// Where a machine keeps its files.
    pub(crate) fn run_directory(&self, number: u8) -> PathBuf {
        self.directory.path().join(number.to_string())
    }

    /// A machine's API, without a network.
    pub(crate) fn router(&self, number: u8) -> axum::Router {
        self.routers.lock().unwrap()[&number].clone()
    }

    /// What a machine's daemon knows.
    pub(crate) fn snapshot(&self, number: u8) -> Arc<dvsd::daemon::Snapshot> {
        Arc::clone(&self.handles.lock().unwrap()[&number].snapshots.borrow())
    }

    /// A program in a container of a machine, as it asks the container's services.
    pub(crate) fn inside(&self, number: u8, container: u16) -> inside::Inside {
        let mac = Mac([0x52, 0x54, 0, 0, 0, number]);
        inside::Inside::new(Arc::clone(&self.world), mac, container.into())
    }

    /// What makes the containers of a machine.
    pub(crate) fn runtime_of(&self, number: u8) -> FakeRuntime {
        self.runtimes.lock().unwrap().entry(number).or_default().clone()
    }

    /// Which nodes a machine's kernel knows in which containers.
    pub(crate) fn dvk_containers(&self, number: u8) -> BTreeMap<u16, BTreeSet<u16>> {
        let world = self.world.lock().unwrap();
        let tables = world.kernels.get(&Mac([0x52, 0x54, 0, 0, 0, number]));
        let of = |(id, nodes): (&u16, &BTreeMap<u16, u32>)| (*id, nodes.keys().copied().collect());
        tables.map(|tables| tables.containers.iter().map(of).collect()).unwrap_or_default()
    }

    /// Where a machine's API is answered by TLS.
    pub(crate) fn guarded(&self, number: u8) -> SocketAddr {
        self.guarded.lock().unwrap()[&number]
    }

    /// Starts a machine; gives back where its API listens.
    pub(crate) fn boot(&self, boot: &Boot<'_>) -> String {
        let number = boot.number;
        let mac = Mac([0x52, 0x54, 0, 0, 0, number]);
        let directory = self.run_directory(number);
        std::fs::create_dir_all(directory.join("logs")).unwrap();
        let api = self.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address: SocketAddr = api.local_addr().unwrap();
        let settings = Settings {
            cluster: "dvs".into(),
            token: Some(boot.token.parse().unwrap()),
            join_token: None,
            insecure: boot.insecure,
            expect: boot.expect,
            name: String::new(),
            interfaces: vec![Interface { name: "eth0".into(), index: 2, mac }],
            management: None,
            api: address,
            release: self.images.of(number),
        };
        let (dvk, world) = (boot.dvk, Arc::clone(&self.world));
        let (secured, insecure) = (Arc::clone(&self.secured), boot.insecure);
        let proxies = FakeProxies { mac, world: Arc::clone(&world) };
        let surroundings = Surroundings {
            open_kernel: Box::new(move || match dvk {
                true => {
                    let (world, secured) = (Arc::clone(&world), Arc::clone(&secured));
                    Ok(Arc::new(FakeDvk { mac, world, secured, insecure }))
                }
                false => Err("/dev/dvk: the kernel has no DVK".into()),
            }),
            link_local: Box::new(move |_| Some(address_of(number))),
            links: Links::new(Box::new(proxies), Box::new(NoBearers)),
            status: StatusFile::new(&directory),
            reach: self.reach(),
            power: {
                let asked = Arc::clone(&self.asked);
                Box::new(move |action| {
                    asked.lock().unwrap().push((number, action));
                    Ok(())
                })
            },
            devices: {
                let secured = Arc::clone(&self.secured);
                Box::new(move || Box::new(FakeDevices::new(mac, Arc::clone(&secured))))
            },
        };
        let instance = u64::from(address.port()) << 32 | u64::from(number) << 8 | 1;
        let (daemon, handle) = Daemon::new(settings, instance, surroundings);
        let (network, arrived, cable) = self.plug(number);
        let mut tasks = vec![cable];
        let mut spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            tasks.push(self.runtime.spawn(task).abort_handle());
        };
        spawn(Box::pin(async move {
            daemon.run(network).await.unwrap();
        }));
        let guarded = self.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        self.guarded.lock().unwrap().insert(number, guarded.local_addr().unwrap());
        let secret = dvs_secret::ClusterSecret::new(&boot.token.parse().unwrap());
        let authority = Arc::new(dvs_authority::Authority::derived(&secret, "dvs").unwrap());
        let snapshots = handle.snapshots.clone();
        self.handles.lock().unwrap().insert(number, handle.clone());
        let configured = format!(
            "[cluster]\ntoken = '{}'\nbootstrap_expect = {}\ninsecure = {}\n",
            boot.token, boot.expect, boot.insecure
        );
        std::fs::write(directory.join("config.toml"), configured).unwrap();
        let runtime = self.runtime_of(number);
        let reach = self.reach();
        let peers =
            Peers::new(handle.agreement.clone(), Some(Arc::clone(&authority)), Arc::clone(&reach));
        let archives = directory.join("archives");
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let images = Images::new(handle.clone(), peers.clone(), Arc::clone(&runtime), archives);
        let (states, publish_at) = (images.states(), address.ip());
        let containers = Containers::new(handle.clone(), Arc::clone(&runtime), states, publish_at);
        spawn(Box::pin(containers.run()));
        spawn(Box::pin(Services::new(handle.clone()).run()));
        let boot = dvsd::boot::Boot::of_pretended_machine(&directory);
        let keys = directory.join("release-keys");
        std::fs::write(&keys, self.images.key.public().to_string()).unwrap();
        let own = Arc::new(upgrades::FakeBoot { number, images: Arc::clone(&self.images) });
        let (store, release) = (images.store(), self.images.of(number));
        let upgrades = Upgrades::new(handle.clone(), store, own, keys, release);
        let host = netboot::FakeHost { number, pretended: Arc::clone(&self.netboot) };
        let netboot = Netboot::new(&directory, Arc::new(host), handle.journal.clone());
        spawn(Box::pin(netboot.clone().run()));
        let (own, shared) = (handle.clone(), directory.clone());
        let router = dvsd::api::router(own, shared, runtime, &images, boot, &upgrades, netboot);
        spawn(Box::pin(upgrades.run()));
        let router = dvsd::relay::relaying(router, handle, peers);
        spawn(Box::pin(images.run()));
        // Where its neighbours ask it. An earlier life of it may not have gone from there yet.
        let door = reach(SocketAddrV6::new(address_of(number), dvsd::peers::PORT, 0, 2));
        let (neighbours, known, proof) =
            (router.clone(), snapshots.clone(), Arc::clone(&authority));
        spawn(Box::pin(async move {
            let door = loop {
                match tokio::net::TcpListener::bind(door).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            let guarded = dvsd::doors::Guarded::new(door, proof, known).unwrap();
            axum::serve(guarded, neighbours).await.unwrap();
        }));
        self.routers.lock().unwrap().insert(number, router.clone());
        let inside = router.clone();
        spawn(Box::pin(async move {
            axum::serve(api, router).await.unwrap();
        }));
        spawn(Box::pin(async move {
            let guarded = dvsd::doors::Guarded::new(guarded, authority, snapshots).unwrap();
            axum::serve(guarded, inside).await.unwrap();
        }));
        self.machines.lock().unwrap().insert(number, Machine { arrived, tasks });
        format!("http://{address}")
    }

    /// Connects a machine: its network, where others put what is for it, and what carries what it sends.
    fn plug(&self, number: u8) -> (Network, async_mpsc::Sender<Datagram>, AbortHandle) {
        let (arrived, inbound) = async_mpsc::channel(256);
        let (outbound, mut departing) = async_mpsc::channel::<Departure>(256);
        let machines = Arc::clone(&self.machines);
        let carry = self.runtime.spawn(async move {
            while let Some(Departure { to, bytes, .. }) = departing.recv().await {
                for (other, machine) in &*machines.lock().unwrap() {
                    let meant = to.is_none_or(|to| to == address_of(*other));
                    if *other != number && meant {
                        let (source, bytes) = (address_of(number), bytes.clone());
                        let _ = machine.arrived.try_send(Datagram { interface: 2, source, bytes });
                    }
                }
            }
        });
        (Network { inbound, outbound }, arrived, carry.abort_handle())
    }

    /// A machine asks to be let in with a join token; gives back the cluster's token, or what its status says after a while without it.
    pub(crate) fn apply(&self, number: u8, join_token: &str) -> Result<String, String> {
        let (mut network, arrived, cable) = self.plug(number);
        let tasks = vec![cable];
        self.machines.lock().unwrap().insert(number, Machine { arrived, tasks });
        let directory = self.run_directory(number);
        std::fs::create_dir_all(&directory).unwrap();
        let settings = Settings {
            cluster: "dvs".into(),
            token: None,
            join_token: Some(join_token.parse().unwrap()),
            insecure: false,
            expect: 1,
            name: String::new(),
            interfaces: vec![Interface {
                name: "eth0".into(),
                index: 2,
                mac: Mac([0x52, 0x54, 0, 0, 0, number]),
            }],
            management: None,
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            release: self.images.of(number),
        };
        let (token, mut file) = (settings.join_token.clone().unwrap(), StatusFile::new(&directory));
        let admitted = dvsd::admission::apply(&settings, &token, 0, &mut network, &mut file);
        let admitted = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(4), admitted).await });
        let machine = self.machines.lock().unwrap().remove(&number).unwrap();
        machine.tasks.iter().for_each(AbortHandle::abort);
        match admitted {
            Ok(token) => Ok(token.unwrap().secret().to_owned()),
            Err(_) => {
                let status = std::fs::read(directory.join("status.json")).unwrap();
                Err(serde_json::from_slice::<dvs_api::Status>(&status).unwrap().detail)
            }
        }
    }

    /// Boots `count` machines that expect each other; gives back where their APIs listen.
    pub(crate) fn boot_all(&self, count: u8) -> Vec<String> {
        let token = "the token of this cluster";
        (1..=count)
            .map(|number| {
                self.boot(&Boot { number, token, expect: count.into(), dvk: true, insecure: false })
            })
            .collect()
    }

    /// Somebody sends forged frames to a machine.
    pub(crate) fn forge(&self, number: u8, count: u64) {
        self.secured.lock().unwrap().forge(Mac([0x52, 0x54, 0, 0, 0, number]), count);
    }

    /// Somebody removes the device that encrypts for a machine.
    pub(crate) fn remove_device(&self, number: u8) {
        self.secured.lock().unwrap().remove(Mac([0x52, 0x54, 0, 0, 0, number]));
    }

    /// Which machines were to restart or to be switched off since the last call.
    pub(crate) fn asked(&self) -> Vec<(u8, PowerAction)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Cuts a machine's power: its daemon, its API and its kernel are gone.
    pub(crate) fn kill(&self, number: u8) {
        let machine = self.machines.lock().unwrap().remove(&number).unwrap();
        machine.tasks.iter().for_each(AbortHandle::abort);
        let mut world = self.world.lock().unwrap();
        world.kernels.remove(&Mac([0x52, 0x54, 0, 0, 0, number]));
        world.proxies.remove(&Mac([0x52, 0x54, 0, 0, 0, number]));
        world.servers.retain(|(mac, ..), _| *mac != Mac([0x52, 0x54, 0, 0, 0, number]));
    }
}

/// A part of the loopback addresses that no other test has, of this process or another one.
fn part_of_loopback() -> (u16, std::net::TcpListener) {
    let free = |part: u16| {
        let [a, b] = part.to_be_bytes();
        let claim = SocketAddr::from(([127, a, b, 254], dvsd::agreement::PORT));
        Some((part, std::net::TcpListener::bind(claim).ok()?))
    };
    (256..u16::MAX).find_map(free).unwrap()
}

fn address_of(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number.into())
}

/// Asks until the answer satisfies; panics with the last one after 20 seconds.
pub(crate) fn eventually<T: std::fmt::Debug>(
    mut ask: impl FnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> T {
    let start = std::time::Instant::now();
    loop {
        let answer = ask();
        if good(&answer) {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
