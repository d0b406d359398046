// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

fn main() -> ExitCode {
    let port = dvs_agent::PORT;
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(listener) => dvs_agent::serve(&listener),
        Err(error) => {
            eprintln!("error: listening on TCP port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}
