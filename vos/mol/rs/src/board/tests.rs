// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against services that have keys, and do not always answer.

use super::*;
use crate::report::Report;
use dvk_services::{
    read_question, write_answer, Error as ServicesError, Range, Refusal, Transacted, ANSWER_BYTES,
};
use std::cell::{Cell, RefCell};

/// Keys, with the revision that wrote them.
#[derive(Default)]
struct Services {
    keys: RefCell<BTreeMap<Vec<u8>, (Vec<u8>, u64)>>,
    revision: Cell<u64>,
    /// Why the next questions are refused.
    refusals: RefCell<Vec<Reason>>,
    asked: Cell<usize>,
}

impl Services {
    fn answer(&self, question: Question) -> Answer {
        self.asked.set(self.asked.get() + 1);
        if let Some(reason) = self.refusals.borrow_mut().pop() {
            return Answer::Refused(Refusal { reason, text: "not now".into() });
        }
        match question {
            Question::Read { key, exact, .. } => Answer::Range(self.range(&key, exact)),
            Question::Transact(transaction) => Answer::Transacted(self.transact(transaction)),
            other => panic!("{other:?}"),
        }
    }

    /// As many as fit an answer.
    fn range(&self, key: &[u8], exact: bool) -> Range {
        let keys = self.keys.borrow();
        let is_asked = |it: &&Vec<u8>| if exact { *it == key } else { it.starts_with(key) };
        let mut range =
            Range { count: keys.keys().filter(is_asked).count() as u64, ..Range::default() };
        let mut room = ANSWER_BYTES - 4096;
        for (key, (value, modified)) in keys.iter().filter(|(key, _)| is_asked(key)) {
            let Some(rest) = room.checked_sub(key.len() + value.len() + 64) else { break };
            room = rest;
            let (key, value, modified) = (key.clone(), value.clone(), *modified);
            let pair = Pair { key, value, created: modified, modified, version: 1, lease: None };
            range.pairs.push(pair);
        }
        range
    }

    fn transact(&self, transaction: Transaction) -> Transacted {
        let mut keys = self.keys.borrow_mut();
        let held = transaction.compare.iter().all(|compare| match compare.subject {
            Subject::Modified(revision) => {
                keys.get(&compare.key).map_or(0, |(_, modified)| *modified) == revision
            }
            _ => panic!("{compare:?}"),
        });
        self.revision.set(self.revision.get() + 1);
        for operation in if held { transaction.then } else { transaction.otherwise } {
            match operation {
                Operation::Put { key, value, .. } => {
                    keys.insert(key, (value, self.revision.get()));
                }
                Operation::Delete { key, .. } => drop(keys.remove(&key)),
                other => panic!("{other:?}"),
            }
        }
        Transacted { held, revision: self.revision.get(), responses: Vec::new() }
    }
}

impl Way for &Services {
    fn exchange(&self, memory: &mut [u8], question: u32) -> Result<u32, ServicesError> {
        let question = read_question(&memory[..question as usize])?;
        let answer = write_answer(&self.answer(question))?;
        memory[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len() as u32)
    }
}

fn board(services: &Services) -> Board<&Services> {
    Board::new(Client::by(services))
}

const LONG: Duration = Duration::from_secs(60);

fn manifest(prefer: &str) -> String {
    format!("[[server]]\nname = \"a\"\ncommand = [\"/bin/a\"]\n{prefer}\n")
}

#[test]
fn what_people_ask_is_insisted_on_while_nobody_leads_and_no_longer_than_they_say() {
    let services = Services::default();
    let board = board(&services);
    let asks: [&dyn Fn(Duration) -> Result<(), Error>; 3] =
        [&|limit| board.prefer("a", 2, limit), &|limit| board.stop("a", limit), &|limit| {
            board.start("a", limit)
        }];
    for ask in asks {
        *services.refusals.borrow_mut() =
            vec![Reason::Leaderless, Reason::Unknown, Reason::Leaderless];
        ask(LONG).unwrap();
        assert!(services.refusals.borrow().is_empty());
        *services.refusals.borrow_mut() = vec![Reason::Leaderless; 1000];
        let error = ask(Duration::from_millis(120)).unwrap_err();
        assert!(error.to_string().contains("not now"), "{error}");
        services.refusals.borrow_mut().clear();
    }
    let seen = board.look().unwrap();
    assert_eq!(seen.preferences["a"].0, 2);
    assert!(seen.stopped.is_empty(), "it was started again");
}

#[test]
fn what_is_said_last_holds_a_move_or_a_manifest() {
    let services = Services::default();
    let board = board(&services);
    let moved = || board.look().unwrap().preferences.get("a").map(|it| it.0);
    board.load(&manifest("prefer = 1")).unwrap();
    board.prefer("a", 2, LONG).unwrap();
    board.load(&manifest("prefer = 1\nenv = { A = \"1\" }")).unwrap();
    assert_eq!(moved(), Some(2), "it says nothing new of where the server is to be");
    board.load(&manifest("prefer = 3")).unwrap();
    assert_eq!(moved(), None);
    board.prefer("a", 2, LONG).unwrap();
    assert_eq!(moved(), Some(2));
    board.load(&manifest("")).unwrap();
    assert_eq!(moved(), Some(2), "it prefers no node");
    board.load(&manifest("prefer = 3")).unwrap();
    assert_eq!(moved(), None);
}

#[test]
fn all_nodes_are_seen_even_if_what_they_tell_does_not_fit_one_answer() {
    let services = Services::default();
    let board = board(&services);
    let report = |server: usize| Report {
        server: format!("server-{server}"),
        once: false,
        state: State::Running,
        pid: Some(7),
        term: None,
        since_ms: 0,
        failures: 0,
        last_exit: Some("x".repeat(800)),
        detail: None,
    };
    let told = Told { revision: 1, servers: (0..100).map(report).collect() };
    for node in 0..12 {
        board.come(node, Lease(1)).unwrap();
        board.tell(node, Lease(1), &told).unwrap();
    }
    assert!(services.range(STATES.as_bytes(), false).pairs.len() < 12, "it does not fit");
    let seen = board.look().unwrap();
    assert_eq!(seen.told.keys().copied().collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    assert!(seen.told.values().all(|it| *it == told));
    let asked = services.asked.get();
    board.look().unwrap();
    let questions = services.asked.get() - asked;
    assert!(questions < 5 + 12, "{questions}: what came at once is not asked for again");
}
