// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems of `mkfs.minix` as they are read here, and those written here as `fsck.minix` sees them.

mod faults;
mod foreign;
mod links;
mod model;
mod moves;
mod operations;
mod pair;
mod platter;
mod power;
mod random;
mod tools;
