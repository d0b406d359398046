// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one entrance for building, running, testing and measuring dvs.

fn main() {}
