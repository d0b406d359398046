// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a container is to be: a strict, typed description that the control plane hands over.
//!
//! There is no switch for the namespaces. A container always has its own user, PID, mount, UTS, IPC, network and cgroup
//! namespaces: a Distributed Container that shares one of them with its node is none.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};
use dvs_exec::User;
use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::fault::{refuse, Kind};
use crate::limits::Limits;
use crate::network::Network;
use crate::seccomp;

/// The longest name: it is also a host name, whose labels are that long.
const NAME_MAX: usize = 63;

/// The first id of the node that a container may be given. What is below belongs to the node itself.
const FIRST_HOST_ID: u32 = 65_536;

/// The fewest ids of a mapping: images use ids up to that of `nobody`.
const IDS_MIN: u32 = 65_536;

/// A container of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Letters a to z, digits and hyphens; it names the cgroup and is the default of the host name.
    pub name: String,
    /// The DVK's number of the Distributed Container, N in `/dev/dvk-dcN`.
    pub dvk: u32,
    /// What its root file system is made of.
    #[serde(default)]
    pub root: Root,
    /// What runs in it. Without a command it is kept open for `exec` until it is told to end.
    #[serde(default)]
    pub process: Process,
    /// The host name, if it is not the name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The ids of the node that stand for those of the container.
    pub ids: Ids,
    /// What it may use of the node.
    pub limits: Limits,
    /// Its network; it has `lo` alone without one.
    #[serde(default)]
    pub network: Option<Network>,
    /// What root of the container may do in it.
    #[serde(default = "Capability::defaults")]
    pub capabilities: Vec<Capability>,
    /// System calls that fail.
    #[serde(default)]
    pub seccomp: Seccomp,
}

/// Where a root file system comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// A static busybox and what it needs.
    #[default]
    Builtin,
    /// An image of this node's store, by name.
    Image(String),
}

/// What runs in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// The program and its arguments; none to keep the container open without one.
    pub command: Vec<String>,
    /// Its environment, besides a default `PATH` and `HOME`.
    pub environment: BTreeMap<String, String>,
    /// Its working directory; `/` if there is none.
    pub directory: Option<String>,
    /// The ids it runs with, in the container.
    pub user: User,
}

/// A range of ids of the node, for users and groups alike. Id 0 of the container is the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// The node's id of the container's root.
    pub first: u32,
    /// How many ids there are.
    pub count: u32,
}

/// What is added to the profile of system calls, which is never left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seccomp {
    /// Names of calls that fail besides those of the profile.
    pub also_deny: Vec<String>,
}

impl Spec {
    /// Reads a description in JSON and checks it.
    ///
    /// # Errors
    /// When it is no description, has a key that does not exist, or says something that cannot be.
    pub fn parse(text: &str) -> Result<Self> {
        let spec: Self = match serde_json::from_str(text) {
            Ok(spec) => spec,
            Err(error) => {
                let message = format!("reading the description of a container: {error}");
                return refuse(Kind::Invalid, message);
            }
        };
        spec.check()?;
        Ok(spec)
    }

    /// The description in JSON, which [`parse`](Self::parse) reads.
    ///
    /// # Errors
    /// Never, unless memory runs out; the format has a word for everything here.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).context("describing a container")
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// When a part says something that cannot be.
    pub fn check(&self) -> Result<()> {
        self.check_all().or_else(|error| refuse(Kind::Invalid, format!("{error:#}")))
    }

    fn check_all(&self) -> Result<()> {
        check_name("the container", &self.name)?;
        if let Some(hostname) = &self.hostname {
            check_name("the host", hostname)?;
        }
        if let Root::Image(image) = &self.root {
            check_name("the image", image)?;
        }
        self.process.check(self.ids)?;
        self.ids.check()?;
        self.limits.check()?;
        self.network.as_ref().map_or(Ok(()), Network::check)?;
        for name in &self.seccomp.also_deny {
            ensure!(
                seccomp::number(name).is_some(),
                "denying the system call {name:?}: there is none of this name in the profile's table"
            );
        }
        Ok(())
    }

    /// Whether this differs from `old` in nothing but what can be changed while the container is there.
    pub fn is_adjusted(&self, old: &Self) -> bool {
        let mut same = self.clone();
        same.limits = Limits { writable: self.limits.writable, ..old.limits.clone() };
        if let (Some(new), Some(old)) = (&mut same.network, &old.network) {
            new.rate = old.rate;
            if let (Some(new), Some(old)) = (&mut new.overlay, &old.overlay) {
                new.peers.clone_from(&old.peers);
            }
        }
        same == *old
    }

    /// What the container calls itself.
    pub fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or(&self.name)
    }
}

impl Process {
    fn check(&self, ids: Ids) -> Result<()> {
        let has_nul = |text: &String| text.contains('\0');
        ensure!(
            !self.command.iter().any(has_nul)
                && !self.environment.iter().any(|(name, value)| has_nul(name) || has_nul(value)),
            "running a command: neither words nor environment can have a byte 0"
        );
        ensure!(
            self.command.first().is_none_or(|program| !program.is_empty()),
            "running a command: its first word is empty; name a program"
        );
        for name in self.environment.keys() {
            ensure!(
                !name.is_empty() && !name.contains('='),
                "setting the environment: {name:?} cannot be the name of a variable"
            );
        }
        if let Some(directory) = &self.directory {
            ensure!(
                directory.starts_with('/') && !has_nul(directory),
                "entering the directory {directory:?}: give an absolute path in the container"
            );
        }
        check_user(self.user, ids)
    }
}

/// Whether the ids exist in a container that has `ids`.
///
/// # Errors
/// When one does not.
pub(crate) fn check_user(user: User, ids: Ids) -> Result<()> {
    ensure!(
        user.uid < ids.count && user.gid < ids.count,
        "running as {}:{}: the container has ids from 0 to {} only",
        user.uid,
        user.gid,
        ids.count.saturating_sub(1)
    );
    Ok(())
}

impl Ids {
    fn check(self) -> Result<()> {
        ensure!(
            self.first >= FIRST_HOST_ID,
            "mapping the ids of a container to those from {}: what is below {FIRST_HOST_ID} belongs to the node",
            self.first
        );
        ensure!(
            self.count >= IDS_MIN,
            "mapping {} ids: an image may use any below {IDS_MIN}, so that many are needed",
            self.count
        );
        // The highest id means "none" to the kernel.
        ensure!(
            self.first.checked_add(self.count).is_some_and(|end| end < u32::MAX),
            "mapping {} ids from {}: there are not that many",
            self.count,
            self.first
        );
        Ok(())
    }
}

/// Names are parts of paths, so they must be nothing else.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure!(
        !name.is_empty()
            && name.len() <= NAME_MAX
            && name.bytes().all(fits)
            && !name.starts_with('-')
            && !name.ends_with('-'),
        "naming {what} {name:?}: use up to {NAME_MAX} of a to z, 0 to 9 and -, which is not at an end"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"{
        "name": "web", "dvk": 3, "ids": {"first": 100000, "count": 65536},
        "limits": {"memory": 67108864, "processes": 50, "writable": 1048576}
    }"#;

    fn with(old: &str, new: &str) -> Result<Spec> {
        assert!(LEAST.contains(old), "{old}");
        Spec::parse(&LEAST.replace(old, new))
    }

    #[test]
    fn the_least_has_the_defaults() {
        let spec = Spec::parse(LEAST).unwrap();
        assert_eq!(spec.hostname(), "web");
        assert_eq!(spec.root, Root::Builtin);
        assert_eq!(spec.capabilities, Capability::defaults());
        assert!(spec.process.command.is_empty());
        let again = Spec::parse(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn unknown_keys_are_errors_that_point_at_them() {
        let error = with("\"dvk\": 3", "\"dvk\": 3, \"privileged\": true").unwrap_err().to_string();
        assert!(
            error.contains("unknown field `privileged`") && error.contains("line 2"),
            "{error}"
        );
        assert!(with("\"processes\": 50", "\"process\": 50").is_err());
    }

    #[test]
    fn a_container_without_limits_of_memory_or_processes_is_refused() {
        assert!(with("\"memory\": 67108864, ", "").is_err());
        assert!(with("\"processes\": 50, ", "").is_err());
    }

    #[test]
    fn names_are_no_paths() {
        for name in ["", "..", "a/b", "Web", "-a", "a-", ".lock", "a\\u0000", &"a".repeat(64)] {
            assert!(with("\"web\"", &format!("\"{name}\"")).is_err(), "{name}");
        }
        assert!(with("\"web\"", &format!("\"{}\"", "a".repeat(63))).is_ok());
    }

    #[test]
    fn ids_are_not_those_of_the_node() {
        for ids in ["\"first\": 0", "\"first\": 65535", "\"first\": 4294901761"] {
            assert!(with("\"first\": 100000", ids).is_err(), "{ids}");
        }
        assert!(with("\"count\": 65536", "\"count\": 1").is_err());
    }

    #[test]
    fn what_runs_is_checked() {
        for process in [
            r#"{"command": [""]}"#,
            r#"{"command": ["a\u0000b"]}"#,
            r#"{"environment": {"A=B": "c"}}"#,
            r#"{"environment": {"": "c"}}"#,
            r#"{"directory": "tmp"}"#,
            r#"{"user": {"uid": 65536, "gid": 0}}"#,
        ] {
            let new = format!("\"dvk\": 3, \"process\": {process}");
            assert!(with("\"dvk\": 3", &new).is_err(), "{process}");
        }
        assert!(with("\"dvk\": 3", r#""dvk": 3, "process": {"command": ["sh"]}"#).is_ok());
    }

    #[test]
    fn limits_rates_and_peers_can_be_adjusted_and_nothing_else() {
        let mut old = Spec::parse(LEAST).unwrap();
        old.network = Some(crate::network::tests::network());
        let adjusted = |change: fn(&mut Spec)| {
            let mut new = old.clone();
            change(&mut new);
            new.is_adjusted(&old)
        };
        assert!(adjusted(|_| ()));
        assert!(adjusted(|spec| spec.limits.memory *= 2));
        assert!(adjusted(|spec| spec.limits.cpu.milli = Some(100)));
        assert!(adjusted(|spec| spec.network.as_mut().unwrap().rate = None));
        let peers = |spec: &mut Spec| {
            let network = spec.network.as_mut().unwrap();
            network.overlay.as_mut().unwrap().peers.clear();
        };
        assert!(adjusted(peers));
        assert!(!adjusted(|spec| spec.limits.writable += 1));
        assert!(!adjusted(|spec| spec.process.command.push("sh".into())));
        assert!(!adjusted(|spec| spec.network = None));
        assert!(!adjusted(|spec| spec.network.as_mut().unwrap().overlay = None));
        assert!(!adjusted(|spec| spec.network.as_mut().unwrap().addresses.clear()));
    }

    #[test]
    fn a_system_call_that_is_not_known_is_an_error() {
        let deny = |name: &str| {
            with("\"dvk\": 3", &format!("\"dvk\": 3, \"seccomp\": {{\"also_deny\": [\"{name}\"]}}"))
        };
        assert!(deny("fchmod").is_ok());
        assert!(deny("fchmodd").unwrap_err().to_string().contains("fchmodd"));
    }
}
