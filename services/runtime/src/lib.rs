// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod assemble;
mod capability;
mod cgroup;
mod command_line;
mod container;
mod dial;
mod enter;
mod exec;
mod fault;
mod ids;
mod image;
mod init;
mod inside;
mod keeper;
mod life;
mod limits;
mod links;
mod netlink;
mod network;
mod output;
mod place;
mod relay;
mod rootfs;
mod runtime;
mod seccomp;
mod session;
mod spec;
mod stage;
mod stats;
mod talk;

pub use capability::Capability;
pub use command_line::main;
pub use container::Status;
pub use dvs_exec::{Decoder, Frame, Request, Size, User};
pub use fault::{Fault, Kind};
pub use image::{Bounds, Defaults, Image, Images, Store};
pub use life::Life;
pub use limits::{Cpu, Io, Limits};
pub use network::{Address, Network, Overlay};
pub use output::Log;
pub use place::{End, Phase};
pub use runtime::{Result, Runtime};
pub use session::{Finished, Session};
pub use spec::{Ids, Process, Root, Seccomp, Spec};
pub use stats::Stats;
