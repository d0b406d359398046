// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program that runs in the guest.

pub(crate) mod board;
mod leak;
pub(crate) mod partner;
mod process;
pub(crate) mod supervisor;
#[allow(unsafe_code)]
mod sys;
mod thread;
pub(crate) mod worker;
mod world;
