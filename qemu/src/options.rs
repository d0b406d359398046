// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a virtual cluster is made of, and the machines and machine configurations that follow from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dvs_config::{Config, InterfaceSelector, JoinToken, Management, Name, Run, Token};
use dvs_image::{unasked, watchdog};
use serde::{Deserialize, Serialize};

use crate::accel::Accelerator;
use crate::boot::{Boot, Firmware};
use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::front::Publish;
use crate::machine::{
    cluster_mac, management_mac, ClusterInterface, Machine, ManagementInterface, Medium, Memory,
    QEMU, SEGMENTS_MAX,
};

/// Most nodes of one virtual cluster.
pub const NODES_MAX: usize = 256;
/// What every guest gets on its kernel command line; a panic reboots it after a second.
///
/// A busy host may give a guest no time while it looks at boot whether the timer ticks, which Linux would take for broken hardware
/// and panic. What is added for the [watchdogs](watchdog) and against [devices](unasked) is what images have: the
/// clock of a guest stands still while it is paused, so that a pause is no hang.
const APPEND: &str = "console=ttyS0 quiet panic=1 no_timer_check";
/// What a guest gets as well whose runs are to be the same.
const APPEND_COUNTING: &str = "nokaslr norandmaps random.trust_cpu=0";
/// What slirp, QEMU's user-mode network, gives its one guest.
const MANAGEMENT_ADDRESS: &str = "10.0.2.15/24";

/// A virtual cluster to be started. Serialised when a detached process is to own it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Name of its run directory; chosen if `None`.
    pub name: Option<String>,
    /// How many nodes.
    pub nodes: usize,
    /// Kernel: a bzImage, or a vmlinux built with `CONFIG_PVH`.
    pub kernel: PathBuf,
    /// Initial RAM file system.
    pub initramfs: PathBuf,
    /// What the nodes boot from; kernel and initial RAM file system are for [`Boot::Direct`].
    pub boot: Boot,
    /// UEFI firmware of the nodes; a BIOS if `None`.
    pub firmware: Option<Firmware>,
    /// Each node has an empty disk besides, which it boots from once it can. Only nodes that boot from something else have one.
    pub spare_disks: bool,
    /// The QEMU program.
    pub qemu: String,
    /// What runs the guests' instructions.
    pub accelerator: Accelerator,
    /// RAM of each node.
    pub memory: Memory,
    /// Virtual processors of each node.
    pub cpus: u32,
    /// How many segments there are. Each node has an interface on each.
    pub segments: usize,
    /// Two nodes have a wire between them in place of the switch: as fast as QEMU can, but without faults, cuts and captures,
    /// and for as long as node 0 has power.
    pub wire: bool,
    /// Faults of all links.
    pub faults: Faults,
    /// Decides which frames the faults hit.
    pub seed: u64,
    /// Directory for captures, one per node.
    pub pcap: Option<PathBuf>,
    /// Directory for console logs; the run directory, which goes with the cluster, if `None`.
    pub logs: Option<PathBuf>,
    /// Join token; random if `None`.
    pub token: Option<Token>,
    /// Nodes that have one of these instead of the cluster's token, by number. They join, and form no cluster.
    pub join_tokens: BTreeMap<usize, JoinToken>,
    /// Messages between the nodes go in the clear, so that captures can be read.
    pub insecure: bool,
    /// How many nodes wait for each other; all if `None`.
    pub bootstrap_expect: Option<u32>,
    /// More kernel arguments for all nodes; `dvs.…` ones overrule the machine configuration.
    pub append: Vec<String>,
    /// More kernel arguments for single nodes.
    pub append_to: BTreeMap<usize, Vec<String>>,
    /// One command for every node to run instead of its services.
    pub run: Option<Run>,
    /// Every node runs `dvs-agent` beside its services, so that the host can run programs on it. The initial RAM file system
    /// must be one with the overlay for tests.
    pub agent: bool,
    /// Ports of the host that lead to the nodes.
    #[serde(default)]
    pub publish: Vec<Publish>,
    /// Command that is put in front of QEMU's to tie its life to ours, with `{parent}` standing for our
    /// process id (see [`crate::launch`]). Empty: QEMU is started as it is, and outlives us if we are killed.
    pub launcher: Vec<String>,
}

impl Options {
    /// One node, no faults, translated instructions.
    pub fn new(kernel: impl Into<PathBuf>, initramfs: impl Into<PathBuf>) -> Options {
        Options {
            name: None,
            nodes: 1,
            kernel: kernel.into(),
            initramfs: initramfs.into(),
            boot: Boot::Direct,
            firmware: None,
            spare_disks: false,
            qemu: QEMU.to_owned(),
            accelerator: Accelerator::Tcg,
            memory: Memory::default(),
            cpus: 1,
            segments: 1,
            wire: false,
            faults: Faults::default(),
            seed: 0,
            pcap: None,
            logs: None,
            token: None,
            join_tokens: BTreeMap::new(),
            insecure: false,
            bootstrap_expect: None,
            append: Vec::new(),
            append_to: BTreeMap::new(),
            run: None,
            agent: false,
            publish: Vec::new(),
            launcher: Vec::new(),
        }
    }

    /// Refuses what can't be run.
    pub fn check(&self) -> Result<()> {
        if !(1..=NODES_MAX).contains(&self.nodes) {
            let nodes = self.nodes;
            return Err(Error::Invalid(format!(
                "{nodes} nodes cannot be run on one host; choose 1 to {NODES_MAX}"
            )));
        }
        if !(1..=255).contains(&self.cpus) {
            let cpus = self.cpus;
            return Err(Error::Invalid(format!("{cpus} processors per node; choose 1 to 255")));
        }
        let counts = matches!(self.accelerator, Accelerator::Counting | Accelerator::Metering);
        if counts && self.cpus > 1 {
            let cpus = self.cpus;
            let why = "instructions are counted on one processor only";
            return Err(Error::Invalid(format!("{cpus} processors per node: {why}")));
        }
        if !(1..=SEGMENTS_MAX).contains(&self.segments) {
            let segments = self.segments;
            return Err(Error::Invalid(format!("{segments} segments; choose 1 to {SEGMENTS_MAX}")));
        }
        if self.wire && self.segments != 1 {
            return Err(Error::Invalid("a wire is one segment".to_owned()));
        }
        if self.wire && (self.nodes != 2 || !self.faults.is_none() || self.pcap.is_some()) {
            return Err(Error::Invalid(
                "a wire is between two nodes, and has neither faults nor captures".to_owned(),
            ));
        }
        if let Some(&node) = self.append_to.keys().find(|&&node| node >= self.nodes) {
            return Err(Error::NoSuchNode { node, highest: self.nodes - 1 });
        }
        if self.wire && matches!(self.boot, Boot::Network(_) | Boot::Seed(_)) {
            return Err(Error::Invalid(
                "there is no boot server on a wire: nodes boot over a segment".to_owned(),
            ));
        }
        let appends = !self.append.is_empty() || !self.append_to.is_empty();
        if appends && self.boot != Boot::Direct {
            return Err(Error::Invalid(
                "kernel arguments are part of an image: only nodes that QEMU boots directly take others"
                    .to_owned(),
            ));
        }
        if self.spare_disks && matches!(self.boot, Boot::Disk(_)) {
            return Err(Error::Invalid("nodes that boot from disks have no others".to_owned()));
        }
        if self.agent && self.run.is_some() {
            return Err(Error::Invalid(
                "a node runs one command: either the agent or another".to_owned(),
            ));
        }
        let mut ports: Vec<_> = self.publish.iter().map(|publish| publish.port).collect();
        ports.sort_unstable();
        if let Some(pair) = ports.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Invalid(format!("port {} of the host is published twice", pair[0])));
        }
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        Ok(())
    }

    /// The machine configuration of node `number`.
    pub(crate) fn config(&self, number: usize, token: &Token) -> Config {
        let mut config = Config::default();
        config.cluster.token = Some(token.clone());
        config.cluster.insecure = self.insecure;
        config.cluster.bootstrap_expect = self.bootstrap_expect.unwrap_or(self.nodes as u32);
        if let Some(join_token) = self.join_tokens.get(&number) {
            let cluster = &mut config.cluster;
            (cluster.token, cluster.join_token) = (None, Some(join_token.clone()));
            cluster.bootstrap_expect = 1;
        }
        let macs = (0..self.segments).map(|segment| cluster_mac(number, segment));
        config.network.cluster = macs.map(InterfaceSelector::Mac).collect();
        config.network.management = MANAGEMENT_ADDRESS.parse().ok().map(|address| Management {
            interface: InterfaceSelector::Mac(management_mac(number)),
            address,
            gateway: None,
        });
        config.netboot = self.boot.netboot(number, cluster_mac(number, 0));
        config.run = self.run.clone().or_else(|| self.agent.then(agent));
        config
    }

    /// Node `number` as a machine, with its sockets in the directory `run` and its API, its agent if it has one, and its
    /// [published](Self::publish) ports, in their order, on these ports of the host.
    pub fn machine(
        &self,
        number: usize,
        run: &Path,
        port: u16,
        agent_port: Option<u16>,
        published: &[u16],
    ) -> Machine {
        let guests = self.publish.iter().map(|publish| publish.guest);
        let forwarded = published.iter().copied().zip(guests).collect();
        let files = NodeFiles::new(run, number);
        let medium = match &self.boot {
            Boot::Direct => Medium::Memory {
                kernel: self.kernel.clone(),
                initramfs: self.initramfs.clone(),
                append: self.kernel_arguments(number),
            },
            Boot::Cd(image) => Medium::Cd(image.clone()),
            Boot::Disk(_) => Medium::Disk(files.disk.clone()),
            Boot::Seed(image) if number == 0 => Medium::Cd(image.clone()),
            Boot::Network(_) | Boot::Seed(_) => Medium::Network,
        };
        let connects = self.wire && number > 0;
        Machine {
            qemu: self.qemu.clone().into(),
            name: format!("dvs-node{number}"),
            accelerator: self.accelerator,
            memory: self.memory,
            cpus: self.cpus,
            medium,
            firmware: self.firmware.clone(),
            spare: self.spare_disks.then(|| files.disk.clone()),
            console: files.console.clone(),
            qmp: files.qmp.clone(),
            cluster: (0..self.segments)
                .map(|segment| ClusterInterface {
                    socket: if connects { NodeFiles::new(run, 0) } else { files.clone() }
                        .network(segment),
                    connects,
                    mac: cluster_mac(number, segment),
                })
                .collect(),
            management: Some(ManagementInterface {
                port,
                agent_port,
                forwarded,
                mac: management_mac(number),
            }),
            config: (!matches!(self.boot, Boot::Disk(_))).then(|| files.config.clone()),
            reboot: true,
        }
    }

    fn kernel_arguments(&self, number: usize) -> String {
        let mut append = vec![APPEND.to_owned(), unasked::ARGUMENTS.to_owned()];
        append.push(watchdog::arguments(watchdog::START_S));
        if self.accelerator == Accelerator::Counting {
            append.push(APPEND_COUNTING.to_owned());
        }
        append.extend(self.append.iter().cloned());
        append.extend(self.append_to.get(&number).into_iter().flatten().cloned());
        append.join(" ")
    }
}

/// What PID 1 is told to run for [`Options::agent`].
fn agent() -> Run {
    let command = vec!["/usr/libexec/dvs/dvs-agent".to_owned()];
    Run { command, power: dvs_config::Power::Off, services: true }
}

/// A name must do as the name of a directory with short sockets in it.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let valid: std::result::Result<Name, _> = name.parse();
    valid.map(drop).map_err(|error| Error::Invalid(format!("cluster name: {error}")))
}

/// 128 random bits, as the token that lets the nodes of one run join.
pub(crate) fn random_token() -> Result<Token> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Error::system("drawing a random cluster token"))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.parse().map_err(|error| Error::Invalid(format!("cluster token: {error}")))
}

/// Where the files of one node are in the run directory.
#[derive(Clone, Debug)]
pub(crate) struct NodeFiles {
    /// QEMU listens here for the owner of the console…
    pub(crate) console: PathBuf,
    /// …who listens here for viewers.
    pub(crate) view: PathBuf,
    pub(crate) qmp: PathBuf,
    /// See [`network`](Self::network).
    network: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) disk: PathBuf,
    /// What QEMU says itself.
    pub(crate) messages: PathBuf,
}

impl NodeFiles {
    pub(crate) fn new(run: &Path, number: usize) -> Self {
        let file = |kind: &str| run.join(format!("n{number}.{kind}"));
        NodeFiles {
            console: file("console"),
            view: file("view"),
            qmp: file("qmp"),
            network: file(""),
            config: file("toml"),
            disk: file("disk"),
            messages: file("qemu"),
        }
    }

    /// Where QEMU listens for the switch, or the other end of a wire, on a segment.
    pub(crate) fn network(&self, segment: usize) -> PathBuf {
        self.network.with_extension(format!("net{segment}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::shell_quoted;
    use dvs_config::Source;

    fn options(nodes: usize) -> Options {
        Options { nodes, ..Options::new("/b/vmlinux", "/b/initramfs") }
    }

    #[test]
    fn the_machine_configuration_is_one_that_nodes_accept() {
        let options = options(4);
        let token = random_token().unwrap();
        let config = options.config(2, &token);
        let read = Config::from_sources(&[(Source::FwCfg, config.to_toml())]).unwrap();
        assert_eq!(read, config);
        assert_eq!(read.cluster.bootstrap_expect, 4);
        assert!(!read.cluster.insecure);
        assert!(Options { insecure: true, ..options.clone() }.config(2, &token).cluster.insecure);
        let management = read.network.management.unwrap();
        assert!(management.interface.matches("eth1", management_mac(2)));
        assert!(!management.interface.matches("eth0", cluster_mac(2, 0)));
        assert!(read.network.cluster[0].matches("eth0", cluster_mac(2, 0)));
    }

    #[test]
    fn a_node_has_an_interface_on_each_segment() {
        let options = Options { segments: 2, ..options(2) };
        let config = options.config(1, &random_token().unwrap());
        assert_eq!(
            config.network.cluster,
            [0, 1].map(|n| InterfaceSelector::Mac(cluster_mac(1, n)))
        );
        let machine = options.machine(1, Path::new("/r"), 1, None, &[]);
        let sockets: Vec<_> =
            machine.cluster.iter().map(|nic| nic.socket.display().to_string()).collect();
        assert_eq!(sockets, ["/r/n1.net0", "/r/n1.net1"]);
        assert_ne!(machine.cluster[0].mac, machine.cluster[1].mac);
    }

    #[test]
    fn the_agent_runs_beside_the_services_where_it_is_wanted() {
        let token = random_token().unwrap();
        assert_eq!(options(1).config(0, &token).run, None);
        let run = Options { agent: true, ..options(1) }.config(0, &token).run.unwrap();
        assert!(run.services && run.command[0].ends_with("/dvs-agent"));
    }

    #[test]
    fn a_node_with_a_disk_has_its_configuration_there() {
        let machine =
            |boot| Options { boot, ..options(1) }.machine(0, Path::new("/r"), 1, None, &[]);
        let disk = machine(Boot::Disk("/b/dvs.img".into()));
        assert_eq!((disk.medium, disk.config), (Medium::Disk("/r/n0.disk".into()), None));
        let cd = machine(Boot::Cd("/b/dvs.iso".into()));
        assert_eq!(cd.config, Some("/r/n0.toml".into()));
    }

    #[test]
    fn the_others_boot_from_the_node_that_boots_from_a_cd() {
        let options = Options { boot: Boot::Seed("/b/dvs.iso".into()), ..options(2) };
        let token = random_token().unwrap();
        let medium = |node| options.machine(node, Path::new("/r"), 1, None, &[]).medium;
        assert_eq!(medium(0), Medium::Cd("/b/dvs.iso".into()));
        assert_eq!(medium(1), Medium::Network);
        let config = options.config(0, &token);
        let read = Config::from_sources(&[(Source::FwCfg, config.to_toml())]).unwrap();
        assert_eq!(read, config);
        assert!(read.netboot.unwrap().interface.matches("eth0", cluster_mac(0, 0)));
        assert_eq!(options.config(1, &token).netboot, None);
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(random_token().unwrap().secret(), random_token().unwrap().secret());
    }

    #[test]
    fn kernel_arguments_reach_the_right_nodes() {
        let mut options = options(2);
        options.append.push("loglevel=7".to_owned());
        options.append_to.insert(1, vec!["dvs.cluster.name=other".to_owned()]);
        let append = |node| options.kernel_arguments(node);
        let watched = watchdog::arguments(watchdog::START_S);
        let all = format!("{APPEND} {} {watched}", unasked::ARGUMENTS);
        assert_eq!(append(0), format!("{all} loglevel=7"));
        assert_eq!(append(1), format!("{all} loglevel=7 dvs.cluster.name=other"));
    }

    #[test]
    fn nodes_differ_only_where_they_must() {
        let options = options(2);
        let line = |node: usize, port| {
            let line =
                shell_quoted(&options.machine(node, Path::new("/r"), port, None, &[]).command());
            line.replace(&format!("/n{node}."), "/nX.")
                .replace(&cluster_mac(node, 0).to_string(), "C")
                .replace(&management_mac(node).to_string(), "M")
                .replace(&format!("node{node}"), "nodeX")
                .replace(&format!(":{port}-"), ":P-")
        };
        assert_eq!(line(0, 20000), line(1, 20001));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(options(0).check().is_err());
        assert!(options(NODES_MAX + 1).check().is_err());
        assert!(Options { cpus: 0, ..options(1) }.check().is_err());
        let accelerator = Accelerator::Counting;
        assert!(Options { cpus: 2, accelerator, ..options(1) }.check().is_err());
        assert!(Options { cpus: 1, accelerator, ..options(1) }.check().is_ok());
        for name in ["", "../x", "a/b", "A"] {
            let options = Options { name: Some(name.to_owned()), ..options(1) };
            assert!(options.check().is_err(), "{name}");
        }
        let run = Some(Run { services: false, ..agent() });
        assert!(Options { agent: true, run, ..options(1) }.check().is_err());
        assert!(Options { wire: true, ..options(2) }.check().is_ok());
        assert!(Options { wire: true, ..options(3) }.check().is_err());
        assert!(Options { wire: true, segments: 2, ..options(2) }.check().is_err());
        assert!(Options { segments: 0, ..options(2) }.check().is_err());
        assert!(Options { segments: SEGMENTS_MAX + 1, ..options(2) }.check().is_err());
        let pcap = Some("/captures".into());
        assert!(Options { wire: true, pcap, ..options(2) }.check().is_err());
        let boot = Boot::Cd("/b/dvs.iso".into());
        let append = vec!["quiet".to_owned()];
        assert!(Options { boot: boot.clone(), ..options(2) }.check().is_ok());
        assert!(Options { boot, append, ..options(2) }.check().is_err());
        let boot = Boot::Disk("/b/dvs.img".into());
        assert!(Options { spare_disks: true, boot, ..options(2) }.check().is_err());
        let boot = Boot::Network("/b/pxe".into());
        assert!(Options { wire: true, boot, ..options(2) }.check().is_err());
        let mut beyond = options(2);
        beyond.append_to.insert(2, vec![]);
        assert!(beyond.check().is_err());
        assert!(options(4).check().is_ok());
    }

    #[test]
    fn options_survive_being_handed_on() {
        let mut options = options(3);
        options.token = Some(random_token().unwrap());
        options.append_to.insert(1, vec!["x".to_owned()]);
        options.faults.delay = std::time::Duration::from_micros(1500);
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
    }
}
