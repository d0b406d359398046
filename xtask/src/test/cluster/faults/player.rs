// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plays a script on a cluster whose nodes talk to each other meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use dvs_qemu::links::LinkSelector;
use dvs_qemu::scenario::{Action, Over, Script};
use dvs_qemu::{Cluster, Power};

use super::witness::Witness;
use crate::test::cluster::bed::{Bed, MEMBERS, PATIENCE};
use crate::test::cluster::mismatch::{expect, Mismatch};
use crate::test::cluster::program::Ended;

/// How long nodes talk when all is healed.
const HEALED: Duration = Duration::from_millis(1_500);
/// What frames may be as long as when nobody says otherwise.
const MTU: u32 = 1_500;
/// How long a program that makes control calls may run.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a control call may take on a node that is all right.
const CONTROL: Duration = Duration::from_secs(30);

/// What a witness wrote: its node, its life, whether the node lost power, and the lines.
pub(super) type Text = (usize, u32, bool, String);

/// A script that is being played.
struct Player<'scope, 'bed> {
    bed: &'bed Bed,
    scope: &'scope Scope<'scope, 'bed>,
    witnesses: BTreeMap<usize, Witness>,
    /// What those wrote that are gone.
    texts: Vec<Text>,
    /// Witnesses of nodes that boot come through here.
    came: Receiver<Result<Witness, Mismatch>>,
    comes: Sender<Result<Witness, Mismatch>>,
    /// How many are still to come.
    expected: usize,
    /// Nodes whose processors stand still.
    paused: BTreeSet<usize>,
    /// What has to be put right in the end, whatever happened since.
    strange: BTreeSet<usize>,
    moved: BTreeSet<[usize; 2]>,
}

/// Plays a script, and returns what the witnesses wrote.
pub(super) fn play(bed: &Bed, script: &Script) -> Result<Vec<Text>, Mismatch> {
    thread::scope(|scope| {
        let (comes, came) = channel();
        let mut player = Player {
            bed,
            scope,
            witnesses: BTreeMap::new(),
            texts: Vec::new(),
            came,
            comes,
            expected: 0,
            paused: BTreeSet::new(),
            strange: BTreeSet::new(),
            moved: BTreeSet::new(),
        };
        let played = player.play(script);
        // A failure may have left nodes that never answer; those who wait for them must not wait for long.
        let texts = player.texts;
        played.map(|()| texts)
    })
}

impl<'scope, 'bed: 'scope> Player<'scope, 'bed> {
    fn play(&mut self, script: &Script) -> Result<(), Mismatch> {
        (0..MEMBERS).for_each(|node| self.expect_witness(node, 0));
        while self.expected > 0 {
            self.welcome(PATIENCE)?;
        }
        let began = Instant::now();
        for step in &script.steps {
            loop {
                let now = began.elapsed();
                if now >= step.at {
                    break;
                }
                self.welcome(step.at - now)?;
            }
            self.act(&step.action)?;
        }
        self.put_right()?;
        while self.expected > 0 {
            self.welcome(PATIENCE)?;
        }
        for order in ["healed", "stop", "finish"] {
            if order == "stop" {
                thread::sleep(HEALED);
            }
            self.order_all(order)?;
        }
        let witnesses = std::mem::take(&mut self.witnesses);
        self.texts.extend(witnesses.into_values().map(|witness| witness.end(false)));
        Ok(())
    }

    /// Starts a witness in the background.
    fn expect_witness(&mut self, node: usize, life: u32) {
        let (bed, comes) = (self.bed, self.comes.clone());
        self.expected += 1;
        self.scope.spawn(move || {
            // If nobody listens, the script has failed.
            let _ = comes.send(Witness::start(bed.cluster(), node, life));
        });
    }

    /// Waits for as long for a new witness, and makes it known.
    fn welcome(&mut self, time: Duration) -> Result<(), Mismatch> {
        if self.expected == 0 {
            thread::sleep(time);
            return Ok(());
        }
        let witness = match self.came.recv_timeout(time) {
            Ok(witness) => witness?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
        };
        self.expected -= 1;
        self.witnesses.insert(witness.node, witness);
        let new = self.witnesses.values();
        for one in new {
            for other in self.witnesses.values() {
                one.target(other)?;
            }
        }
        Ok(())
    }

    /// Gives an order to all witnesses and waits until all have carried it out.
    fn order_all(&mut self, order: &str) -> Result<(), Mismatch> {
        let answer = match order {
            "stop" => "stopped",
            "finish" => "end",
            other => other,
        };
        self.witnesses.values().try_for_each(|witness| witness.order(order))?;
        self.witnesses.values_mut().try_for_each(|witness| witness.answers(answer))
    }

    fn act(&mut self, action: &Action) -> Result<(), Mismatch> {
        let bed = self.bed;
        let switch = bed.cluster().switch();
        let power = |act: fn(&Cluster, usize) -> dvs_qemu::Result<()>, node: usize| {
            bed.act(&action.to_string(), |cluster| act(cluster, node))
        };
        match action {
            Action::Kill(node) => {
                power(|cluster, node| cluster.node(node).kill(), *node)?;
                self.strange.remove(node);
                if let Some(witness) = self.witnesses.remove(node) {
                    self.texts.push(witness.end(true));
                }
            }
            Action::Start(node) => {
                power(|cluster, node| cluster.node(node).start(), *node)?;
                let life = self.texts.iter().filter(|(one, ..)| one == node).count() as u32;
                self.expect_witness(*node, life);
            }
            Action::Pause(node) => {
                power(|cluster, node| cluster.node(node).pause(), *node)?;
                self.paused.insert(*node);
            }
            Action::Resume(node) => {
                power(|cluster, node| cluster.node(node).resume(), *node)?;
                self.paused.remove(node);
            }
            // A machine that is off has no carrier, and one that is started has its cable in.
            Action::Cable { node, up } if self.has_power(*node) => {
                bed.act(&action.to_string(), |cluster| cluster.node(*node).set_carrier(None, *up))?;
            }
            Action::Cable { .. } => {}
            Action::Cut(links) => switch.cut(*links),
            Action::Partition(groups) => switch.partition(groups.clone()),
            Action::Heal => switch.heal(LinkSelector::All),
            Action::Faults(links, faults) => switch.set_faults(*links, *faults),
            Action::Mtu { node, bytes } => {
                self.strange.insert(*node);
                self.control(*node, &format!("mtu {bytes}"))?;
            }
            Action::Transport { ends, over } => {
                self.moved.insert(*ends);
                let chooser = ends.iter().find(|node| self.is_awake(**node));
                if let Some(chooser) = chooser {
                    // That it cannot be done may be due to the faults.
                    self.choose(*chooser, *ends, *over, &["--no-wait", "--timeout", "5"])?;
                }
            }
        }
        Ok(())
    }

    /// Undoes what may not have been undone because a node was away when it was to be, and waits until the cluster is whole.
    fn put_right(&mut self) -> Result<(), Mismatch> {
        self.bed.recover()?;
        for node in std::mem::take(&mut self.strange) {
            self.control(node, &format!("mtu {MTU}"))?;
        }
        self.bed.await_all_ready("waiting for the cluster after the script")?;
        for ends in std::mem::take(&mut self.moved) {
            let chosen = self.choose(ends[0], ends, Over::Ethernet, &["--timeout", "25"])?;
            let step = format!("choosing Ethernet for the link between nodes {ends:?} again");
            expect(chosen.succeeded(), &step, "that it carries the link", chosen)?;
        }
        Ok(())
    }

    /// Whether a node's machine is on, though its processors may stand still.
    fn has_power(&self, node: usize) -> bool {
        let status = self.bed.cluster().status();
        status.is_ok_and(|status| status.nodes[node].power != Power::Off)
    }

    /// Whether a node can do something.
    fn is_awake(&self, node: usize) -> bool {
        self.has_power(node) && self.witnesses.contains_key(&node) && !self.paused.contains(&node)
    }

    /// Has a node make a control call, if it can. That it refuses may be due to the faults.
    fn control(&self, node: usize, order: &str) -> Result<(), Mismatch> {
        if !self.is_awake(node) {
            return Ok(());
        }
        let mut guest = self.bed.start_on(node, &["dvk-scenarios", "control"], LIMIT)?;
        guest.say(order)?;
        guest.line_within(CONTROL).map(drop)
    }

    /// Chooses what carries the link between two nodes.
    fn choose(
        &self,
        chooser: usize,
        ends: [usize; 2],
        over: Over,
        how: &[&str],
    ) -> Result<Ended, Mismatch> {
        let ([one, other], over) = (ends.map(|node| node.to_string()), over.to_string());
        let words = ["link", "set", &one, &other, "--transport", &over];
        self.bed.dvsctl(chooser, &[&words[..], how].concat())
    }
}
