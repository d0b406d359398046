// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program in a container tries. Each line of the output is a name and `done` or the error's name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dvk::{Endpoint, Message, Port, Slot, Timeout};
use nix::sched::{unshare, CloneFlags};
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::fs::{makedev, mknodat, FileType, Mode, CWD};
use rustix::io::Errno;
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};
use rustix::net::{ipproto, netlink, socket, AddressFamily, SocketType};

use crate::bench::PATIENCE;

/// How often it is said how many messages were exchanged.
const TOLD: Duration = Duration::from_millis(500);

/// A child that waits, to be acted on.
struct Victim(std::process::Child);

impl Victim {
    fn new() -> Result<Self> {
        let child = std::process::Command::new("/proc/self/exe")
            .arg("spin")
            .spawn()
            .context("starting a victim")?;
        Ok(Self(child))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn plain(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

fn namespace(flag: CloneFlags) -> Result<(), Errno> {
    // In a thread of its own, which ends with it, the rest of this process stays where it is.
    std::thread::spawn(move || unshare(flag).map_err(plain)).join().unwrap_or(Err(Errno::CANCELED))
}

fn node(kind: FileType, major: u32, minor: u32) -> Result<(), Errno> {
    let path = "/tmp/probe-node";
    let made = mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), makedev(major, minor));
    let _ = fs::remove_file(path);
    made
}

/// All that a container must not do and root of a node can, in both cases without harm.
pub(crate) fn all() -> Result<()> {
    let directory = Path::new("/tmp/probe-mount");
    fs::create_dir_all(directory).context("making a mount point")?;
    let victim = Victim::new()?;
    let pid = victim.0.id().cast_signed();
    let mut lines = Vec::new();
    let mut tried = |name: &str, result: Result<(), Errno>| {
        let result = result.map_or_else(|error| format!("{error:?}"), |()| "done".to_owned());
        lines.push(format!("{name} {result}"));
    };
    tried("mount", mount("tmpfs", directory, "tmpfs", MountFlags::empty(), c""));
    tried("umount", unmount(directory, UnmountFlags::empty()));
    for (name, flag) in [
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ] {
        tried(&format!("unshare-{name}"), namespace(flag));
    }
    tried("ptrace", ptrace::seize(Pid::from_raw(pid), ptrace::Options::empty()).map_err(plain));
    let open = |family, kind, protocol| socket(family, kind, protocol).map(drop);
    tried("raw-packets", open(AddressFamily::PACKET, SocketType::RAW, None));
    tried("raw-ip", open(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)));
    tried("audit", open(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::KOBJECT_UEVENT)));
    tried("mknod-char", node(FileType::CharacterDevice, 1, 1));
    tried("mknod-block", node(FileType::BlockDevice, 7, 0));
    let name = rustix::system::uname();
    tried("sethostname", rustix::system::sethostname(name.nodename().to_bytes()));
    tried("chroot", rustix::process::chroot("/"));
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    tried("settime", rustix::time::clock_settime(rustix::time::ClockId::Realtime, now));
    let write = |path: &str, text: &str| {
        File::options().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()))
    };
    let sysctl = "/proc/sys/vm/overcommit_memory";
    let known = fs::read_to_string(sysctl).unwrap_or_else(|_| "0".to_owned());
    let written = write(sysctl, known.trim());
    tried("sysctl", written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)));
    let oom = write("/proc/self/oom_score_adj", "-500");
    tried("oom-score", oom.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)));
    drop(victim);
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

/// Uses memory that is really there.
pub(crate) fn hog(mebibytes: usize) -> Result<()> {
    let mut blocks = Vec::new();
    for number in 0..mebibytes {
        // A byte that differs, so that no page is like another.
        blocks.push(vec![number as u8 | 1; 1 << 20]);
    }
    println!("{} MiB", blocks.iter().map(Vec::len).sum::<usize>() >> 20);
    Ok(())
}

/// Uses a processor.
pub(crate) fn spin() -> ! {
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}

/// Serves bytes.
pub(crate) fn serve(at: &str, amount: u64) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("listening at {at}"))?;
    println!("listening");
    for client in listener.incoming() {
        let mut client = client.context("accepting a client")?;
        // Who does not want the rest is free to go.
        let _ = io::copy(&mut io::repeat(7).take(amount), &mut client);
    }
    Ok(())
}

/// Fetches bytes.
pub(crate) fn fetch(from: &str, once: bool) -> Result<()> {
    let address: SocketAddr = from.parse().with_context(|| format!("understanding {from}"))?;
    let begin = Instant::now();
    let limit = if once { Duration::from_secs(3) } else { PATIENCE };
    let mut server = loop {
        match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
            Ok(server) => break server,
            Err(error) if begin.elapsed() >= limit || once => {
                return Err(error).with_context(|| format!("connecting to {from}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    server.set_read_timeout(Some(PATIENCE)).context("waiting for bytes")?;
    let begin = Instant::now();
    let bytes = io::copy(&mut server, &mut io::sink()).context("receiving bytes")?;
    println!("{bytes} {}", begin.elapsed().as_millis());
    Ok(())
}

/// Binds an endpoint, and says in which Distributed Container.
pub(crate) fn bind() -> Result<()> {
    let port = Port::open("/dev/dvk", Slot::Any)?;
    println!("{}", port.container());
    let control = dvk::Control::open_at("/dev/dvk")?;
    match control.dc_create(4003, "x", dvk::Limits::default()) {
        Ok(()) => println!("created"),
        Err(error) => println!("refused: {error}"),
    }
    Ok(())
}

/// Exchanges messages between two endpoints of this process by `/dev/dvk`, and says every half a second how many round trips there were, and
/// in how many microseconds.
pub(crate) fn exchange() -> Result<()> {
    let (client, server) = (Port::open("/dev/dvk", Slot::Any)?, Port::open("/dev/dvk", Slot::Any)?);
    let to = server.endpoint();
    std::thread::spawn(move || -> Result<(), dvk::Error> {
        let mut received = server.receive(Endpoint::ANY, Timeout::Forever)?;
        loop {
            let (from, answer) = (received.source(), received.message);
            received = server.reply_receive(from, &answer, Endpoint::ANY, Timeout::Forever)?;
        }
    });
    let message = Message::new(1);
    let (mut begin, mut count) = (Instant::now(), 0_u64);
    loop {
        client.sendrec(to, &message, Timeout::Forever)?;
        count += 1;
        let elapsed = begin.elapsed();
        if elapsed >= TOLD {
            println!("{count} {}", elapsed.as_micros());
            (begin, count) = (Instant::now(), 0);
        }
    }
}
