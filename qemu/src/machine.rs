// SPDX-License-Identifier: MIT OR Apache-2.0
//! The QEMU command line of a virtual node.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use dvs_config::{Mac, Source};
use serde::{Deserialize, Serialize};

use crate::accel::Accelerator;
use crate::boot::Firmware;

/// The QEMU that is looked for on `PATH`.
pub const QEMU: &str = "qemu-system-x86_64";
/// Most segments that the nodes of a cluster can be on.
pub const SEGMENTS_MAX: usize = 4;
/// After how long a machine with a BIOS that found nothing to boot starts anew.
const RETRY: Duration = Duration::from_secs(1);
/// TCP port of the node's API inside the guest.
const API_PORT: u16 = 7700;

/// Memory of a virtual machine in MiB, written `128M` or `1G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In MiB.
    pub mib: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { mib: 128 }
    }
}

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a memory size from 64M to 1024G, such as 128M or 1G")]
pub struct NotASize(String);

impl FromStr for Memory {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotASize(text.to_owned());
        let (number, unit) = match text.strip_suffix(['G', 'g']) {
            Some(number) => (number, 1024),
            None => (text.strip_suffix(['M', 'm']).ok_or_else(wrong)?, 1),
        };
        let number: u32 = number.parse().map_err(|_| wrong())?;
        match number.checked_mul(unit) {
            Some(mib @ 64..=1_048_576) => Ok(Memory { mib }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.mib)
    }
}

/// The id of the device that `link N down` takes the carrier from.
pub(crate) fn cluster_device(segment: usize) -> String {
    format!("cluster{segment}")
}

/// The MAC address of the interface of node `number` on a segment: ascending, as node ids are handed out in the order of those on the
/// first.
pub fn cluster_mac(number: usize, segment: usize) -> Mac {
    let [high, low] = (number as u16).to_be_bytes();
    Mac([0x52, 0x54, (segment as u8) << 4, 0xd5, high, low])
}

/// The MAC address of the management interface of node `number`.
pub fn management_mac(number: usize) -> Mac {
    let [high, low] = (number as u16).to_be_bytes();
    Mac([0x52, 0x54, 0x01, 0xd5, high, low])
}

/// The interface on the virtual switch, or on a wire to one other node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInterface {
    /// Where QEMU listens for the switch, or for the node at the other end of the wire.
    pub socket: PathBuf,
    /// Whether it is the other end, and connects there.
    pub connects: bool,
    /// MAC address.
    pub mac: Mac,
}

/// The interface through which the host, and only the host, reaches the node's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagementInterface {
    /// TCP port on the host's 127.0.0.1.
    pub port: u16,
    /// TCP port there that leads to the node's agent.
    pub agent_port: Option<u16>,
    /// Further TCP ports there, each with the port of the guest that it leads to.
    pub forwarded: Vec<(u16, u16)>,
    /// MAC address.
    pub mac: Mac,
}

/// What a machine boots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Memory, which QEMU has filled.
    Memory {
        /// Kernel: a bzImage, or a vmlinux built with `CONFIG_PVH`.
        kernel: PathBuf,
        /// Initial RAM file system.
        initramfs: PathBuf,
        /// Kernel command line.
        append: String,
    },
    /// A CD.
    Cd(PathBuf),
    /// A disk that it may write to.
    Disk(PathBuf),
    /// The first segment.
    Network,
}

/// One virtual machine, complete enough to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The QEMU program.
    pub qemu: OsString,
    /// Shown in the process list.
    pub name: String,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// RAM.
    pub memory: Memory,
    /// Virtual processors.
    pub cpus: u32,
    /// What it boots from.
    pub medium: Medium,
    /// UEFI firmware; a BIOS if `None`.
    pub firmware: Option<Firmware>,
    /// A disk besides, which it boots from as soon as it can.
    pub spare: Option<PathBuf>,
    /// Where QEMU listens for the owner of the console; it doesn't start the guest before somebody has connected.
    pub console: PathBuf,
    /// Where QEMU listens for QMP.
    pub qmp: PathBuf,
    /// The interfaces to the other nodes, by segment.
    pub cluster: Vec<ClusterInterface>,
    /// The interface to the host.
    pub management: Option<ManagementInterface>,
    /// The machine configuration that the guest reads through fw_cfg.
    pub config: Option<PathBuf>,
    /// Whether a reboot of the guest reboots it; otherwise it ends QEMU.
    pub reboot: bool,
}

impl Machine {
    /// The command line, program first.
    pub fn command(&self) -> Vec<OsString> {
        let mut line = CommandLine(vec![self.qemu.clone()]);
        line.add(["-name", &self.name, "-nodefaults", "-no-user-config", "-display", "none"]);
        line.add(["-M", "q35"]);
        match self.accelerator {
            // ERMS off: TCG advertises fast `rep movsb` and then runs it slowly.
            Accelerator::Tcg => line.add(["-accel", "tcg,thread=multi", "-cpu", "max,erms=off"]),
            Accelerator::Kvm => line.add(["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Metering => {
                line.add(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=on"]);
                line.add(["-cpu", "max,erms=off"]);
            }
            // Nothing of the host's may reach the guest: neither its time nor its randomness.
            Accelerator::Counting => {
                line.add(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
                line.add(["-cpu", "max,erms=off,rdrand=off,rdseed=off"]);
                line.add(["-rtc", "base=2026-01-01,clock=vm"]);
            }
        }
        line.add(["-m", &self.memory.to_string(), "-smp", &self.cpus.to_string()]);
        if !self.reboot {
            line.add(["-no-reboot"]);
        }
        if let Some(Firmware { code, variables }) = &self.firmware {
            line.add(["-drive"]);
            line.with_path("if=pflash,unit=0,format=raw,readonly=on,file=", code);
            line.add(["-drive"]);
            line.with_path("if=pflash,unit=1,format=raw,snapshot=on,file=", variables);
        }
        let mut rank = 0;
        if let Some(image) = &self.spare {
            line.add(["-drive"]);
            line.with_path("if=none,id=spare,format=raw,file=", image);
            line.add(["-device", "virtio-blk-pci,drive=spare,bootindex=0"]);
            rank = 1;
        }
        match &self.medium {
            Medium::Memory { kernel, initramfs, append } => {
                line.add(["-kernel"]);
                line.0.push(kernel.clone().into());
                line.add(["-initrd"]);
                line.0.push(initramfs.clone().into());
                line.add(["-append", append]);
            }
            Medium::Cd(image) => {
                line.add(["-drive"]);
                line.with_path("if=none,id=cd,format=raw,readonly=on,file=", image);
                line.add(["-device", &format!("ide-cd,drive=cd,bootindex={rank}")]);
            }
            Medium::Disk(image) => {
                line.add(["-drive"]);
                line.with_path("if=none,id=disk,format=raw,file=", image);
                line.add(["-device", &format!("virtio-blk-pci,drive=disk,bootindex={rank}")]);
            }
            // Who finds nobody that boots it tries again: it may come later.
            Medium::Network => {
                line.add(["-boot", &format!("reboot-timeout={}", RETRY.as_millis())]);
            }
        }
        line.add(["-chardev"]);
        line.with_path("socket,id=console,server=on,wait=on,path=", &self.console);
        line.add(["-serial", "chardev:console", "-chardev"]);
        line.with_path("socket,id=qmp,server=on,wait=off,path=", &self.qmp);
        line.add(["-mon", "chardev=qmp,mode=control"]);
        if self.accelerator != Accelerator::Counting {
            line.add(["-device", "virtio-rng-pci"]);
        }
        for (segment, cluster) in self.cluster.iter().enumerate() {
            line.add(["-netdev"]);
            let role = if cluster.connects { "off" } else { "on" };
            let (id, device) = (format!("segment{segment}"), cluster_device(segment));
            let options = format!("stream,id={id},server={role},addr.type=unix,addr.path=");
            line.with_path(&options, &cluster.socket);
            let mac = &cluster.mac;
            let device = format!("virtio-net-pci,id={device},netdev={id},mac={mac}");
            let boots = segment == 0 && self.medium == Medium::Network;
            let boot = match (boots, &self.firmware) {
                // The option ROM has iPXE, with which a BIOS boots.
                (true, None) => format!(",bootindex={rank}"),
                // UEFI firmware has a driver of its own.
                (true, Some(_)) => format!(",bootindex={rank},romfile="),
                // The node does not boot from there, and loading the ROM costs time.
                (false, _) => ",romfile=".to_owned(),
            };
            line.add(["-device", &format!("{device}{boot}")]);
        }
        if let Some(management) = &self.management {
            let ManagementInterface { port, agent_port, forwarded, mac } = management;
            let mut network = "user,id=management,restrict=on".to_owned();
            let agent = agent_port.map(|port| (port, dvs_agent::PORT));
            let own = [Some((*port, API_PORT)), agent].into_iter().flatten();
            for (host, guest) in own.chain(forwarded.iter().copied()) {
                network += &format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}");
            }
            line.add([
                "-netdev",
                &network,
                "-device",
                &format!("virtio-net-pci,id=management0,netdev=management,mac={mac},romfile="),
            ]);
        }
        if let Some(config) = &self.config {
            line.add(["-fw_cfg"]);
            line.with_path(&format!("name={},file=", Source::FW_CFG_NAME), config);
        }
        line.0
    }
}

struct CommandLine(Vec<OsString>);

impl CommandLine {
    fn add<const N: usize>(&mut self, arguments: [&str; N]) {
        self.0.extend(arguments.map(OsString::from));
    }

    /// Adds an argument that ends in a path. QEMU's option syntax wants commas doubled.
    fn with_path(&mut self, options: &str, path: &Path) {
        let mut argument = options.as_bytes().to_vec();
        for &byte in path.as_os_str().as_bytes() {
            argument.push(byte);
            if byte == b',' {
                argument.push(byte);
            }
        }
        self.0.push(OsString::from_vec(argument));
    }
}

/// A command line that a POSIX shell reads back as the same arguments.
pub fn shell_quoted<S: AsRef<OsStr>>(command: &[S]) -> String {
    let quoted = command.iter().map(|argument| {
        let text = argument.as_ref().to_string_lossy();
        let harmless = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
        if !text.is_empty() && text.chars().all(harmless) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn machine() -> Machine {
        Machine {
            qemu: QEMU.into(),
            name: "dvs-node2".to_owned(),
            accelerator: Accelerator::Tcg,
            memory: Memory::default(),
            cpus: 1,
            medium: Medium::Memory {
                kernel: "/b/vmlinux".into(),
                initramfs: "/b/initramfs".into(),
                append: "console=ttyS0 quiet".to_owned(),
            },
            firmware: None,
            spare: None,
            console: "/run/x/n2.console".into(),
            qmp: "/run/x/n2.qmp".into(),
            cluster: vec![ClusterInterface {
                socket: "/run/x/n2.net".into(),
                connects: false,
                mac: cluster_mac(2, 0),
            }],
            management: Some(ManagementInterface {
                port: 20002,
                agent_port: None,
                forwarded: Vec::new(),
                mac: management_mac(2),
            }),
            config: Some("/run/a,b/n2.toml".into()),
            reboot: true,
        }
    }

    #[test]
    fn the_command_line_of_a_node() {
        let expected = "\
            qemu-system-x86_64 -name dvs-node2 -nodefaults -no-user-config -display none \
            -M q35 -accel tcg,thread=multi -cpu max,erms=off -m 128M -smp 1 \
            -kernel /b/vmlinux -initrd /b/initramfs -append 'console=ttyS0 quiet' \
            -chardev socket,id=console,server=on,wait=on,path=/run/x/n2.console \
            -serial chardev:console \
            -chardev socket,id=qmp,server=on,wait=off,path=/run/x/n2.qmp \
            -mon chardev=qmp,mode=control -device virtio-rng-pci \
            -netdev stream,id=segment0,server=on,addr.type=unix,addr.path=/run/x/n2.net \
            -device virtio-net-pci,id=cluster0,netdev=segment0,mac=52:54:00:d5:00:02,romfile= \
            -netdev user,id=management,restrict=on,hostfwd=tcp:127.0.0.1:20002-:7700 \
            -device virtio-net-pci,id=management0,netdev=management,mac=52:54:01:d5:00:02,romfile= \
            -fw_cfg name=opt/dvs/config,file=/run/a,,b/n2.toml";
        assert_eq!(shell_quoted(&machine().command()), expected);
    }

    #[test]
    fn a_machine_boots_from_a_cd_or_a_disk_by_bios_or_uefi() {
        let cd = Machine { medium: Medium::Cd("/b/dvs.iso".into()), ..machine() };
        let line = shell_quoted(&cd.command());
        assert!(!line.contains("-kernel") && !line.contains("pflash"), "{line}");
        assert!(line.contains("readonly=on,file=/b/dvs.iso -device ide-cd,drive=cd,bootindex=0"));
        let spare = Machine { spare: Some("/run/x/n2.disk".into()), ..cd };
        let line = shell_quoted(&spare.command());
        assert!(
            line.contains("file=/run/x/n2.disk -device virtio-blk-pci,drive=spare,bootindex=0 ")
        );
        assert!(line.contains("-device ide-cd,drive=cd,bootindex=1 "), "{line}");
        let firmware = Firmware { code: "/o/code".into(), variables: "/o/variables".into() };
        let medium = Medium::Disk("/run/x/n2.disk".into());
        let disk = Machine { medium, firmware: Some(firmware), ..machine() };
        let line = shell_quoted(&disk.command());
        assert!(line.contains("unit=0,format=raw,readonly=on,file=/o/code "), "{line}");
        assert!(line.contains("unit=1,format=raw,snapshot=on,file=/o/variables "), "{line}");
        assert!(line.contains("format=raw,file=/run/x/n2.disk -device virtio-blk-pci"), "{line}");
    }

    #[test]
    fn a_machine_boots_over_the_first_segment() {
        let network = Machine { medium: Medium::Network, ..machine() };
        let line = shell_quoted(&network.command());
        assert!(line.contains("mac=52:54:00:d5:00:02,bootindex=0 "), "{line}");
        let firmware = Some(Firmware { code: "/o/c".into(), variables: "/o/v".into() });
        let line = shell_quoted(&Machine { firmware, ..network }.command());
        assert!(line.contains("mac=52:54:00:d5:00:02,bootindex=0,romfile= "), "{line}");
        assert_eq!(line.matches("bootindex").count(), 1);
    }

    #[test]
    fn one_end_of_a_wire_connects_to_the_other() {
        let socket = "/run/x/n0.net".into();
        let cluster = vec![ClusterInterface { socket, connects: true, mac: cluster_mac(1, 0) }];
        let line = shell_quoted(&Machine { cluster, ..machine() }.command());
        let expected =
            "-netdev stream,id=segment0,server=off,addr.type=unix,addr.path=/run/x/n0.net -device";
        assert!(line.contains(expected), "{line}");
    }

    #[test]
    fn the_host_reaches_an_agent_and_published_ports() {
        let mac = management_mac(2);
        let management = ManagementInterface {
            port: 20002,
            agent_port: Some(20003),
            forwarded: vec![(20004, 80)],
            mac,
        };
        let with_agent = Machine { management: Some(management), ..machine() };
        let line = shell_quoted(&with_agent.command());
        let forwarded = "hostfwd=tcp:127.0.0.1:20002-:7700,hostfwd=tcp:127.0.0.1:20003-:7790,hostfwd=tcp:127.0.0.1:20004-:80 ";
        assert!(line.contains(forwarded), "{line}");
    }

    #[test]
    fn a_lone_machine_has_no_network_and_ends_at_reboot() {
        let lone = Machine {
            cluster: Vec::new(),
            management: None,
            reboot: false,
            accelerator: Accelerator::Kvm,
            ..machine()
        };
        let line = shell_quoted(&lone.command());
        assert!(!line.contains("netdev"), "{line}");
        assert!(line.contains(" -no-reboot "), "{line}");
        assert!(line.contains(" -accel kvm -cpu host "), "{line}");
    }

    #[test]
    fn nothing_of_the_host_reaches_a_machine_that_counts_instructions() {
        let counting = Machine { accelerator: Accelerator::Counting, ..machine() };
        let line = shell_quoted(&counting.command());
        assert!(line.contains(" -accel tcg,thread=single -icount shift=0,sleep=off "), "{line}");
        assert!(line.contains(",rdrand=off,rdseed=off -rtc base=2026-01-01,clock=vm "), "{line}");
        assert!(!line.contains("virtio-rng"), "{line}");
    }

    #[test]
    fn time_passes_while_a_machine_that_meters_waits() {
        let metering = Machine { accelerator: Accelerator::Metering, ..machine() };
        let line = shell_quoted(&metering.command());
        assert!(line.contains(" -accel tcg,thread=single -icount shift=0,sleep=on "), "{line}");
        assert!(line.contains(" -device virtio-rng-pci "), "{line}");
    }

    #[test]
    fn mac_addresses_ascend_with_the_node_number() {
        let macs: Vec<_> = (0..1000).map(|number| cluster_mac(number, 0)).collect();
        assert!(macs.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(cluster_mac(259, 0).to_string(), "52:54:00:d5:01:03");
    }

    #[test]
    fn a_shell_reads_quoted_arguments_back() {
        let arguments = ["a b", "", "it's", "$HOME", "0>3", "plain", "*"];
        let script = format!("printf '%s\\n' {}", shell_quoted(&arguments));
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        let lines = arguments.map(|argument| format!("{argument}\n")).concat();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), lines);
    }

    #[test]
    fn memory_sizes_are_read() {
        assert_eq!("128M".parse(), Ok(Memory { mib: 128 }));
        assert_eq!("2G".parse(), Ok(Memory { mib: 2048 }));
        for text in ["", "128", "M", "1M", "-1G", "99999999G", "1T"] {
            assert!(text.parse::<Memory>().is_err(), "{text}");
        }
    }
}
