// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the tests of the core's queues, tables and ports share: storage that runs out on demand,
//! and how properties are run.
#![allow(dead_code, reason = "each test binary uses a part")]

use dvk_core::abi::ioctl::Info;
use dvk_core::abi::{Endpoint, Message};
use dvk_core::fifo::{Array, NoMemory, Storage};
use dvk_core::port::Port;
use dvk_core::table::BlockStorage;
use proptest::test_runner::{Config, RngSeed};
use std::cell::Cell;
use std::num::NonZeroU32;

thread_local! {
    /// Allocations that still succeed before one fails.
    static UNTIL_REFUSAL: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Makes the allocation after the next `successes` of this thread fail, once.
pub(crate) fn refuse_allocation_after(successes: u32) {
    UNTIL_REFUSAL.set(Some(successes));
}

/// Undoes [`refuse_allocation_after`]; returns whether the failure was still to come.
pub(crate) fn allow_allocations() -> bool {
    UNTIL_REFUSAL.take().is_some()
}

fn allocate() -> Result<(), NoMemory> {
    match UNTIL_REFUSAL.get() {
        None => Ok(()),
        Some(0) => {
            UNTIL_REFUSAL.set(None);
            Err(NoMemory)
        }
        Some(successes) => {
            UNTIL_REFUSAL.set(Some(successes - 1));
            Ok(())
        }
    }
}

/// An [`Array`] each of whose pushes is an allocation.
#[derive(Clone, Debug)]
pub(crate) struct TestArray<T>(Vec<T>);

impl<T> Default for TestArray<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Array<T> for TestArray<T> {
    fn as_slice(&self) -> &[T] {
        &self.0
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.0
    }

    fn push(&mut self, element: T) -> Result<(), NoMemory> {
        allocate()?;
        self.0.push(element);
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

/// Storage over `Vec` and `Box`.
pub(crate) struct TestStorage;

impl Storage for TestStorage {
    type Array<T> = TestArray<T>;
}

impl BlockStorage for TestStorage {
    type Boxed<T> = Box<T>;

    fn boxed<T>(value: T) -> Option<Box<T>> {
        allocate().ok()?;
        Some(Box::new(value))
    }
}

/// `cases` runs that are the same every time; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` ask for
/// more and for others.
pub(crate) fn reproducible(cases: u32) -> Config {
    let from_environment = Config::default();
    Config {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() {
            from_environment.cases
        } else {
            cases
        },
        rng_seed: match from_environment.rng_seed {
            RngSeed::Random => RngSeed::Fixed(0x4456_5300),
            fixed => fixed,
        },
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..from_environment
    }
}

/// The endpoint of `slot` at `generation`, which is not 0.
pub(crate) fn endpoint(slot: u32, generation: u32) -> Endpoint {
    Endpoint::new(slot, NonZeroU32::new(generation).expect("a generation"))
}

/// A message that says `number`.
pub(crate) fn numbered(number: u64) -> Message {
    let mut message = Message::new(7);
    message.payload[40..].copy_from_slice(&number.to_le_bytes());
    message
}

/// What [`numbered`] made the message say.
pub(crate) fn number_of(message: &Message) -> u64 {
    u64::from_le_bytes(message.payload[40..].try_into().expect("eight bytes"))
}

/// Whether a failure asked for by [`refuse_allocation_after`] is still to come.
pub(crate) fn refusal_is_pending() -> bool {
    UNTIL_REFUSAL.get().is_some()
}

/// What a port says of itself.
fn described(port: &Port<TestStorage>) -> Info {
    let mut info = Info::default();
    port.describe(&mut info);
    info
}

/// Endpoints that wait to send to this one, and those that wait for its reply.
pub(crate) fn queues(port: &Port<TestStorage>) -> (u32, u32) {
    let info = described(port);
    (info.senders, info.clients)
}

/// Messages received and sent.
pub(crate) fn counts(port: &Port<TestStorage>) -> (u64, u64) {
    let info = described(port);
    (info.received, info.sent)
}
