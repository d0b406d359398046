// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Grants against a model: who may use what, which ids live, and that the memory of every grant is
//! given back once, and never while it is used.

mod model;

use dvk_core::abi::errno::Errno;
use dvk_core::abi::ioctl::{GRANT_READ, GRANT_WRITE};
use dvk_core::abi::limits::MAX_GRANTS;
use dvk_core::abi::Endpoint;
use dvk_core::grants::{Grants, Loan, Revoked, Use};
use model::{allow_allocations, refuse_allocation_after, reproducible, TestStorage};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::num::NonZeroU32;

type Book = Grants<u32, TestStorage>;

fn endpoint(slot: u32) -> Endpoint {
    Endpoint::new(slot, NonZeroU32::MIN)
}

fn loan() -> Loan {
    Loan { address: 0x1000, len: 100, to: endpoint(70), access: GRANT_READ }
}

fn lend(book: &mut Book, loan: Loan, memory: u32) -> u64 {
    book.add(loan, memory).expect("it can be lent")
}

/// Begins and ends a use.
fn use_it(book: &mut Book, id: u64, by: u32, access: u32, at: u64, len: u64) -> Result<u64, Errno> {
    let (used, address, _) = book.begin(id, endpoint(by), access, at, len)?;
    assert_eq!(book.end(used), None, "a grant in force keeps its memory");
    Ok(address)
}

#[test]
fn a_grant_is_for_its_grantee_access_and_range() {
    let mut book = Book::default();
    let id = lend(&mut book, loan(), 1);
    assert_ne!(id, 0);
    assert_eq!(use_it(&mut book, id, 70, GRANT_READ, 0, 100), Ok(0x1000));
    assert_eq!(use_it(&mut book, id, 70, GRANT_READ, 40, 60), Ok(0x1028));
    assert_eq!(use_it(&mut book, id, 70, GRANT_READ, 100, 0), Ok(0x1064));
    let mut denied = |by, access, at, len| {
        assert_eq!(use_it(&mut book, id, by, access, at, len), Err(Errno::Denied));
    };
    denied(71, GRANT_READ, 0, 1);
    denied(70, GRANT_WRITE, 0, 1);
    denied(70, GRANT_READ | GRANT_WRITE, 0, 1);
    denied(70, GRANT_READ, 0, 101);
    denied(70, GRANT_READ, 101, 0);
    denied(70, GRANT_READ, 1, u64::MAX);
    denied(70, GRANT_READ, u64::MAX, 2);
    let id = lend(&mut book, Loan { to: Endpoint::ANY, access: GRANT_WRITE, ..loan() }, 2);
    assert_eq!(use_it(&mut book, id, 99, GRANT_WRITE, 0, 1), Ok(0x1000));
    assert_eq!(use_it(&mut book, id, 99, GRANT_READ, 0, 1), Err(Errno::Denied));
}

#[test]
fn a_loan_of_nothing_to_nobody_or_beyond_the_end_is_invalid() {
    for wrong in [
        Loan { len: 0, ..loan() },
        Loan { address: u64::MAX, len: 2, ..loan() },
        Loan { access: 0, ..loan() },
        Loan { access: 4, ..loan() },
        Loan { to: Endpoint::NONE, ..loan() },
        Loan { to: Endpoint::SELF, ..loan() },
    ] {
        assert_eq!(wrong.check(), Err(Errno::Invalid));
        assert_eq!(Book::default().add(wrong, 1), Err((Errno::Invalid, 1)));
    }
}

#[test]
fn ids_of_what_is_gone_never_name_its_successor() {
    let mut book = Book::default();
    let mut seen = BTreeSet::new();
    for round in 0..100 {
        let id = lend(&mut book, loan(), round);
        assert!(seen.insert(id));
        assert_eq!(book.revoke(id), Ok(Revoked::Unused(round)));
        assert_eq!(book.revoke(id), Err(Errno::Denied));
        let next = lend(&mut book, loan(), 1000);
        assert_eq!(use_it(&mut book, id, 70, GRANT_READ, 0, 1), Err(Errno::Denied));
        assert_eq!(book.revoke(next), Ok(Revoked::Unused(1000)));
        seen.insert(next);
    }
    for made_up in [0, 1, u64::MAX, 1 << 32, 0xffff_ffff] {
        assert_eq!(book.revoke(made_up), Err(Errno::Denied));
        assert_eq!(use_it(&mut book, made_up, 70, GRANT_READ, 0, 1), Err(Errno::Denied));
    }
}

#[test]
fn a_grant_in_use_ends_with_its_last_use() {
    let mut book = Book::default();
    let id = lend(&mut book, loan(), 7);
    let begin = |book: &mut Book| book.begin(id, endpoint(70), GRANT_READ, 0, 1).map(|it| it.0);
    let (first, second) = (begin(&mut book).unwrap(), begin(&mut book).unwrap());
    assert!(book.is_in_use() && !book.is_ending(id));
    assert_eq!(book.revoke(id), Ok(Revoked::Ending));
    assert_eq!(book.len(), 0);
    assert_eq!(begin(&mut book), Err(Errno::Denied));
    assert_eq!(book.end(first), None);
    assert!(book.is_ending(id));
    assert_eq!(book.revoke(id), Ok(Revoked::Ending), "who was interrupted may wait again");
    assert_eq!(book.end(second), Some(7));
    assert!(!book.is_in_use() && !book.is_ending(id));
    assert_eq!(book.revoke(id), Err(Errno::Denied));
}

#[test]
fn there_are_so_many_and_no_more() {
    let mut book = Book::default();
    let ids: Vec<_> = (0..MAX_GRANTS).map(|n| lend(&mut book, loan(), n)).collect();
    assert_eq!(book.len(), MAX_GRANTS);
    assert_eq!(book.add(loan(), 9), Err((Errno::Limit, 9)));
    assert_eq!(book.revoke(ids[5]), Ok(Revoked::Unused(5)));
    lend(&mut book, loan(), 9);
    assert_eq!(book.add(loan(), 9), Err((Errno::Limit, 9)));
}

#[test]
fn without_memory_nothing_has_changed() {
    let mut book = Book::default();
    for successes in 0..2 {
        refuse_allocation_after(successes);
        assert_eq!(book.add(loan(), 3), Err((Errno::NoMemory, 3)));
        assert!(!allow_allocations());
    }
    let id = lend(&mut book, loan(), 4);
    assert_eq!(use_it(&mut book, id, 70, GRANT_READ, 0, 1), Ok(0x1000));
}

#[derive(Clone, Debug)]
enum Act {
    Lend,
    Begin(prop::sample::Index),
    End(prop::sample::Index),
    Revoke(prop::sample::Index),
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => Just(Act::Lend),
        8 => index().prop_map(Act::Begin),
        6 => index().prop_map(Act::End),
        6 => index().prop_map(Act::Revoke),
        1 => Just(Act::Close),
    ]
}

/// What the model knows of a grant.
struct Known {
    id: u64,
    memory: u32,
    revoked: bool,
    uses: Vec<Use>,
    given_back: bool,
}

impl Known {
    fn give_back(&mut self) {
        assert!(!self.given_back, "the memory of {:#x} was given back twice", self.id);
        assert!(self.revoked && self.uses.is_empty(), "{:#x} is in force or in use", self.id);
        self.given_back = true;
    }
}

proptest! {
    #![proptest_config(reproducible(300))]

    #[test]
    fn memory_is_given_back_once_and_never_while_it_is_used(
        acts in prop::collection::vec(act(), 0..200),
    ) {
        let mut book = Book::default();
        let mut all: Vec<Known> = Vec::new();
        let mut closed = false;
        for act in acts {
            match act {
                Act::Lend => {
                    let memory = all.len() as u32;
                    match book.add(loan(), memory) {
                        Ok(id) => {
                            prop_assert!(!closed && all.iter().all(|known| known.id != id));
                            let uses = Vec::new();
                            all.push(Known { id, memory, revoked: false, uses, given_back: false });
                        }
                        Err((error, back)) => {
                            prop_assert!(closed && error == Errno::NotConnected && back == memory);
                        }
                    }
                }
                Act::Begin(at) if !all.is_empty() => {
                    let known = at.index(all.len());
                    let known = &mut all[known];
                    match book.begin(known.id, endpoint(70), GRANT_READ, 0, 1) {
                        Ok((used, _, memory)) => {
                            prop_assert!(!known.revoked && !closed && *memory == known.memory);
                            prop_assert!(book.is_valid(&used));
                            known.uses.push(used);
                        }
                        Err(Errno::Stale) => prop_assert!(closed),
                        Err(error) => prop_assert!(known.revoked && error == Errno::Denied),
                    }
                }
                Act::End(at) if !all.is_empty() => {
                    let known = at.index(all.len());
                    let known = &mut all[known];
                    if let Some(used) = known.uses.pop() {
                        prop_assert_eq!(book.is_valid(&used), !known.revoked);
                        if let Some(memory) = book.end(used) {
                            prop_assert_eq!(memory, known.memory);
                            known.give_back();
                        }
                        let over = known.revoked && known.uses.is_empty();
                        prop_assert_eq!(known.given_back, over);
                    }
                }
                Act::Revoke(at) if !all.is_empty() => {
                    let known = at.index(all.len());
                    let known = &mut all[known];
                    let result = book.revoke(known.id);
                    match result {
                        Ok(Revoked::Unused(memory)) => {
                            prop_assert!(!known.revoked && memory == known.memory);
                            known.revoked = true;
                            known.give_back();
                        }
                        Ok(Revoked::Ending) => {
                            prop_assert!(closed || !known.uses.is_empty());
                            known.revoked = true;
                        }
                        Err(error) => prop_assert!(error == Errno::Denied && known.given_back),
                    }
                }
                Act::Close => {
                    book.close();
                    closed = true;
                    for known in &mut all {
                        known.revoked = true;
                    }
                    let mut cursor = 0;
                    while let Some(memory) = book.take_unused(&mut cursor) {
                        all[memory as usize].give_back();
                    }
                }
                Act::Begin(_) | Act::End(_) | Act::Revoke(_) => {}
            }
            let live = all.iter().filter(|known| !known.revoked).count();
            prop_assert_eq!(book.len() as usize, live);
            prop_assert_eq!(book.is_in_use(), all.iter().any(|known| !known.uses.is_empty()));
        }
        book.close();
        for known in &mut all {
            known.revoked = true;
            while let Some(used) = known.uses.pop() {
                if book.end(used).is_some() {
                    known.give_back();
                }
            }
        }
        let mut cursor = 0;
        while let Some(memory) = book.take_unused(&mut cursor) {
            all[memory as usize].give_back();
        }
        prop_assert!(all.iter().all(|known| known.given_back));
    }
}
