// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtual cluster owned by this process.
//!
//! One thread, the *owner*, starts and ends all QEMUs and carries out all requests, from this process and from others. It lives
//! as long as the cluster, which matters: Linux kills a launcher's child when the *thread* that started it ends.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::access;
use crate::boot::{empty_disk, prepare_disk, Boot};
use crate::console::ConsoleReader;
use crate::control::{ask, serve, Answer, Call, NodeStatus, Request, Status};
use crate::error::{Error, Result};
use crate::front::{check_free, Front, Publish};
use crate::links::Links;
use crate::node::{describe, Node};
use crate::options::{random_token, NodeFiles, Options};
use crate::qmp::Qmp;
use crate::readiness::{wait_ready, Progress};
use crate::run_directory::{claim, root, Claim, Description, NodeDescription};
use crate::switch::{Switch, SwitchHandle};

/// How often QEMUs that ended by themselves are noticed.
const TICK: Duration = Duration::from_millis(100);
/// Where host ports are looked for: below the range that Linux uses for outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A running cluster. It ends when this is dropped, or when somebody tells it to stop.
#[derive(Debug)]
pub struct Cluster {
    description: Description,
    run: PathBuf,
    switch: SwitchHandle,
    consoles: Vec<ConsoleReader>,
    calls: Sender<Call>,
    owner: Option<JoinHandle<()>>,
}

impl Cluster {
    /// Starts all nodes; returns once every QEMU runs, which is long before the nodes are ready.
    pub fn start(options: Options) -> Result<Cluster> {
        options.check()?;
        require_program(&options.qemu)?;
        check_free(&options.publish)?;
        let firmware = options.firmware.iter().flat_map(|f| [&*f.code, &*f.variables]);
        let direct = [&*options.kernel, &*options.initramfs];
        for image in direct.into_iter().chain(options.boot.image()).chain(firmware) {
            fs::metadata(image).map_err(Error::file("reading", image))?;
        }
        let claim = claim(&root(), options.name.as_deref())?;
        let run = claim.path.clone();
        let (calls, receiver) = channel();
        let (started, result) = channel();
        let control = calls.clone();
        let owner = std::thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || match Owner::start(claim, &options) {
                Ok(mut owner) => {
                    let consoles =
                        owner.nodes.iter().map(|node| node.console().reader().clone()).collect();
                    let parts =
                        (owner.description.clone(), owner.switch.handle().clone(), consoles);
                    // Answering on the socket is what makes the cluster count as running.
                    let serving = serve(&owner.claim.control(), control);
                    let failed = serving.is_err();
                    let _ = started.send(serving.map(|()| parts));
                    if !failed {
                        owner.run(&receiver);
                    }
                }
                Err(error) => drop(started.send(Err(error))),
            })
            .map_err(Error::system("starting the cluster's thread"))?;
        let ended = || Err(Error::Invalid("the cluster's thread ended unexpectedly".to_owned()));
        match result.recv().unwrap_or_else(|_| ended()) {
            Ok((description, switch, consoles)) => {
                Ok(Cluster { description, run, switch, consoles, calls, owner: Some(owner) })
            }
            Err(error) => {
                let _ = owner.join();
                Err(error)
            }
        }
    }

    /// What doesn't change while the cluster runs.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The run directory.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.description.nodes.len()
    }

    /// Whether it has no nodes, which it always has.
    pub fn is_empty(&self) -> bool {
        self.description.nodes.is_empty()
    }

    /// To act on node `number`.
    pub fn node(&self, number: usize) -> NodeHandle<'_> {
        NodeHandle { cluster: self, number }
    }

    /// The URL of node `number`'s API.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn api(&self, number: usize) -> &str {
        &self.description.nodes[number].api
    }

    /// What node `number` says.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn console(&self, number: usize) -> &ConsoleReader {
        &self.consoles[number]
    }

    /// To change links and faults.
    pub fn switch(&self) -> &SwitchHandle {
        &self.switch
    }

    /// How many instructions node `number` has executed since its power came on, if its [accelerator](Options::accelerator) counts.
    pub fn executed(&self, number: usize) -> Result<u64> {
        Qmp::connect(&self.qmp(number))?.executed()
    }

    /// The socket at which the QEMU of node `number` takes commands; one connection at a time.
    pub fn qmp(&self, number: usize) -> PathBuf {
        NodeFiles::new(&self.run, number).qmp
    }

    /// The disk of node `number`, if the nodes [boot](Options::boot) from disks or have [some besides](Options::spare_disks).
    pub fn disk(&self, number: usize) -> PathBuf {
        NodeFiles::new(&self.run, number).disk
    }

    /// Carries out a request.
    pub fn act(&self, request: Request) -> Result<()> {
        match ask(&self.calls, request) {
            Answer::Error(reason) => Err(Error::Refused(reason)),
            _ => Ok(()),
        }
    }

    /// How things are.
    pub fn status(&self) -> Result<Status> {
        match ask(&self.calls, Request::Status) {
            Answer::Status(status) => Ok(*status),
            other => Err(Error::Refused(format!("unexpected answer {other:?}"))),
        }
    }

    /// Whether the cluster has been told to stop, by whomever.
    pub fn has_ended(&self) -> bool {
        self.owner.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until every node sees every node as ready.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.wait_ready_with(timeout, |_| true)
    }

    /// The same, telling about progress; gives up when `progress` says false.
    pub fn wait_ready_with(
        &self,
        timeout: Duration,
        progress: impl FnMut(&[Progress]) -> bool,
    ) -> Result<()> {
        wait_ready(&access::clients(&self.run, &self.description)?, timeout, progress)
    }

    /// Waits until the cluster has been told to stop.
    pub fn wait_end(mut self) {
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            ask(&self.calls, Request::Stop);
            let _ = owner.join();
        }
    }
}

/// Acts on one node.
#[derive(Clone, Copy, Debug)]
pub struct NodeHandle<'a> {
    cluster: &'a Cluster,
    number: usize,
}

impl NodeHandle<'_> {
    /// Cuts its power.
    pub fn kill(&self) -> Result<()> {
        self.cluster.act(Request::Kill { node: self.number })
    }

    /// Gives it power; returns once QEMU runs.
    pub fn start(&self) -> Result<()> {
        self.cluster.act(Request::Start { node: self.number })
    }

    /// Stops its processors.
    pub fn pause(&self) -> Result<()> {
        self.cluster.act(Request::Pause { node: self.number })
    }

    /// Lets them run on.
    pub fn resume(&self) -> Result<()> {
        self.cluster.act(Request::Resume { node: self.number })
    }

    /// Plugs in (`up`) or pulls the cable of its interface on a segment, or of all.
    pub fn set_carrier(&self, segment: Option<usize>, up: bool) -> Result<()> {
        self.cluster.act(Request::Carrier { node: self.number, segment, up })
    }
}

/// Free TCP ports of the host's loopback interface. Somebody else may take one before it is used; QEMU then says so.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let attempt = "looking for free ports on 127.0.0.1";
    let mut start = [0; 2];
    getrandom::fill(&mut start).map_err(Error::system(attempt))?;
    let span = PORTS.end - PORTS.start;
    let start = u16::from_ne_bytes(start) % span;
    let candidates = (0..span).map(|n| PORTS.start + (start + n) % span);
    let free = candidates.filter(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    let ports: Vec<_> = free.take(count).collect();
    if ports.len() < count {
        let source = std::io::ErrorKind::AddrInUse.into();
        return Err(Error::System { attempt, source });
    }
    Ok(ports)
}

/// Makes sure that a program can be found, so that its absence gets a message of its own.
pub fn require_program(program: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = if program.contains('/') {
        Path::new(program).is_file()
    } else {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    if found {
        Ok(())
    } else {
        Err(Error::QemuMissing(program.to_owned()))
    }
}

/// The thread's side. Fields are dropped in this order: guests first, the run directory last.
struct Owner {
    nodes: Vec<Node>,
    switch: Switch,
    description: Description,
    segments: usize,
    /// They serve until they are dropped.
    _fronts: Vec<Front>,
    claim: Claim,
}

impl Owner {
    fn start(claim: Claim, options: &Options) -> Result<Owner> {
        let token = match &options.token {
            Some(token) => token.clone(),
            None => random_token()?,
        };
        let logs = options.logs.as_deref().unwrap_or(&claim.path);
        for directory in [Some(logs), options.pcap.as_deref()].into_iter().flatten() {
            fs::create_dir_all(directory).map_err(Error::file("creating", directory))?;
        }
        let agents = if options.agent { options.nodes } else { 0 };
        let shares = options.publish.len();
        let mut ports = free_ports(options.nodes * (1 + shares) + agents)?;
        let mut agent_ports = ports.split_off(options.nodes * (1 + shares)).into_iter();
        // Of each node, those of one published port after the other.
        let published = ports.split_off(options.nodes);
        let links = Links::new(options.nodes, options.seed, options.faults);
        let published_by = |number: usize| &published[number * shares..(number + 1) * shares];
        let mut nodes = Vec::new();
        let mut descriptions = Vec::new();
        for (number, port) in ports.into_iter().enumerate() {
            let agent_port = agent_ports.next();
            let machine =
                options.machine(number, &claim.path, port, agent_port, published_by(number));
            let files = NodeFiles::new(&claim.path, number);
            let log = logs.join(format!("node{number}.log"));
            let config = options.config(number, &token).to_toml();
            match &options.boot {
                Boot::Disk(image) => prepare_disk(image, &files.disk, &config)?,
                _ => write_private(&files.config, &config)?,
            }
            if options.spare_disks {
                empty_disk(&files.disk)?;
            }
            descriptions.push(NodeDescription {
                mac: machine.cluster.first().map(|nic| nic.mac.to_string()).unwrap_or_default(),
                api: format!("https://127.0.0.1:{port}"),
                agent: agent_port.map(|port| (Ipv4Addr::LOCALHOST, port).into()),
                log: log.clone(),
                pid: None,
            });
            nodes.push(Node::new(number, machine, files, &options.launcher, &log)?);
        }
        // A wire needs no switch.
        let switched = if options.wire { 0 } else { options.segments };
        let sockets = |segment| {
            let of = |number| NodeFiles::new(&claim.path, number).network(segment);
            (0..options.nodes).map(of).collect()
        };
        let networks: Vec<Vec<PathBuf>> = (0..switched).map(sockets).collect();
        let switch =
            Switch::start(&networks, links, options.pcap.as_deref(), options.boot.server()?)?;
        let description = Description {
            name: claim.name.clone(),
            owner: std::process::id(),
            seed: options.seed,
            accelerator: options.accelerator,
            nodes: descriptions,
            published: options.publish.clone(),
        };
        let front = |(share, publish): (usize, &Publish)| {
            let of_nodes = (0..options.nodes).map(|number| published_by(number)[share]);
            Front::start(publish.port, of_nodes.collect())
        };
        let fronts: Result<Vec<_>> = options.publish.iter().enumerate().map(front).collect();
        let fronts = fronts?;
        access::give(&claim.path, options, &token, &description)?;
        let mut owner = Owner {
            nodes,
            switch,
            description,
            segments: options.segments,
            _fronts: fronts,
            claim,
        };
        if options.wire {
            // The other one connects to this one as it starts.
            owner.nodes[0].spawn()?;
            owner.nodes[0].await_start()?;
        }
        // All at once, then wait for each: QEMUs start side by side.
        let first = usize::from(options.wire);
        owner.nodes[first..].iter_mut().try_for_each(Node::spawn)?;
        for number in 0..owner.nodes.len() {
            owner.nodes[number].await_start()?;
            owner.switch.handle().redial(number);
        }
        owner.publish()?;
        Ok(owner)
    }

    fn run(&mut self, calls: &Receiver<Call>) {
        loop {
            match calls.recv_timeout(TICK) {
                Ok((Request::Stop, reply)) => {
                    self.nodes.iter_mut().for_each(Node::kill);
                    let _ = reply.send(Answer::Done);
                    return;
                }
                Ok((request, reply)) => {
                    let answer = self.carry_out(request);
                    let _ = reply.send(answer.unwrap_or_else(|e| Answer::Error(e.to_string())));
                }
                Err(RecvTimeoutError::Timeout) => self.notice_ended(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn notice_ended(&mut self) {
        let mut any = false;
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = node.reap() {
                any = true;
                // A guest that powers itself off ends QEMU in order.
                if !status.success() {
                    let how = describe(status);
                    eprintln!("warning: the QEMU of node{number} ended by itself ({how})");
                }
            }
        }
        if any {
            self.publish_or_warn();
        }
    }

    fn carry_out(&mut self, request: Request) -> Result<Answer> {
        match request {
            Request::Kill { node } => {
                self.node(node)?.kill();
                self.publish_or_warn();
            }
            Request::Start { node } => {
                self.node(node)?.spawn()?;
                let started = self.node(node)?.await_start();
                self.publish_or_warn();
                started?;
                self.switch.handle().redial(node);
            }
            Request::Pause { node } => self.node(node)?.pause()?,
            Request::Resume { node } => self.node(node)?.resume()?,
            Request::Carrier { node, segment, up } => {
                let segments = self.segments;
                if let Some(segment) = segment.filter(|&segment| segment >= segments) {
                    return Err(Error::Invalid(format!(
                        "there is no segment {segment}: the cluster has {segments}, counted from 0"
                    )));
                }
                self.node(node)?.set_carrier(segment, up)?;
            }
            Request::Cut { links } => {
                self.check(links.highest())?;
                self.switch.handle().cut(links);
            }
            Request::Heal { links } => {
                self.check(links.highest())?;
                self.switch.handle().heal(links);
            }
            Request::Partition { groups } => {
                self.check(groups.iter().flatten().max().copied())?;
                self.switch.handle().partition(groups);
            }
            Request::SetFaults { links, faults } => {
                self.check(links.highest())?;
                self.switch.handle().set_faults(links, faults);
            }
            Request::Status => return Ok(Answer::Status(Box::new(self.status()))),
            Request::Stop => {}
        }
        Ok(Answer::Done)
    }

    fn status(&mut self) -> Status {
        self.notice_ended();
        let nodes = self.nodes.iter();
        let nodes =
            nodes.map(|n| NodeStatus { power: n.power(), carrier: n.carrier().to_vec() }).collect();
        let switch = self.switch.handle().report();
        Status { cluster: self.description.clone(), nodes, switch }
    }

    fn check(&self, highest_named: Option<usize>) -> Result<()> {
        let highest = self.nodes.len() - 1;
        match highest_named {
            Some(node) if node > highest => Err(Error::NoSuchNode { node, highest }),
            _ => Ok(()),
        }
    }

    fn node(&mut self, number: usize) -> Result<&mut Node> {
        self.check(Some(number))?;
        Ok(&mut self.nodes[number])
    }

    fn publish(&mut self) -> Result<()> {
        for (description, node) in self.description.nodes.iter_mut().zip(&self.nodes) {
            description.pid = node.pid();
        }
        self.claim.publish(&self.description)
    }

    /// What has been done stays done even if it can't be published.
    fn publish_or_warn(&mut self) {
        if let Err(error) = self.publish() {
            eprintln!("warning: {error}");
        }
    }
}

/// Writes a file that holds a secret.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(Error::file("writing", path))
}
