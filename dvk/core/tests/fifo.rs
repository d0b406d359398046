// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The queue against `VecDeque`.

mod model;

use dvk_core::fifo::{Fifo, NoMemory};
use model::{allow_allocations, refuse_allocation_after, reproducible, TestArray};
use proptest::prelude::*;
use std::collections::VecDeque;

type Queue = Fifo<u8, TestArray<Option<u8>>>;

#[derive(Clone, Debug)]
enum Op {
    Push(u8),
    PushWithoutMemory(u8),
    /// Takes the first element that leaves this remainder modulo that.
    Take(u8, u8),
    TakeFirst,
    Change(u8, u8),
    Retain(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    let class = || (1u8..5).prop_flat_map(|modulus| (0..modulus, Just(modulus)));
    prop_oneof![
        6 => any::<u8>().prop_map(Op::Push),
        1 => any::<u8>().prop_map(Op::PushWithoutMemory),
        3 => class().prop_map(|(rest, modulus)| Op::Take(rest, modulus)),
        3 => Just(Op::TakeFirst),
        1 => class().prop_map(|(rest, modulus)| Op::Change(rest, modulus)),
        1 => class().prop_map(|(rest, modulus)| Op::Retain(rest, modulus)),
    ]
}

fn position(model: &VecDeque<u8>, rest: u8, modulus: u8) -> Option<usize> {
    model.iter().position(|element| element % modulus == rest)
}

proptest! {
    #![proptest_config(reproducible(300))]

    #[test]
    fn behaves_like_a_deque(ops in prop::collection::vec(op(), 0..120)) {
        let (mut queue, mut model) = (Queue::default(), VecDeque::new());
        for op in ops {
            match op {
                Op::Push(element) => {
                    prop_assert_eq!(queue.push(element), Ok(()));
                    model.push_back(element);
                }
                Op::PushWithoutMemory(element) => {
                    refuse_allocation_after(0);
                    prop_assert_eq!(queue.push(element), Err(NoMemory));
                    prop_assert!(!allow_allocations());
                }
                Op::Take(rest, modulus) => {
                    let expected = position(&model, rest, modulus).and_then(|at| model.remove(at));
                    prop_assert_eq!(queue.take(|element| element % modulus == rest), expected);
                }
                Op::TakeFirst => prop_assert_eq!(queue.take(|_| true), model.pop_front()),
                Op::Change(rest, modulus) => {
                    let found = queue.find(|element| element % modulus == rest);
                    let expected = position(&model, rest, modulus).map(|at| &mut model[at]);
                    prop_assert_eq!(&found, &expected);
                    if let (Some(found), Some(expected)) = (found, expected) {
                        *found = found.wrapping_add(1);
                        *expected = expected.wrapping_add(1);
                    }
                }
                Op::Retain(rest, modulus) => {
                    queue.retain(|element| element % modulus == rest);
                    model.retain(|element| element % modulus == rest);
                }
            }
            prop_assert_eq!(queue.len(), model.len());
            prop_assert_eq!(queue.is_empty(), model.is_empty());
        }
        let left: Vec<u8> = std::iter::from_fn(|| queue.take(|_| true)).collect();
        prop_assert_eq!(left, Vec::from(model));
    }
}
