// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file server as its clients see it.

mod client;
mod failures;
mod files;
mod lab;
mod mounts;
mod rights;
