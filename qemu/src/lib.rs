// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod accel;
pub mod access;
pub mod boot;
mod boot_once;
pub mod cluster;
mod console;
pub mod control;
mod error;
pub mod faults;
pub mod forwarding;
pub mod frame;
pub mod front;
pub mod launch;
pub mod links;
pub mod machine;
mod node;
mod options;
pub mod pcap;
pub mod qmp;
pub mod readiness;
pub mod run_directory;
pub mod scenario;
mod socket;
pub mod switch;
pub mod transcript;

pub use boot_once::{boot_once, boot_once_watched, End, Outcome};
pub use cluster::{Cluster, NodeHandle};
pub use console::ConsoleReader;
pub use control::{NodeStatus, Remote, Request, Status};
pub use error::{Error, Result};
pub use node::Power;
pub use options::{Options, NODES_MAX};
