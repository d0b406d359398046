// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop in the middle: feeds the membership with datagrams and time, carries its view into the
//! kernel's tables, and publishes what has become of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dvk_abi::ioctl::LINK_UP;
use dvs_api::{Node, NodeState, PowerAction, Status, StatusState, Transport};
use dvs_secret::ClusterSecret;
use dvs_state::lifecycle::Until;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::admission::{self, Desk, Verdict};
use crate::agreement::{self, Agreement};
use crate::beacon::{Beacon, Key, Rejected, Rejection, Seat};
use crate::carrier::OwnEnd;
use crate::containers::Underlay;
use crate::echo::Echo;
use crate::kernel::Kernel;
use crate::links::Links;
use crate::membership::swim::message::Message;
use crate::membership::swim::Tuning;
use crate::membership::{
    Announcement, Event, Identity, Keys, Liveness, Membership, OwnInterface, Path, Standing, View,
};
use crate::multicast::{Datagram, Departure, Network};
use crate::orders::{self, Order, Orders};
use crate::reconcile::{Call, Desired, Tables};
use crate::rejects::{Rejects, Throttle};
use crate::report;
use crate::segment::{Devices, Segment, Wish};
use crate::settings::{Interface, Settings};
use crate::sightings::Sightings;
use crate::status::StatusFile;
use crate::tipc::Network as TipcNetwork;

/// How often time passes for the membership.
const TICK: Duration = Duration::from_millis(20);
/// Milliseconds between two looks at kernel and links when nothing else happens.
const LOOK_MS: u64 = 100;
/// How long a node that is asked to end tries to give away its vote: most of what PID 1 gives it.
const VACATE: Duration = Duration::from_secs(6);
/// How long it tries to say that it is going.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often a node says that it is going: any of it may be lost.
const GOODBYES: u32 = 3;
/// Milliseconds before something that failed is tried again.
const RETRY_MS: u64 = 1_000;

/// What the kernel says of the machine's processors.
const CPUINFO: &str = "/proc/cpuinfo";

/// Opens the kernel's DVK; an error is for people.
pub type OpenKernel = Box<dyn FnMut() -> Result<Arc<dyn Kernel>, String> + Send>;
/// Gives the link-local address of an interface, once it has one.
pub type LinkLocal = Box<dyn FnMut(u32) -> Option<Ipv6Addr> + Send>;

/// Gives the kernel's MACsec devices.
pub type GiveDevices = Box<dyn Fn() -> Box<dyn Devices> + Send>;

/// Has the machine restart or switch itself off; an error is for people.
pub type ChangePower = Box<dyn FnMut(PowerAction) -> Result<(), String> + Send>;

/// The machine around the daemon.
pub struct Surroundings {
    /// Called until it succeeds.
    pub open_kernel: OpenKernel,
    /// Called until it gives an address.
    pub link_local: LinkLocal,
    /// How links are attached and carried.
    pub links: Links,
    /// Where the status goes.
    pub status: StatusFile,
    /// Where the other nodes' members of the consensus are reached.
    pub reach: agreement::Reach,
    /// Has the machine restart or switch itself off: asks whoever can for that.
    pub power: ChangePower,
    /// Gives what encrypts on the cluster interfaces; not called where the configuration says that
    /// nothing does.
    pub devices: GiveDevices,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("status", &self.status).finish_non_exhaustive()
    }
}

/// How others see the daemon and have it do something.
#[derive(Clone, Debug)]
pub struct Handle {
    /// What it knows.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where it takes orders.
    pub orders: Orders,
    /// What the nodes agree on.
    pub agreement: agreement::Access,
    /// Where is put what all nodes should know of.
    pub journal: agreement::Journal,
}

impl Handle {
    /// Goes without the others having to miss this node: its vote and lead go to another one, if there is time, and all are told that it
    /// is going.
    pub async fn leave(&self) {
        if let Standing::Member { seat, .. } = self.agreement.view().standing {
            // One that cannot give them away goes nevertheless; somebody has decided so.
            let vacated = self.agreement.vacate(seat.id, Until::Back, false, VACATE);
            if let Ok(Err(why)) = timeout(VACATE, vacated).await {
                println!("note: this node goes with its vote: {why}");
            }
        }
        let (done, told) = oneshot::channel();
        if self.orders.send(Order::Leave { done }).await.is_ok() {
            drop(timeout(GOODBYE, told).await);
        }
    }
}

/// What the daemon knows at one moment, as the API tells it.
#[derive(Clone)]
pub struct Snapshot {
    /// This node.
    pub status: Status,
    /// All nodes, this one included.
    pub nodes: Vec<Node>,
    /// The echo servers to which messages can be sent, by node id.
    pub echoes: BTreeMap<u32, u64>,
    /// The DVK to send them with.
    pub kernel: Option<Arc<dyn Kernel>>,
    /// The place in the cluster for which the DVK has been set up, once endpoints can be bound.
    pub programmed: Option<Seat>,
    /// The interfaces by which other nodes are reached, encrypted where this node encrypts.
    pub underlays: Vec<Underlay>,
    /// How traffic on the segment is protected.
    pub segment: dvs_api::Segment,
    /// Where another key can be wished for; `None` for a node that does not encrypt.
    pub wish: Option<Arc<Wish>>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The daemon of one node.
#[derive(Debug)]
pub struct Daemon {
    settings: Settings,
    key: Key,
    membership: Membership,
    agreement: Agreement,
    access: agreement::Access,
    desk: Desk,
    /// Where datagrams are sent; `None` before it runs.
    outbound: Option<mpsc::Sender<Departure>>,
    sightings: Sightings,
    rejects: Rejects,
    told: Throttle<String>,
    surroundings: Surroundings,
    kernel: KernelState,
    /// `None` for a node that does not encrypt.
    segment: Option<Segment>,
    end: OwnEnd,
    orders: mpsc::Receiver<Order>,
    goodbye: Option<Goodbye>,
    /// The seat in which this node has been ready.
    was_ready: Option<Seat>,
    look_ms: u64,
    start: Instant,
    publish: watch::Sender<Arc<Snapshot>>,
}

/// How often this node has still to say that it is going, and whom to tell that it has.
#[derive(Debug)]
struct Goodbye {
    left: u32,
    done: oneshot::Sender<()>,
}

/// The kernel's side, as far as it has come.
struct KernelState {
    open: Option<Arc<dyn Kernel>>,
    tables: Tables,
    echo: Option<Echo>,
    /// What failed last, for people; empty if nothing did.
    trouble: String,
    retry_ms: u64,
    /// Nothing was left to program at the last look.
    complete: bool,
}

impl fmt::Debug for KernelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelState").field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl Daemon {
    /// A daemon that has not run yet, and where it will publish what it knows. `instance` is a
    /// random number.
    pub fn new(settings: Settings, instance: u64, surroundings: Surroundings) -> (Self, Handle) {
        let identity = Identity {
            cluster_name: settings.cluster.clone(),
            mac: settings.identity(instance),
            instance,
            expect: settings.expect,
            name: settings.name.clone(),
            release: settings.release.clone(),
            management: settings.management,
            // What cannot be read is nothing to go by.
            tuning: Tuning::of_machine(&std::fs::read_to_string(CPUINFO).unwrap_or_default()),
        };
        let status = Status {
            node: None,
            name: None,
            cluster: settings.cluster.clone(),
            state: StatusState::Starting,
            detail: String::new(),
            members: 0,
            ready: 0,
            addresses: Vec::new(),
            version: settings.release.clone(),
        };
        let secret = settings.token.as_ref().filter(|_| !settings.insecure).map(ClusterSecret::new);
        let segment = secret.map(|secret| {
            let devices = (surroundings.devices)();
            Segment::new(0, secret, instance, &settings.interfaces, devices)
        });
        let mut membership = Membership::new(identity, 0);
        if let Some(segment) = &segment {
            let announced = Some(segment.announced());
            membership.tell_keys(0, Keys { announced, ..Keys::default() });
        }
        let snapshot = Snapshot {
            status,
            nodes: Vec::new(),
            echoes: BTreeMap::new(),
            kernel: None,
            programmed: None,
            underlays: Vec::new(),
            segment: dvs_api::Segment::default(),
            wish: segment.as_ref().map(Segment::wish),
        };
        let (publish, snapshots) = watch::channel(Arc::new(snapshot));
        let (given, orders) = orders::queue();
        let (agreement, access) = Agreement::new(
            settings.cluster.clone(),
            settings.release.clone(),
            settings.token.as_ref(),
            Arc::clone(&surroundings.reach),
        );
        let journal = agreement.journal().clone();
        let daemon = Self {
            key: Key::new(settings.token.as_ref().map_or("", |token| token.secret())),
            membership,
            agreement,
            access: access.clone(),
            desk: Desk::default(),
            outbound: None,
            sightings: Sightings::default(),
            rejects: Rejects::default(),
            told: Throttle::default(),
            surroundings,
            segment,
            kernel: KernelState {
                open: None,
                tables: Tables::default(),
                echo: None,
                trouble: String::new(),
                retry_ms: 0,
                complete: false,
            },
            end: OwnEnd { management: settings.management, ..OwnEnd::default() },
            orders,
            goodbye: None,
            was_ready: None,
            look_ms: 0,
            start: Instant::now(),
            settings,
            publish,
        };
        (daemon, Handle { snapshots, orders: given, agreement: access, journal })
    }

    /// Runs until the network is gone.
    ///
    /// # Errors
    /// For people: what the daemon cannot go on without.
    pub async fn run(mut self, mut network: Network) -> Result<(), String> {
        self.outbound = Some(network.outbound.clone());
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Without interfaces there is nobody to hear, and that is no reason to end.
        let mut connected = true;
        loop {
            tokio::select! {
                datagram = network.inbound.recv(), if connected => match datagram {
                    Some(datagram) => self.receive(&datagram),
                    None => connected = false,
                },
                // The API holds the other end for as long as the daemon runs.
                Some(order) = self.orders.recv() => self.obey(order),
                _ = tick.tick() => {}
            }
            let entropy = getrandom::u64().map_err(|error| format!("entropy: {error}"))?;
            for departure in self.step(entropy) {
                // A full queue is a lost datagram.
                let _ = network.outbound.try_send(departure);
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn obey(&mut self, order: Order) {
        let now_ms = self.now_ms();
        match order {
            Order::Choose { node, transport, done } => {
                let chosen = self.membership.choose(now_ms, node, transport);
                // Whoever asked may have gone; what is chosen is chosen.
                let _ = done.send(chosen);
            }
            Order::Leave { done } => {
                self.membership.leave(now_ms);
                self.goodbye = Some(Goodbye { left: GOODBYES, done });
            }
            Order::Power { action, done } => {
                let _ = done.send((self.surroundings.power)(action));
            }
        }
    }

    fn receive(&mut self, datagram: &Datagram) {
        let now_ms = self.now_ms();
        let Datagram { interface, source, bytes } = datagram;
        if admission::is_application(bytes) {
            self.hear_applicant(now_ms, *interface, bytes);
            return;
        }
        // Of a member to an applicant, and none of this node's business.
        if admission::is_answer(bytes) {
            return;
        }
        if Message::is_one(bytes) {
            match Message::open(bytes, &self.key) {
                Ok(message) => {
                    self.membership.receive_message(now_ms, *interface, *source, message);
                }
                Err(why) => self.reject(now_ms, datagram, Rejected { mac: None, why }),
            }
            return;
        }
        match Beacon::open(bytes, &self.settings.cluster, &self.key) {
            Ok(beacon) => match beacon.check_protection(self.segment.is_some()) {
                Ok(()) => {
                    let path =
                        Path { interface: *interface, mac: beacon.link_mac, address: *source };
                    self.membership.receive(now_ms, path, beacon);
                }
                Err(rejected) => self.reject(now_ms, datagram, rejected),
            },
            Err(rejected) => self.reject(now_ms, datagram, rejected),
        }
    }

    /// Answers a machine that wants to be let in, if this node leads.
    fn hear_applicant(&mut self, now_ms: u64, interface: u32, bytes: &[u8]) {
        let (Some(token), Some(outbound)) = (&self.settings.token, &self.outbound) else { return };
        if !self.access.is_doorkeeper() {
            return;
        }
        let access = self.access.clone();
        let known = |id: &str, machine| access.token(id, machine);
        match self.desk.hear(now_ms, &self.settings.cluster, bytes, known) {
            Verdict::Ignore => {}
            // A full queue is a lost answer; it asks again.
            Verdict::Refuse(answer) => {
                drop(outbound.try_send(Departure::to_all(interface, answer)));
            }
            Verdict::Admit(admission) => {
                let (machine, id) = (admission.machine, admission.id.clone());
                if self.told.admits(now_ms, format!("{machine} {id}")) {
                    println!("machine {machine} is let in with join token {id}");
                }
                let (token, outbound) = (token.clone(), outbound.clone());
                tokio::spawn(async move {
                    if let Some(answer) = access.admit(admission, &token).await {
                        let _ = outbound.try_send(Departure::to_all(interface, answer));
                    }
                });
            }
        }
    }

    fn reject(&mut self, now_ms: u64, datagram: &Datagram, rejected: Rejected) {
        let name = report::interface_name(&self.settings, datagram.interface);
        if let Some(line) = self.rejects.record(now_ms, datagram.source, name, rejected) {
            println!("{line}");
            let seen = self.sightings.stranger(now_ms, &line);
            seen.into_iter().for_each(|seen| self.agreement.journal().record(seen));
        }
    }

    /// Lets time pass; gives back what to send.
    fn step(&mut self, entropy: u64) -> Vec<Departure> {
        let now_ms = self.now_ms();
        let mut departures = Vec::new();
        if self.membership.tick(now_ms, entropy) && self.settings.token.is_some() {
            for interface in &self.settings.interfaces {
                let beacon = self.membership.beacon(now_ms, interface.mac);
                departures.push(Departure::to_all(interface.index, beacon.seal(&self.key)));
            }
        }
        if !departures.is_empty() || self.settings.token.is_none() {
            self.say_goodbye(now_ms);
        }
        let events = self.membership.take_events();
        if !events.is_empty() || now_ms >= self.look_ms {
            self.look_ms = now_ms + LOOK_MS;
            events.iter().for_each(|event| self.tell(now_ms, event));
            self.look(now_ms);
        }
        for (targets, message) in self.membership.take_messages(now_ms) {
            let bytes = message.seal(&self.key);
            let to = |(interface, address)| {
                let to = Some(address);
                Departure { interface, to, bytes: bytes.clone() }
            };
            departures.extend(targets.into_iter().map(to));
        }
        departures
    }

    /// Counts what was said, and has it said again.
    fn say_goodbye(&mut self, now_ms: u64) {
        let Some(Goodbye { left, done }) = self.goodbye.take() else { return };
        match left.checked_sub(1) {
            None | Some(0) => drop(done.send(())),
            Some(left) => {
                self.membership.leave(now_ms);
                self.goodbye = Some(Goodbye { left, done });
            }
        }
    }

    fn tell(&mut self, now_ms: u64, event: &Event) {
        if !event.is_warning() {
            println!("{event}");
            return;
        }
        let text = event.to_string();
        // A node may go down twice in a minute, which is worth two lines; what comes with every
        // beacon is not.
        let repeats = matches!(event, Event::TwoClusters { .. } | Event::SameIdentity { .. });
        if !repeats || self.told.admits(now_ms, text.clone()) {
            println!("warning: {text}");
        }
    }

    /// Brings kernel, announcement and status up to date with the membership.
    fn look(&mut self, now_ms: u64) {
        for interface in &self.settings.interfaces {
            if !self.end.link_locals.contains_key(&interface.index) {
                if let Some(address) = (self.surroundings.link_local)(interface.index) {
                    self.end.link_locals.insert(interface.index, address);
                }
            }
        }
        let own = |interface: &Interface| OwnInterface {
            index: interface.index,
            mac: interface.mac,
            address: self.end.link_locals.get(&interface.index).copied(),
        };
        let interfaces = self.settings.interfaces.iter().map(own).collect();
        self.membership.tell_interfaces(now_ms, interfaces);
        if let Some(removals) = self.agreement.removals() {
            self.membership.remove(now_ms, removals);
        }
        let mut view = self.membership.view(now_ms);
        self.protect(now_ms, &view);
        self.agreement.look(&view, || self.membership.founders(), &self.end);
        self.open_kernel(now_ms);
        self.reconcile(now_ms, &view);
        self.tell_links(&view);
        let seat = match view.standing {
            Standing::Member { seat, .. } => Some(seat),
            Standing::Discovering { .. } => None,
        };
        let missing = self.missing(&view);
        // A node that has been ready stays so while others come and go.
        let ready = seat.is_some() && (missing.is_none() || self.was_ready == seat);
        if ready && self.was_ready != seat {
            println!("node {} is ready", seat.map_or(0, |seat| seat.id));
            self.was_ready = seat;
        }
        let echo = self.kernel.echo.as_ref().and_then(Echo::endpoint).unwrap_or(0);
        let announcement = Announcement { ready, echo };
        self.membership.announce(now_ms, announcement);
        for member in view.members.iter_mut().filter(|member| member.local) {
            member.ready = ready;
        }
        self.publish(now_ms, &view, missing.unwrap_or_default(), echo);
    }

    /// Brings the keys up to date.
    fn protect(&mut self, now_ms: u64, view: &View) {
        let Some(segment) = &mut self.segment else { return };
        for line in segment.look(now_ms, view) {
            println!("{line}");
            let seen = Sightings::segment(&line);
            seen.into_iter().for_each(|seen| self.agreement.journal().record(seen));
        }
        let (announced, held) = (Some(segment.announced()), segment.held(view));
        self.membership.tell_keys(now_ms, Keys { announced, held });
    }

    fn open_kernel(&mut self, now_ms: u64) {
        let kernel = &mut self.kernel;
        if kernel.open.is_some() || now_ms < kernel.retry_ms {
            return;
        }
        match (self.surroundings.open_kernel)() {
            Ok(open) => {
                kernel.open = Some(open);
                kernel.trouble.clear();
            }
            Err(error) => {
                if kernel.trouble != error {
                    println!("error: {error}");
                }
                kernel.trouble = error;
                kernel.retry_ms = now_ms + RETRY_MS;
            }
        }
    }

    fn reconcile(&mut self, now_ms: u64, view: &View) {
        let network = self.tipc_network(view);
        let links = &mut self.surroundings.links;
        let KernelState { open, tables, echo, trouble, retry_ms, complete } = &mut self.kernel;
        let Some(kernel) = open else { return };
        let segment = &self.segment;
        let desired = Desired::of(view, &self.end, |member, route| match segment {
            Some(segment) => segment.route(member, route),
            None => Some(route),
        });
        for (node, report) in links.reports() {
            tables.seen(*node, report.transport());
        }
        let plan = tables.plan(desired.as_ref());
        // How links are is looked at one by one.
        let attaches = |call: &Call| matches!(call, Call::LinkAttach { .. });
        *complete = plan.calls.iter().all(attaches) && plan.impossible.is_empty();
        if now_ms < *retry_ms {
            links.look(now_ms, &**kernel, tables, network.as_ref(), desired.as_ref());
            return;
        }
        let mut failed = plan.impossible.into_iter().next();
        for call in &plan.calls {
            match links.call(now_ms, &**kernel, network.as_ref(), call) {
                Ok(true) => tables.done(call),
                Ok(false) => {}
                Err(error) => {
                    // What follows may need this one; all that is left is planned again.
                    failed = Some(error);
                    *retry_ms = now_ms + RETRY_MS;
                    break;
                }
            }
        }
        links.look(now_ms, &**kernel, tables, network.as_ref(), desired.as_ref());
        if echo.as_ref().is_some_and(|echo| echo.endpoint().is_none()) || !tables.is_usable() {
            *echo = None;
        }
        if echo.is_none() && tables.is_usable() && failed.is_none() {
            match Echo::start(&**kernel) {
                Ok(started) => *echo = Some(started),
                Err(error) => {
                    failed = Some(format!("start the echo server: {error}"));
                    *retry_ms = now_ms + RETRY_MS;
                }
            }
        }
        let failed = failed.unwrap_or_default();
        if *trouble != failed {
            if !failed.is_empty() {
                println!("error: {failed}");
            }
            *trouble = failed;
        }
    }

    /// The TIPC network that this node is to be part of when a link wants one.
    fn tipc_network(&self, view: &View) -> Option<TipcNetwork> {
        let Standing::Member { cluster, .. } = view.standing else { return None };
        let machine = view.members.iter().find(|member| member.local)?.mac;
        let plain = || self.settings.interfaces.iter().map(|interface| interface.name.clone());
        let names = self.segment.as_ref().map_or_else(|| plain().collect(), Segment::devices);
        Some(TipcNetwork::of(cluster, machine, &names))
    }

    fn tell_links(&mut self, view: &View) {
        let Standing::Member { seat, .. } = view.standing else { return };
        let links = self.surroundings.links.reports().iter().map(|(node, link)| {
            let over = link.transport().map_or("nothing", Transport::as_str);
            (*node, link.info.state == LINK_UP, over)
        });
        for seen in self.sightings.links(seat.id, links) {
            self.agreement.journal().record(seen);
        }
    }

    /// What this node still lacks to exchange messages with every live member.
    fn missing(&self, view: &View) -> Option<String> {
        let kernel = &self.kernel;
        if !kernel.trouble.is_empty() {
            return Some(kernel.trouble.clone());
        }
        if matches!(view.standing, Standing::Member { .. }) && !view.whole {
            return Some("asking who the members are".to_owned());
        }
        for member in view.members.iter().filter(|member| !member.local) {
            let (id, name) = (member.seat.id, &member.name);
            match member.liveness {
                Liveness::Down => continue,
                Liveness::Expected => return Some(format!("waiting to hear {name}")),
                Liveness::Alive => {}
            }
            let trouble = self.segment.as_ref().map(Segment::trouble);
            if let Some(trouble) = trouble.filter(|trouble| !trouble.is_empty()) {
                return Some(trouble.to_owned());
            }
            let links = &self.surroundings.links;
            let state = links.reports().get(&id).map(|link| link.info.state);
            if state != Some(LINK_UP) {
                let why = links.trouble(id).map(|why| format!(": {why}")).unwrap_or_default();
                return Some(format!("waiting for the link to {name}{why}"));
            }
            if kernel.tables.echo_of(id).is_none() {
                return Some(format!("waiting for the echo server of {name}"));
            }
        }
        let echo = kernel.echo.as_ref().and_then(Echo::endpoint);
        let complete = kernel.complete && kernel.tables.is_usable() && echo.is_some();
        (!complete).then(|| "programming the kernel".to_owned())
    }

    /// Says so if everybody who is heard has another cluster token than this node.
    fn suspicion(&mut self, now_ms: u64, view: &View) -> Option<String> {
        if !matches!(view.standing, Standing::Discovering { heard: false, .. }) {
            return None;
        }
        let (why, count) = self.rejects.suspects(now_ms)?;
        let (nodes, their) = match count {
            1 => ("1 node is".into(), "its"),
            n => (format!("{n} nodes are"), "their"),
        };
        let (what, remedy) = match why {
            Rejection::Insecure => (
                "are not encrypted, as this node's are",
                "give all nodes the same cluster.insecure",
            ),
            Rejection::Secure => (
                "are encrypted, and this node's are not (cluster.insecure)",
                "give all nodes the same cluster.insecure",
            ),
            _ => (
                "don't match this node's cluster token",
                "set cluster.token to theirs, or cluster.name to another",
            ),
        };
        let text = format!("{nodes} heard, but {their} messages {what}");
        if self.told.admits(now_ms, "suspicion".into()) {
            println!("error: {text}; {remedy}");
        }
        Some(text)
    }

    fn publish(&mut self, now_ms: u64, view: &View, missing: String, echo: u64) {
        let suspicion = self.suspicion(now_ms, view);
        let kernel = &self.kernel;
        let links = &self.surroundings.links;
        let addresses = report::own_addresses(&self.settings, &self.end.link_locals);
        let segment = self.segment.as_ref();
        let nodes = report::nodes(now_ms, view, &self.settings, &addresses, links, segment);
        let (state, detail) = match &view.standing {
            _ if kernel.open.is_none() && !kernel.trouble.is_empty() => {
                (StatusState::Failed, kernel.trouble.clone())
            }
            Standing::Discovering { detail, .. } => {
                (StatusState::Discovering, suspicion.unwrap_or_else(|| detail.clone()))
            }
            Standing::Member { seat, .. } if self.was_ready == Some(*seat) => {
                (StatusState::Ready, missing)
            }
            Standing::Member { .. } => (StatusState::Joining, missing),
        };
        let own = nodes.iter().find(|node| node.local);
        let status = Status {
            node: own.map(|node| node.id),
            name: match own {
                Some(node) => Some(node.name.clone()),
                None => Some(self.settings.name.clone()).filter(|name| !name.is_empty()),
            },
            cluster: self.settings.cluster.clone(),
            state,
            detail,
            members: nodes.len() as u32,
            ready: nodes.iter().filter(|node| node.state == NodeState::Ready).count() as u32,
            addresses,
            version: self.settings.release.clone(),
        };
        if let Err(error) = self.surroundings.status.write(&status) {
            if self.told.admits(now_ms, error.clone()) {
                println!("error: {error}");
            }
        }
        let links = self.surroundings.links.reports();
        let up = links.iter().filter(|(_, link)| link.info.state == LINK_UP);
        let remote =
            up.filter_map(|(node, _)| Some((u32::from(*node), kernel.tables.echo_of(*node)?)));
        let own = own.map(|node| (node.id, echo)).filter(|(_, echo)| *echo != 0);
        let echoes = remote.chain(own).collect();
        let snapshot = Snapshot {
            status,
            nodes,
            echoes,
            kernel: kernel.open.clone(),
            programmed: kernel.tables.own().filter(|_| kernel.tables.is_usable()),
            underlays: self.underlays(),
            segment: segment.map(|segment| segment.report(now_ms)).unwrap_or_default(),
            wish: segment.map(Segment::wish),
        };
        self.publish.send_replace(Arc::new(snapshot));
    }

    fn underlays(&self) -> Vec<Underlay> {
        let of = |interface: &Interface| {
            let address = *self.end.link_locals.get(&interface.index)?;
            let link = match &self.segment {
                Some(segment) => segment.over(interface.index)?,
                None => &interface.name,
            };
            Some(Underlay { index: interface.index, link: link.to_owned(), address })
        };
        self.settings.interfaces.iter().filter_map(of).collect()
    }
}
