// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the instructions of an operation go.
//!
//! The guest says when it repeats the same batch over and over. In QEMU's log, a batch begins where the kernel's `getpgid` does, and
//! ends at `getsid`; what is between is counted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use dvk_bench::{Line, Mechanism, Policy};
use dvs_config::{Power, Run};
use dvs_qemu::accel::Accelerator;
use dvs_qemu::boot_once_watched;
use serde::Serialize;

use super::super::profile::{Addresses, Count, Shares, Tracing};
use super::super::symbols::Symbols;
use super::{machine, Arguments, Clock, PROGRAM};
use crate::artefacts::Artefacts;
use crate::step::{Session, Step};

const BEGIN: &str = "__x64_sys_getpgid";
const END: &str = "__x64_sys_getsid";
/// How long the machine may take to boot and to be seen for a batch.
const PATIENCE: Duration = Duration::from_secs(600);

/// A profile of one operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Profile {
    mechanism: Mechanism,
    policy: Policy,
    /// Bytes copied by an operation; a round trip if `None`.
    copy: Option<u32>,
    #[serde(flatten)]
    shares: Shares,
}

/// Boots a machine and watches it.
pub(super) fn take(
    arguments: &Arguments,
    mechanism: Mechanism,
    session: &Session,
    step: &mut Step,
    built: &Artefacts,
) -> Result<Profile> {
    let symbols = Arc::new(Symbols::of(&built.kernel.image)?);
    let (policy, copy) = (arguments.policy, arguments.copy);
    let mut options = machine(built, Clock::Instructions, Accelerator::Counting)?;
    let mut command = vec![PROGRAM.to_owned(), format!("--repeat={mechanism}")];
    command.push(format!("--policy={}", format!("{policy:?}").to_lowercase()));
    command.extend(copy.map(|bytes| format!("--copy={bytes}")));
    options.run = Some(Run { command, power: Power::Off, services: false });
    let logs = session.store.directory("logs")?.join("bench-ipc-profile");
    options.logs = Some(logs.clone());
    step.now(&format!("booting to profile {mechanism}"));
    let mut counted = None;
    boot_once_watched(&options, PATIENCE, |text, qmp| {
        let Some(Ok(Line::Repeating { operations })) = Line::parse(text) else { return true };
        step.now(&format!("watching {operations} operations of {mechanism}"));
        let known = Arc::clone(&symbols);
        let tracing = Tracing::start(qmp, move |log| batch(log, &known));
        counted = Some((operations, tracing.and_then(Tracing::result)));
        false
    })?;
    let console = logs.join("console.log");
    let (operations, count) = counted.with_context(|| {
        format!("profiling {mechanism}: the program did not begin; console: {}", console.display())
    })?;
    Ok(Profile { mechanism, policy, copy, shares: Shares::new(&count?, &symbols, operations) })
}

/// Counts the first whole batch.
fn batch(log: Addresses, symbols: &Symbols) -> Result<Count> {
    let mark =
        |name| symbols.address(name).with_context(|| format!("the kernel has no symbol {name}"));
    let (begin, end) = (mark(BEGIN)?, mark(END)?);
    let mut count = Count::new(symbols);
    let mut counting = false;
    for address in log {
        let address = address?;
        if address == begin {
            counting = true;
        } else if address == end && counting {
            return Ok(count);
        }
        if counting {
            count.add(symbols, address);
        }
    }
    bail!("QEMU's log ends before a whole batch was seen")
}

impl Profile {
    /// For people.
    pub(super) fn table(&self) -> String {
        let Self { mechanism, policy, copy, shares } = self;
        let what = match copy {
            None => "round trip".to_owned(),
            Some(bytes) => format!("copy of {bytes} bytes"),
        };
        let Shares { operations, instructions, .. } = shares;
        shares.table(&format!(
            "{mechanism}, {policy:?} policy, one CPU: {instructions:.0} instructions per {what}, over {operations}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::profile::tests::{addresses, log};
    use super::*;

    #[test]
    fn a_batch_is_counted_from_mark_to_mark() {
        let base = 0xffff_ffff_8100_0000;
        let named = |offset, name: &str| (base + offset, name.to_owned());
        let symbols =
            Symbols::new(vec![named(0x00, BEGIN), named(0x10, END), named(0x20, "schedule")]);
        let schedule = [base + 0x20, base + 0x24, base + 0x20, base + 0x28];
        let whole = log(&[base + 0x20, base + 0x10, base, base + 4])
            + &log(&schedule)
            + &log(&[0x40_0000, base + 0x10, base]);
        let expected = [base, base + 4].into_iter().chain(schedule).chain([0x40_0000]);
        let mut count = Count::new(&symbols);
        expected.for_each(|address| count.add(&symbols, address));
        assert_eq!(batch(addresses(whole.clone()), &symbols).unwrap(), count);
        let half = batch(addresses(whole[..200].to_owned()), &symbols).unwrap_err();
        assert_eq!(half.to_string(), "QEMU's log ends before a whole batch was seen");
    }
}
