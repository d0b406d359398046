// SPDX-License-Identifier: MIT OR Apache-2.0
//! What went wrong, as a caller tells it apart, and what it says to people.

use std::fmt;

use anyhow::Result;
use thiserror::Error;

/// What a caller does something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no container or image of this name.
    NotFound,
    /// There is one of this name already.
    Exists,
    /// It is not in a state in which that can be done.
    State,
    /// What was asked for cannot be, on any node.
    Invalid,
    /// Anything else: this node could not do it.
    Failed,
}

impl Kind {
    const ALL: [Self; 5] = [Self::NotFound, Self::Exists, Self::State, Self::Invalid, Self::Failed];

    /// The exit status of the program; 2 is that of a wrong command line.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Invalid => 3,
            Self::NotFound => 4,
            Self::Exists => 5,
            Self::State => 6,
        }
    }

    pub(crate) fn of_status(status: Option<i32>) -> Self {
        let is = |kind: &Self| Some(i32::from(kind.status())) == status;
        Self::ALL.into_iter().find(is).unwrap_or(Self::Failed)
    }
}

/// Something that was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Fault {
    /// What kind of fault.
    pub kind: Kind,
    /// What was attempted, on what, why it failed, and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Fails with something of a kind.
///
/// # Errors
/// Always.
pub(crate) fn refuse<T>(kind: Kind, message: impl Into<String>) -> Result<T> {
    Err(Fault { kind, message: message.into() }.into())
}

/// The kind of an error of this crate.
pub(crate) fn kind(error: &anyhow::Error) -> Kind {
    error.downcast_ref::<Fault>().map_or(Kind::Failed, |fault| fault.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn kinds_survive_the_exit_of_a_process() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_status(Some(kind.status().into())), kind);
        }
        // A signal, or a wrong command line.
        assert_eq!(Kind::of_status(None), Kind::Failed);
        assert_eq!(Kind::of_status(Some(2)), Kind::Failed);
    }

    #[test]
    fn a_kind_is_found_below_what_was_being_done() {
        let error = refuse::<()>(Kind::Exists, "there is one").context("creating").unwrap_err();
        assert_eq!(kind(&error), Kind::Exists);
        assert_eq!(format!("{error:#}"), "creating: there is one");
        assert_eq!(kind(&anyhow::anyhow!("no")), Kind::Failed);
    }
}
