// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel of a node starts; see the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    dvs_init::enter_root()
}
