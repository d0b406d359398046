// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems of `mkfs.minix` as they are read here, and those written here as `fsck.minix` sees them.

mod faults;
mod foreign;
mod model;
mod operations;
mod pair;
mod power;
mod random;
mod tools;
