// SPDX-License-Identifier: MIT OR Apache-2.0
//! What cases are made of: Distributed Containers of this node, descriptions, and commands in containers.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use dvk::{Control, Errno, Lease, Limits as DvkLimits};
use dvs_runtime::{
    Cpu, Finished, Ids, Limits, Phase, Process, Request, Root, Runtime, Seccomp, Spec, Status,
};

/// Distributed Containers that are there for the cases only.
pub(crate) const DVK: [u32; 2] = [4001, 4002];

/// After this, something hangs: nodes may be translated, on a host that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(20);

/// Bytes of a mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// A node with two Distributed Containers.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    control: Control,
    node: u32,
}

impl Bench {
    /// `node` is the id of this node.
    pub(crate) fn new(node: u32) -> Result<Self> {
        let control = Control::open()?;
        let deadline = Instant::now() + PATIENCE;
        for container in DVK {
            loop {
                match control.dc_create(container, "runtime-test", DvkLimits::default()) {
                    // The node is still about to become one of a DVS.
                    Err(error) if error.is(Errno::NoDevice) && Instant::now() < deadline => {
                        std::thread::sleep(POLL);
                    }
                    Err(error) if !error.is(Errno::Exists) => return Err(error.into()),
                    _ => break,
                }
            }
        }
        Ok(Self { runtime: Runtime::default(), control, node })
    }

    /// Leases slots of a Distributed Container to this node, which nothing else does in a test.
    pub(crate) fn lease(&self, container: u32) -> Result<()> {
        let lease = Lease {
            container,
            node: self.node,
            first_slot: 64,
            slots: 64,
            first_generation: 10,
            reserved: 0,
        };
        Ok(self.control.dc_add_node(&lease)?)
    }

    /// Makes a container; it goes when the case is over.
    pub(crate) fn made(&self, spec: &Spec) -> Result<()> {
        Ok(self.runtime.create(spec)?)
    }

    /// Makes and starts one.
    pub(crate) fn started(&self, spec: &Spec) -> Result<()> {
        self.made(spec)?;
        Ok(self.runtime.start(&spec.name)?)
    }

    /// Runs words in a container to their end.
    pub(crate) fn run(&self, name: &str, words: &[&str]) -> Result<Finished> {
        self.run_with(name, request(words), b"")
    }

    /// Runs a request with input.
    pub(crate) fn run_with(&self, name: &str, request: Request, input: &[u8]) -> Result<Finished> {
        let mut session = self.runtime.exec(name, request)?;
        session.set_patience(PATIENCE)?;
        Ok(session.finish(input)?)
    }

    /// Runs a script in a container, which must succeed, and gives what it prints.
    pub(crate) fn shell(&self, name: &str, script: &str) -> Result<String> {
        let finished = self.run(name, &["/bin/sh", "-c", script])?;
        ensure!(finished.status == 0, "running {script:?} in {name}: {}", shown(&finished));
        Ok(String::from_utf8_lossy(&finished.stdout).trim_end().to_owned())
    }

    /// Writes this program into a container, as `/tmp/probe`.
    pub(crate) fn bring_probe(&self, name: &str) -> Result<()> {
        let own = std::fs::read("/proc/self/exe").context("reading this program")?;
        let words = request(&["/bin/sh", "-c", "cat > /tmp/probe && chmod 755 /tmp/probe"]);
        let finished = self.run_with(name, words, &own)?;
        ensure!(finished.status == 0, "writing the probe into {name}: {}", shown(&finished));
        Ok(())
    }

    /// Waits until a container is as wanted.
    pub(crate) fn await_status(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.runtime.status(name)?;
            if wanted(&status) {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "waiting until {name} {what}: it is {status:?}");
            std::thread::sleep(POLL);
        }
    }

    pub(crate) fn await_stopped(&self, name: &str) -> Result<Status> {
        self.await_status(name, "has ended", |status| status.phase == Phase::Stopped)
    }

    /// Removes all containers.
    pub(crate) fn sweep(&self) -> Result<()> {
        for status in self.runtime.list()? {
            self.runtime.delete(&status.name, true)?;
        }
        Ok(())
    }
}

/// A description with limits that no case meets by accident.
pub(crate) fn spec(name: &str) -> Spec {
    Spec {
        name: name.to_owned(),
        dvk: DVK[0],
        root: Root::Builtin,
        process: Process::default(),
        hostname: None,
        ids: Ids { first: 1_000_000, count: 65_536 },
        limits: Limits {
            memory: 64 * MIB,
            swap: 0,
            processes: 64,
            writable: 24 * MIB,
            cpu: Cpu::default(),
            io: Vec::new(),
        },
        network: None,
        capabilities: dvs_runtime::Capability::defaults(),
        seccomp: Seccomp::default(),
    }
}

/// Words to run.
pub(crate) fn request(words: &[&str]) -> Request {
    Request { command: owned(words), ..Request::default() }
}

pub(crate) fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// An end, for people.
pub(crate) fn shown(finished: &Finished) -> String {
    format!(
        "exit status {}, stdout {:?}, stderr {:?}",
        finished.status,
        String::from_utf8_lossy(&finished.stdout),
        String::from_utf8_lossy(&finished.stderr)
    )
}

/// The two are equal.
pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<()> {
    ensure!(got == wanted, "{what}: expected {wanted:?}, got {got:?}");
    Ok(())
}

/// Makes a container as a service would that is killed after that.
pub(crate) fn make() -> Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).context("reading a description")?;
    let spec = Spec::parse(&text)?;
    let runtime = Runtime::default();
    runtime.create(&spec)?;
    runtime.start(&spec.name)?;
    println!("made");
    std::thread::sleep(PATIENCE);
    bail!("waiting to be killed: nobody did")
}
