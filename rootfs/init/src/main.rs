// SPDX-License-Identifier: MIT OR Apache-2.0
//! PID 1 of a node; see the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    dvs_init::main()
}
