// SPDX-License-Identifier: MIT OR Apache-2.0
//! Something that PID 1 attempted and could not do. It goes on without.

use std::io;

/// Displays as `cannot mount proc on /proc: operation not permitted`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {source}")]
pub(crate) struct Fault {
    attempt: String,
    source: io::Error,
}

impl Fault {
    /// For `map_err`: what was attempted, on what, in the infinitive.
    pub(crate) fn when<E: Into<io::Error>>(attempt: impl Into<String>) -> impl FnOnce(E) -> Self {
        let attempt = attempt.into();
        move |source| Self { attempt, source: source.into() }
    }
}
