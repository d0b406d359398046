// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole server, asked over loopback.

mod connections;
mod directory;
mod failover;
mod lab;
