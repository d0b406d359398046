// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the instructions of an operation between two nodes go, on each of them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use dvk_bench::{Carrier, Work};
use serde::Serialize;

use super::super::profile::{Addresses, Count, Shares, Tracing};
use super::super::symbols::Symbols;
use super::pair::Pair;

/// How often each node is watched.
const WATCHES: u64 = 8;
/// Instructions that a node is to execute while it is watched. To log one takes a thousand times as long as to execute it.
const WATCHED: u64 = 300_000;
/// Operations before: congestion windows grow.
const WARM_UP: u64 = 200;

/// A profile of one operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Profile {
    carrier: Carrier,
    work: Work,
    client: Shares,
    server: Shares,
}

impl Profile {
    /// Watches one node after the other while they work.
    ///
    /// # Errors
    /// When the nodes cannot do that work, or QEMU does not say what it executes.
    pub(super) fn take(
        pair: &mut Pair,
        vmlinux: &Path,
        carrier: Carrier,
        work: Work,
    ) -> Result<Self> {
        let symbols = Arc::new(Symbols::of(vmlinux)?);
        pair.attach(carrier)?;
        pair.hold_daemons()?;
        let before = pair.executed()?;
        pair.measure(carrier, work, 1, WARM_UP)?;
        let after = pair.executed()?;
        let mut watch = |node: usize| -> Result<Shares> {
            let each = (after[node] - before[node]) / WARM_UP;
            let operations = (WATCHED / each.max(1)).max(1);
            let mut count = Count::new(&symbols);
            for _ in 0..WATCHES {
                let known = Arc::clone(&symbols);
                let go_on = move |log: Addresses| {
                    for address in log {
                        count.add(&known, address?);
                    }
                    Ok(count)
                };
                let mut tracing = Tracing::start(&pair.qmp(node), go_on)?;
                let measured = pair.measure(carrier, work, 1, operations);
                tracing.stop()?;
                count = tracing.result()?;
                measured?;
            }
            Ok(Shares::new(&count, &symbols, WATCHES * operations))
        };
        Ok(Self { carrier, work, client: watch(0)?, server: watch(1)? })
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let Self { carrier, work, client, server } = self;
        let of = |whose: &str, shares: &Shares| {
            let Shares { operations, instructions, .. } = shares;
            shares.table(&format!(
                "{carrier}, {work}, the {whose}: {instructions:.0} instructions each, over {operations}"
            ))
        };
        format!("{}\n{}", of("client", client), of("server", server))
    }
}
