// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node daemon.

fn main() {}
