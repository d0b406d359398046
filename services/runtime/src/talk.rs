// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the processes that make a container tell each other: lines of JSON.
//!
//! The keeper stays outside and sees the container's first process end. Between the two, and started by the keeper, is one that
//! goes into the namespaces; it ends when it has started the first process in them.

use std::io::{BufRead, Write};

use anyhow::{bail, Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::Spec;

/// From inside to the keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// The first process has this PID on the node.
    Born(i32),
    /// The container is as described, and shut.
    Ready,
    /// The command runs.
    Started,
    /// What could not be done, and why.
    Fault(String),
}

/// From the keeper to the first process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Be this container.
    Be(Box<Spec>),
    /// Run the command.
    Start,
}

/// Says one thing.
///
/// # Errors
/// When nobody listens.
pub(crate) fn say(to: &mut impl Write, what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(what).context("telling another process")?;
    line.push(b'\n');
    to.write_all(&line).and_then(|()| to.flush()).context("telling another process")
}

/// Hears one thing, or none if the other has gone.
///
/// # Errors
/// When it makes no sense, or takes longer than the stream has patience.
pub(crate) fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<Option<T>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).context("listening to another process")?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        bail!("listening to another process: it ended in the middle of a line");
    }
    serde_json::from_slice(&line).map(Some).context("understanding another process")
}
