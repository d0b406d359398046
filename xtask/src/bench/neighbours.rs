// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a Distributed Container loses to a neighbour that misbehaves: messages that programs of one exchange on a node, while programs of
//! another one there try to have the node for themselves. Both containers have limits, and less than the node together.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use dvs_qemu::accel::{Accelerator, Choice};
use dvs_qemu::machine::{Memory, QEMU};
use dvs_qemu::{access, Cluster, Options};
use serde::Serialize;

use super::ratio::{self, Ratio};
use super::spread::Spread;
use super::{count, Output};
use crate::artefacts;
use crate::doctor::{self, Need};
use crate::kernel::{Image, Variant};
use crate::qemu::{accelerator, launcher};
use crate::source::{Origin, Pins};
use crate::step::Session;

/// Arguments of `cargo xtask bench neighbours`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each kind of attack is measured, between two times without one
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A boot, on a busy host.
const READY: Duration = Duration::from_secs(120);
/// How long the programs are left alone before they are measured.
const SETTLE: Duration = Duration::from_secs(2);
/// How long they are measured for.
const WINDOW: Duration = Duration::from_secs(5);
/// A node has both containers, and itself.
const MEMORY: Memory = Memory { mib: 256 };
/// What keeps its pace, and what attacks it. Where both are:
const VICTIM: &str = "victim";
const ATTACKER: &str = "attacker";
const NODE: &str = "0";
/// From where the attacker gets what it receives.
const SOURCE: &str = "1";
/// What either of them may have of a node: a fifth is left to the node itself.
const LIMITS: [&str; 6] = ["--cpus", "0.4", "--memory", "32M", "--pids", "64"];
/// The attacker has a network besides, in which node N has the address N + 1.
const NETWORK: [&str; 3] = ["--network=10.1.0.0/16", "--net-rate", "20M"];
/// The program that is fed into both.
const PROGRAM: &str = "dvs-runtime-conformance";
/// What is left of the throughput at least.
const GOAL: f64 = 0.9;

/// What the attacker's shell runs until it is ended; `$p` is the program.
const ATTACKS: [(&str, &str); 6] = [
    ("processors", "for i in 1 2 3 4; do $p spin & done; wait"),
    ("processes", "b() { b | b & }; while :; do b; sleep 0.1; done"),
    ("memory", "while :; do $p hog 64 >/dev/null; done"),
    ("files", "while :; do dd if=/dev/zero of=/tmp/f bs=64k count=1000; rm /tmp/f; done"),
    ("messages", "for i in 1 2 3 4; do $p exchange >/dev/null & done; wait"),
    ("network", "while :; do $p fetch 10.1.0.2:9000 >/dev/null || sleep 0.1; done"),
];

/// What is printed for programs.
#[derive(Debug, Serialize)]
struct Figures {
    accelerator: Accelerator,
    attacks: Vec<Attack>,
    ratios: Vec<Ratio>,
}

/// Round trips of the victim in a second.
#[derive(Debug, Serialize)]
struct Attack {
    name: &'static str,
    /// Before and after the attacks.
    calm: Spread,
    attacked: Spread,
}

/// Measures and prints.
pub(super) fn run(arguments: &Arguments, session: &Session, origin: &Origin) -> Result<()> {
    doctor::require(session, &[Need::Qemu], &Pins::read(session)?.tools)?;
    let built = artefacts::build(session, origin, Variant::Node, Image::Vmlinux, true)?;
    let mut options = Options::new(&built.kernel.image, &built.root.node);
    options.nodes = 2;
    options.memory = MEMORY;
    options.logs = Some(session.store.directory("logs")?.join("bench-neighbours"));
    options.launcher = launcher();
    let cache = &session.workspace.cache;
    options.accelerator = accelerator(Choice::Auto, QEMU, cache, &options.kernel);
    let accelerator = options.accelerator;
    let mut step = session.begin("bench neighbours", "starting two nodes")?;
    let host = Host::start(options, built.root.programs.path("dvsctl"))?;
    let program = built.root.programs.path(PROGRAM);
    step.now("making two containers");
    host.create(VICTIM, NODE, &[])?;
    host.create(ATTACKER, &format!("{NODE},{SOURCE}"), &NETWORK)?;
    for (container, node) in [(VICTIM, NODE), (ATTACKER, NODE), (ATTACKER, SOURCE)] {
        host.feed(container, node, &program)?;
    }
    let serve = "exec /tmp/program serve 0.0.0.0:9000 1000000000";
    let _source = host.exec(ATTACKER, SOURCE, serve)?;
    let mut victim = host.exec(VICTIM, NODE, "exec /tmp/program exchange")?;
    let mut attacks = Vec::new();
    for (name, script) in ATTACKS {
        let (mut calm, mut attacked) = (Vec::new(), Vec::new());
        for round in 1..=arguments.rounds {
            step.now(&format!("{name}: round {round} of {}", arguments.rounds));
            calm.push(victim.pace()?);
            let script = format!("p=/tmp/program; {script}");
            let attack = host.exec(ATTACKER, NODE, &script)?;
            attacked.push(victim.pace()?);
            drop(attack);
            host.end_all(ATTACKER, NODE)?;
        }
        calm.push(victim.pace()?);
        let both = Spread::of(&calm).zip(Spread::of(&attacked));
        let (calm, attacked) = both.context("measuring at least one round")?;
        attacks.push(Attack { name, calm, attacked });
    }
    step.finish(&format!("{} attacks, {} times each", attacks.len(), arguments.rounds));
    let ratios = attacks.iter().map(|attack| Ratio {
        name: attack.name,
        ratio: attack.attacked.median / attack.calm.median,
        against: "no attack".to_owned(),
        goal: GOAL,
    });
    let ratios = ratios.collect();
    super::print(arguments.output, &Figures { accelerator, attacks, ratios }, Figures::table, &[])
}

impl Figures {
    fn table(&self) -> String {
        let mut text = format!(
            "time: {}\nround trips of a container in a second, while another one attacks\n",
            self.accelerator
        );
        text += &format!("{:<16}{:>14}{:>14}\n", "", "calm", "attacked");
        for Attack { name, calm, attacked } in &self.attacks {
            text +=
                &format!("{name:<16}{:>14}{:>14}\n", count(calm.median), count(attacked.median));
        }
        text + &ratio::lines("what is left of a container's throughput", &self.ratios)
    }
}

/// Nodes, and who tells them what to do.
struct Host {
    dvsctl: PathBuf,
    cluster: Cluster,
}

impl Host {
    fn start(options: Options, dvsctl: PathBuf) -> Result<Self> {
        let cluster = Cluster::start(options)?;
        cluster.wait_ready(READY)?;
        Ok(Self { dvsctl, cluster })
    }

    fn dvsctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.dvsctl);
        access::reach(&mut command, self.cluster.run(), None).args(words);
        command
    }

    /// Runs it to its end, which must be a success; returns what it says.
    fn done(mut command: Command, what: &str) -> Result<String> {
        let output = command.output().with_context(|| format!("running dvsctl for {what}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{what}: {}: {}", output.status, said.trim_end());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn create(&self, container: &str, nodes: &str, more: &[&str]) -> Result<()> {
        let words = [&["dc", "create", container, "--nodes", nodes][..], &LIMITS, more].concat();
        Self::done(self.dvsctl(&words), &format!("making the container {container}")).map(drop)
    }

    fn shell(&self, container: &str, node: &str, script: &str) -> Command {
        self.dvsctl(&["dc", "exec", container, "--node", node, "--", "sh", "-c", script])
    }

    /// Puts the program into a container.
    fn feed(&self, container: &str, node: &str, program: &Path) -> Result<()> {
        let mut command =
            self.shell(container, node, "cat > /tmp/program && chmod +x /tmp/program");
        let file = std::fs::File::open(program);
        command.stdin(file.with_context(|| format!("reading {}", program.display()))?);
        Self::done(command, &format!("feeding a program into {container}")).map(drop)
    }

    /// Ends what runs in a container, but for what it was made with.
    fn end_all(&self, container: &str, node: &str) -> Result<()> {
        // There may be no room for another process while the others are there: ask until there is.
        let deadline = Instant::now() + READY;
        loop {
            match Self::done(self.shell(container, node, "kill -9 -1"), "ending an attack") {
                // The shell has ended itself as well.
                Err(error) if error.to_string().contains("137") => return Ok(()),
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Starts a script in a container, which goes on until it is dropped.
    fn exec(&self, container: &str, node: &str, script: &str) -> Result<Running> {
        let mut command = self.shell(container, node, script);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("running dvsctl dc exec")?;
        let output = child.stdout.take().context("reading what dvsctl dc exec says")?;
        let input = child.stdin.take();
        Ok(Running { child, _input: input, lines: BufReader::new(output).lines() })
    }
}

/// A program in a container.
struct Running {
    child: Child,
    /// Open as long as it runs.
    _input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Round trips in a second, from now on for a while.
    fn pace(&mut self) -> Result<f64> {
        self.counted(SETTLE)?;
        self.counted(WINDOW)
    }

    /// The same, at once. What has been said before is as old as the pipe is long, which is less than a line.
    fn counted(&mut self, time: Duration) -> Result<f64> {
        let end = Instant::now() + time;
        let (mut trips, mut microseconds) = (0.0, 0.0);
        while Instant::now() < end {
            let line = self.lines.next().context("the program in the container has ended")??;
            let numbers = line.split_once(' ').and_then(|(trips, microseconds)| {
                Some((trips.parse::<f64>().ok()?, microseconds.parse::<f64>().ok()?))
            });
            let (more, longer) =
                numbers.with_context(|| format!("the program in the container says `{line}`"))?;
            (trips, microseconds) = (trips + more, microseconds + longer);
        }
        ensure!(microseconds > 0.0, "the program in the container says nothing");
        Ok(trips * 1e6 / microseconds)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_beside_the_goal() {
        let spread = |value| Spread::of(&[value]).unwrap();
        let attack =
            |name, attacked| Attack { name, calm: spread(4_000.0), attacked: spread(attacked) };
        let ratio = |name, ratio| Ratio { name, ratio, against: "no attack".into(), goal: GOAL };
        let figures = Figures {
            accelerator: Accelerator::Tcg,
            attacks: vec![attack("memory", 3_900.0), attack("files", 1_000.0)],
            ratios: vec![ratio("memory", 0.975), ratio("files", 0.25)],
        };
        let text = figures.table();
        let has =
            |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(has(&["memory", "4,000", "3,900"]), "{text}");
        assert!(has(&["memory", "0.97", "met"]) || has(&["memory", "0.98", "met"]), "{text}");
        assert!(has(&["files", "0.25", "missed"]), "{text}");
    }
}
