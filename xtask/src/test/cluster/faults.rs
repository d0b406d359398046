// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults by script: while a cluster suffers what follows from a seed, its nodes talk to each other, and what each did and saw is
//! checked in the end.

mod checker;
mod history;
mod player;
mod witness;

use std::fs;

use dvs_qemu::scenario::Script;

use super::bed::{Bed, MEMBERS};
use super::mismatch::{expect, Mismatch};

/// How many violations a failure shows.
const SHOWN: usize = 12;

/// Which scripts are played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scripts {
    /// From what they follow.
    pub(crate) seed: u64,
    /// How many.
    pub(crate) count: u64,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    seed: u64,
    number: u64,
    script: Script,
}

impl Scripts {
    /// All, by number.
    pub(super) fn all(self) -> impl Iterator<Item = Faults> {
        let Self { seed, count } = self;
        (0..count).map(move |number| Faults {
            seed,
            number,
            script: Script::new(seed, number, MEMBERS),
        })
    }
}

impl Faults {
    /// What it is called. No name is the beginning of another's.
    pub(super) fn name(&self) -> String {
        format!("faults {} of seed {}: {}", self.number, self.seed, self.script.name)
    }

    /// Plays it, and checks what the nodes saw.
    pub(super) fn run(&self, bed: &mut Bed) -> Result<(), Mismatch> {
        let Self { seed, number, script } = self;
        let again = format!(
            "cargo xtask test cluster --scenarios {} --seed {seed} --only 'faults {number} of'",
            number + 1
        );
        let told = |mismatch: Mismatch| Mismatch {
            came: format!("{}\nscript:\n{script}\nagain: {again}", mismatch.came),
            ..mismatch
        };
        let texts = player::play(bed, script).map_err(told)?;
        let step = "checking the histories";
        let directory = bed.logs().join(format!("faults-{seed}-{number}"));
        let kept = fs::create_dir_all(&directory).and_then(|()| {
            texts.iter().try_for_each(|(node, life, _, text)| {
                fs::write(directory.join(format!("node{node}-life{life}.txt")), text)
            })
        });
        kept.map_err(|error| Mismatch::new(step, "they can be kept", error))?;
        let histories = witness::read(&texts)
            .map_err(|why| told(Mismatch::new(step, "histories that can be read", why)))?;
        let found = checker::check(&histories);
        let events: usize = histories.iter().map(|history| history.events.len()).sum();
        bed.note(format!("{} lines in {} histories", events, histories.len()));
        let shown: Vec<_> = found.iter().take(SHOWN).map(String::as_str).collect();
        let rules = checker::rules(&found).into_iter().collect::<Vec<_>>().join(", ");
        let came = format!(
            "{} violations ({rules})\n{}\nhistories: {}",
            found.len(),
            shown.join("\n"),
            directory.display()
        );
        expect(found.is_empty(), step, "nothing that violates a rule", came).map_err(told)
    }
}
