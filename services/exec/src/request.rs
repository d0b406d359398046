// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to be run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A command to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables besides those of the container.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Where it runs, if not in the container's directory.
    #[serde(default)]
    pub directory: Option<String>,
    /// As whom, if not as the container's user.
    #[serde(default)]
    pub user: Option<User>,
    /// Whether it has a terminal, and of which size.
    #[serde(default)]
    pub terminal: Option<Size>,
}

/// User and group in a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of each.
    pub columns: u16,
}
