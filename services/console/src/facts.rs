// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of the machine and its node.

use std::time::Duration;

use dvs_api::Status;

/// What is so at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Since the machine was started. It is the only clock here.
    pub uptime: Duration,
    /// Release of the node's programs.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// The cluster that the configuration names, where it can be read.
    pub cluster: Option<String>,
    /// Where the API is reached from other machines; `None` if it is not.
    pub api: Option<String>,
    /// Why no service was started: what is wrong with the configuration.
    pub complaint: Option<String>,
    /// What `dvsd` says of the node; `None` before it has said anything.
    pub status: Option<Status>,
    /// The daemon does not answer, although it said something before.
    pub silence: Option<Silence>,
    /// Nodes that are not ready, as `node2 is down`.
    pub absent: Vec<String>,
    /// Ethernet interfaces.
    pub interfaces: Vec<Interface>,
    /// Whether keys do more than show the state.
    pub has_menu: bool,
}

/// Nothing is heard of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The uptime at which that began.
    pub since: Duration,
    /// Why, for people.
    pub why: String,
}

/// An Ethernet interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
    /// Its link: `None` while the interface is off.
    pub link: Option<bool>,
    /// Megabits per second, if it says.
    pub speed: Option<u32>,
    /// What it is for.
    pub purpose: Option<Purpose>,
}

/// See [`Interface::purpose`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It carries what nodes say to each other.
    Cluster,
    /// Administrators reach the node by it.
    Management,
}

impl Interface {
    /// How it is, for people.
    pub(crate) fn state(&self) -> String {
        match (self.link, self.speed) {
            (None, _) => "off".into(),
            (Some(false), _) => "no link".into(),
            (Some(true), None) => "link".into(),
            (Some(true), Some(speed)) => format!("link, {speed} Mb/s"),
        }
    }

    pub(crate) fn purpose(&self) -> &'static str {
        match self.purpose {
            None => "not used",
            Some(Purpose::Cluster) => "cluster",
            Some(Purpose::Management) => "management",
        }
    }
}

/// A time as people say it, in its two largest units.
pub(crate) fn spoken(time: Duration) -> String {
    let s = time.as_secs();
    match (s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}
