// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conformance program for the DVK, run in a guest.

fn main() {}
