// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn ops(seed: u64, number: u64) -> Vec<Vec<Op>> {
    let program = Program::new(seed, number);
    (0..program.threads).map(|thread| program.script(thread).collect()).collect()
}

/// Every operation of that many programs.
fn many(programs: u64) -> Vec<Op> {
    (0..programs).flat_map(|number| ops(1, number)).flatten().collect()
}

#[test]
fn the_same_seed_gives_the_same_program() {
    for number in 0..20 {
        assert_eq!(ops(1, number), ops(1, number));
        assert_ne!(ops(1, number), ops(2, number));
        assert_ne!(ops(1, number), ops(1, number + 1));
    }
}

#[test]
fn programs_end() {
    for number in 0..50 {
        let program = Program::new(3, number);
        let calls = ops(3, number).concat().iter().filter(|op| matches!(op, Op::Call(_))).count();
        // Each thread ends with the phrase in which its share of the calls is used up.
        let share = (program.calls as usize / program.threads) * program.threads;
        assert!((share..share + program.threads * PHRASE_MAX).contains(&calls), "{calls}");
    }
}

#[test]
fn every_call_is_made_both_as_it_should_be_and_spoilt() {
    let mut counts = BTreeMap::new();
    for op in many(60) {
        if let Op::Call(invocation) = op {
            let call = &CALLS[usize::from(invocation.call)];
            let proper = invocation.block == Block::Proper && invocation.number == call.number;
            let count: &mut [u32; 2] = counts.entry(call.name).or_default();
            count[usize::from(proper)] += 1;
        }
    }
    assert_eq!(counts.len(), CALLS.len(), "{counts:?}");
    for (name, [spoilt, proper]) in counts {
        // What undoes the world is too rare to be spoilt in so few programs.
        let spoilt_enough = spoilt > 0 || proper < 100;
        assert!(spoilt_enough && proper > 4, "{name}: {spoilt} spoilt, {proper} proper");
    }
}

#[test]
fn every_kind_of_operation_value_and_place_occurs() {
    let mut seen = BTreeSet::new();
    let first_word = |text: String| {
        text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned()
    };
    // The rarest of them is one in ten programs.
    for op in many(300) {
        seen.insert(first_word(format!("{op:?}")));
        if let Op::Map { mapping, .. } = op {
            seen.insert(format!("{mapping:?}"));
        }
        if let Op::Die(death) = op {
            seen.insert(format!("{death:?}"));
        }
        let Op::Call(invocation) = op else { continue };
        seen.insert(first_word(format!("{:?}", invocation.block)));
        let fields = CALLS[usize::from(invocation.call)].fields.len();
        for value in &invocation.values[..fields] {
            seen.insert(first_word(format!("{value:?}")));
            if let Block::At(place) = invocation.block {
                seen.insert(first_word(format!("{place:?}")));
            }
            match value {
                Value::Somebody(somebody) => drop(seen.insert(first_word(format!("{somebody:?}")))),
                Value::Place(place) => drop(seen.insert(first_word(format!("{place:?}")))),
                _ => {}
            }
        }
    }
    let expected = [
        "Call",
        "Open",
        "IfLost",
        "IfAsked",
        "Close",
        "Duplicate",
        "Poll",
        "Epoll",
        "Map",
        "Scribble",
        "Signal",
        "Pause",
        "Fork",
        "Starve",
        "Die",
        "Exits",
        "Killed",
        "Replaced",
        "Fresh",
        "Shared",
        "ReadOnly",
        "ReadWrite",
        "NoAccess",
        "Unmapped",
        "Discarded",
        "Proper",
        "Misaligned",
        "AtEnd",
        "Cut",
        "At",
        "Number",
        "Somebody",
        "Place",
        "Lent",
        "Incarnation",
        "Interface",
        "Mac",
        "Bytes",
        "File",
        "Former",
        "Source",
        "Stranger",
        "Lender",
        "Server",
        "Remote",
        "Forged",
        "Page",
        "OwnBlock",
        "Hole",
        "Null",
        "EndOfUser",
        "NonCanonical",
        "Kernel",
        "Last",
    ];
    for name in expected {
        assert!(seen.contains(name), "{name} never occurs");
    }
}

#[test]
fn what_undoes_the_world_is_rare() {
    let all = many(60);
    let calls = |number| {
        all.iter()
            .filter(|op| {
                matches!(op, Op::Call(invocation) if CALLS[usize::from(invocation.call)].number == number)
            })
            .count()
    };
    assert!((1..200).contains(&calls(ioctl::DVS_END)), "{}", calls(ioctl::DVS_END));
    assert!(calls(ioctl::DC_DESTROY) < 2_000, "{}", calls(ioctl::DC_DESTROY));
}
