// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask qemu`: virtual clusters, from the command line to the library `dvs-qemu`.

mod act;
mod checkout;
mod command;
mod demo;
mod screen;
mod signals;
mod start;
mod supervise;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, Result};
use clap::{Args, Subcommand, ValueEnum};
use dvs_config::Token;
use dvs_qemu::accel::Choice;
use dvs_qemu::boot::Firmware;
use dvs_qemu::faults::{Faults, Probability};
use dvs_qemu::front::Publish;
use dvs_qemu::links::LinkSelector;
use dvs_qemu::machine::{Memory, QEMU};

use crate::doctor;
use crate::image::What;
use crate::source::Origin;
use crate::step::Session;
use checkout::Checkout;
pub(crate) use screen::last_lines;
pub(crate) use start::{accelerator, launcher};

/// Run a virtual cluster, or act on one that runs.
///
/// Without a command, starts a cluster, waits until its nodes have found each other, and shows their consoles until Ctrl-C ends it.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Qemu {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    start: Start,
}

/// How to start a cluster.
#[derive(Args, Debug)]
struct Start {
    /// Number of nodes
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    /// Number of segments; each node has an interface on each
    #[arg(long, default_value_t = 1)]
    segments: usize,
    /// Run this with `sh -c` once all nodes are ready, then end the cluster; exit as the command does
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Set something up on the cluster once all nodes are ready, and print its URL; implies `--publish 8080`
    #[arg(long, value_enum)]
    demo: Option<demo::Demo>,
    /// How the nodes boot
    #[arg(long, value_enum, default_value_t = Boot::Direct)]
    boot: Boot,
    /// With --boot pxe or pxe-uefi: node 0 boots from this, and boots the others itself
    #[arg(long, value_enum, value_name = "IMAGE")]
    seed_node: Option<Seed>,
    #[command(flatten)]
    faults: FaultArguments,
    /// Decides which frames the faults hit; drawn at random and shown if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Capture each node's cluster traffic to DIRECTORY/node<N>.pcap
    #[arg(long, value_name = "DIRECTORY")]
    pcap: Option<PathBuf>,
    /// Have PORT of 127.0.0.1 lead to GUESTPORT (the same if not given) of whichever node takes the connection, in turn
    #[arg(long, value_name = "PORT[:GUESTPORT]")]
    publish: Vec<Publish>,
    /// Print the QEMU command lines and do nothing else
    #[arg(long)]
    dry_run: bool,
    /// Leave the cluster running; `cargo xtask qemu stop` ends it
    #[arg(long)]
    keep: bool,
    /// Memory of each node; 128M if not given, 192M with --seed-node, 384M with UEFI firmware
    #[arg(long)]
    memory: Option<Memory>,
    /// Processors of each node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// What runs the guests: auto (KVM where it has been seen to work), tcg or kvm
    #[arg(long, default_value = "auto", value_name = "ACCELERATOR")]
    accel: Choice,
    /// Name of the cluster, for those who run several
    #[arg(long)]
    name: Option<String>,
    /// Join token of the nodes (at least 16 characters); drawn at random if not given
    #[arg(long)]
    token: Option<Token>,
    /// Let messages between the nodes go in the clear, so that captures can be read
    #[arg(long)]
    insecure: bool,
    /// How long the nodes may take to become ready
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration, value_name = "TIME")]
    ready_timeout: Duration,
    /// Kernel to boot instead of this checkout's (bzImage, or vmlinux with PVH)
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initramfs to boot instead of this checkout's
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,
    /// More kernel arguments; `dvs.…` ones overrule the machine configuration
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// The QEMU program
    #[arg(long, default_value = QEMU, value_name = "PROGRAM")]
    qemu: String,
}

/// Faults of links.
#[derive(Args, Clone, Debug)]
struct FaultArguments {
    /// How many frames vanish, such as 1%
    #[arg(long, default_value = "0%", value_name = "PERCENT")]
    loss: Probability,
    /// How many frames arrive twice
    #[arg(long, default_value = "0%", value_name = "PERCENT")]
    duplicate: Probability,
    /// How many frames are overtaken by later ones
    #[arg(long, default_value = "0%", value_name = "PERCENT")]
    reorder: Probability,
    /// Time that every frame takes, such as 5ms
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "TIME")]
    delay: Duration,
    /// Up to this much more, at random
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "TIME")]
    jitter: Duration,
}

impl FaultArguments {
    fn faults(&self) -> Faults {
        let FaultArguments { loss, duplicate, reorder, delay, jitter } = self.clone();
        Faults { loss, duplicate, reorder, delay, jitter }
    }
}

/// Ways to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Boot {
    /// QEMU loads kernel and initramfs itself
    Direct,
    /// Network, BIOS
    Pxe,
    /// Network, UEFI
    PxeUefi,
    /// Node 0 from a CD image, the others over the network from node 0; BIOS
    #[value(skip)]
    PxeFromIso,
    /// The same, UEFI
    #[value(skip)]
    PxeUefiFromIso,
    /// CD image, BIOS
    Iso,
    /// CD image, UEFI
    IsoUefi,
    /// Disk image, UEFI
    Disk,
}

/// What node 0 boots from that boots the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Seed {
    /// CD image
    Iso,
}

impl Start {
    /// How the nodes boot.
    fn boot(&self) -> Result<Boot> {
        match (self.boot, self.seed_node) {
            (boot, None) => Ok(boot),
            (Boot::Pxe, Some(Seed::Iso)) => Ok(Boot::PxeFromIso),
            (Boot::PxeUefi, Some(Seed::Iso)) => Ok(Boot::PxeUefiFromIso),
            (other, Some(_)) => bail!(
                "--seed-node has node 0 boot the others over the network, but --boot {} has all boot by themselves; say --boot pxe or \
                 --boot pxe-uefi",
                other.name()
            ),
        }
    }
}

impl Boot {
    /// What it is called on command lines, as far as one word says it, and in names of folders.
    pub(crate) fn name(self) -> String {
        match self {
            Self::PxeFromIso => "pxe-from-iso".to_owned(),
            Self::PxeUefiFromIso => "pxe-uefi-from-iso".to_owned(),
            other => { other.to_possible_value() }
                .map_or_else(String::new, |it| it.get_name().to_owned()),
        }
    }

    /// The image that the machines need, if they do not boot directly.
    pub(crate) fn image(self) -> Option<What> {
        match self {
            Self::Direct => None,
            Self::Pxe | Self::PxeUefi => Some(What::Pxe),
            Self::Iso | Self::IsoUefi | Self::PxeFromIso | Self::PxeUefiFromIso => Some(What::Iso),
            Self::Disk => Some(What::Disk),
        }
    }

    fn is_uefi(self) -> bool {
        matches!(self, Self::PxeUefi | Self::PxeUefiFromIso | Self::IsoUefi | Self::Disk)
    }

    /// The same for the library, with where the image is.
    pub(crate) fn with_image(self, image: PathBuf) -> (dvs_qemu::boot::Boot, Option<Firmware>) {
        use dvs_qemu::boot::Boot as Library;
        let boot = match self {
            Self::Direct => Library::Direct,
            Self::Pxe | Self::PxeUefi => Library::Network(image),
            Self::PxeFromIso | Self::PxeUefiFromIso => Library::Seed(image),
            Self::Iso | Self::IsoUefi => Library::Cd(image),
            Self::Disk => Library::Disk(image),
        };
        let firmware = self.is_uefi().then(|| Firmware {
            code: doctor::FIRMWARE_CODE.into(),
            variables: doctor::FIRMWARE_VARIABLES.into(),
        });
        (boot, firmware)
    }

    /// Memory of a node: firmware of UEFI needs more, as it keeps what it has loaded until the kernel has unpacked it.
    pub(crate) fn memory(self) -> Memory {
        if self.is_uefi() {
            Memory { mib: 384 }
        } else if self == Self::PxeFromIso {
            // Node 0 has the image that it gives to others in memory besides what it has unpacked of it.
            Memory { mib: 192 }
        } else {
            Memory::default()
        }
    }
}

/// Which running cluster is meant.
#[derive(Args, Debug)]
struct Which {
    /// Name of the cluster; needed only if several are running
    #[arg(long)]
    name: Option<String>,
}

/// One node of it.
#[derive(Args, Debug)]
struct WhichNode {
    /// Number of the node
    node: usize,
    #[command(flatten)]
    which: Which,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Cut a node's power
    Kill(WhichNode),
    /// Give a node power again
    Start(WhichNode),
    /// Stop a node's processors
    Pause(WhichNode),
    /// Let a paused node run on
    Resume(WhichNode),
    /// Show a node's console until Ctrl-C; what is typed goes to the node
    Console(WhichNode),
    /// Change links: pull a cable, cut or heal links, set faults
    Link {
        /// 2 (node 2), 0-3 (both ways), '0>3' (one way) or all
        links: LinkSelector,
        /// What to do with them
        #[arg(value_enum)]
        change: LinkChange,
        /// Which of a node's cables is pulled or plugged in, where it has several; all without it
        #[arg(long, value_name = "SEGMENT")]
        segment: Option<usize>,
        #[command(flatten)]
        faults: FaultArguments,
        #[command(flatten)]
        which: Which,
    },
    /// Show how the cluster, or one node of it, is doing
    Status {
        /// Number of the node
        node: Option<usize>,
        /// Output format
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        which: Which,
    },
    /// End a cluster
    Stop(Which),
    /// Own a detached cluster whose options are on standard input
    #[command(hide = true)]
    Supervise,
    /// Become COMMAND, to be killed when process PARENT ends
    #[command(hide = true)]
    Launch {
        parent: u32,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// What can be done to links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LinkChange {
    /// Plug in a node's cable: it has a carrier
    Up,
    /// Pull it
    Down,
    /// Let nothing pass, unnoticed by the nodes' interfaces
    Cut,
    /// Undo cuts
    Heal,
    /// Replace the faults by those given with --loss, --delay…
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Qemu {
    /// Carries out the command.
    ///
    /// # Errors
    /// When something does not build or start, or the cluster or node that is meant does not do as it should.
    pub(crate) fn run(&self, session: &Session, origin: &Origin) -> Result<ExitCode> {
        match &self.action {
            None => start::run(&self.start, &Checkout { session, origin }),
            Some(action) => act::run(action),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        qemu: Qemu,
    }

    fn parse(line: &str) -> Result<Qemu, String> {
        let words = std::iter::once("qemu").chain(line.split_whitespace());
        Command::try_parse_from(words).map(|c| c.qemu).map_err(|e| e.to_string())
    }

    #[test]
    fn a_start_takes_faults() {
        let line = "--nodes 3 --loss 5% --delay 2ms --seed 7 --memory 1G --accel tcg";
        let start = parse(line).unwrap().start;
        let faults = start.faults.faults();
        assert_eq!(
            (start.nodes, start.seed, start.memory.map(|memory| memory.mib)),
            (3, Some(7), Some(1024))
        );
        assert_eq!(faults.to_string(), "loss 5%, delay 2ms");
        assert!(parse("").unwrap().start.faults.faults().is_none());
    }

    #[test]
    fn actions_take_nodes_and_links() {
        let action = |line| parse(line).unwrap().action.unwrap();
        assert!(matches!(action("kill 2"), Action::Kill(WhichNode { node: 2, .. })));
        assert!(matches!(
            action("link 0-3 cut --name x"),
            Action::Link { links: LinkSelector::Pair(0, 3), change: LinkChange::Cut, .. }
        ));
        assert!(matches!(action("status"), Action::Status { node: None, .. }));
        assert!(matches!(
            action("launch 7 -- qemu -M q35"),
            Action::Launch { parent: 7, command } if command == ["qemu", "-M", "q35"]
        ));
    }

    #[test]
    fn a_seed_node_is_for_those_that_boot_over_the_network() {
        let boot = |line: &str| parse(line).unwrap().start.boot();
        assert_eq!(boot("--boot pxe --seed-node iso").unwrap(), Boot::PxeFromIso);
        assert_eq!(boot("--boot pxe-uefi --seed-node iso").unwrap(), Boot::PxeUefiFromIso);
        assert_eq!(boot("--boot pxe").unwrap(), Boot::Pxe);
        let error = boot("--boot iso --seed-node iso").unwrap_err().to_string();
        assert!(error.contains("--boot iso has all boot by themselves"), "{error}");
        assert!(boot("--seed-node iso").is_err());
        let image = Boot::PxeFromIso.with_image("/b/dvs.iso".into());
        assert_eq!(image, (dvs_qemu::boot::Boot::Seed("/b/dvs.iso".into()), None));
    }

    #[test]
    fn bad_arguments_say_what_is_wrong() {
        for (line, part) in [
            ("--loss 1", "`1` is not a percentage"),
            ("--memory 12", "`12` is not a memory size"),
            ("--accel xen", "`xen` is not an accelerator"),
            ("--token short", "at least 16"),
            ("--publish web", "`web` is no port"),
            ("--demo tea", "[possible values: web]"),
            ("--boot tape", "[possible values: direct"),
            ("--boot pxe --seed-node disk", "[possible values: iso]"),
            ("link 1-1 cut", "names no link"),
            ("kill", "<NODE>"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
