// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// A name, and what is done by it.
type Program = (&'static str, fn() -> ExitCode);

/// Each by the name of the link to it.
const PROGRAMS: [Program; 4] = [
    ("dvsctl", dvsctl::main),
    ("dvsd", dvsd::main),
    ("dvs-proxy", dvs_proxy::main),
    ("dvs-runtime", dvs_runtime::main),
];

fn main() -> ExitCode {
    let called = env::args_os().next().unwrap_or_default();
    match program(&called) {
        Some(main) => main(),
        None => {
            let names = PROGRAMS.map(|(name, _)| name).join(", ");
            let called = called.display();
            eprintln!("error: cannot tell which program is wanted: this one was called as `{called}`, and is {names}");
            ExitCode::FAILURE
        }
    }
}

/// The program that goes by this name, whatever folder is in front of it.
fn program(called: &OsStr) -> Option<fn() -> ExitCode> {
    let name = Path::new(called).file_name()?;
    PROGRAMS.iter().find(|(program, _)| name == *program).map(|(_, main)| *main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_by_its_name() {
        for (name, main) in PROGRAMS {
            for called in [name.to_owned(), format!("/usr/bin/{name}"), format!("./{name}")] {
                let found = program(OsStr::new(&called));
                assert!(found.is_some_and(|found| std::ptr::fn_addr_eq(found, main)), "{called}");
            }
        }
        for called in ["", "/", "dvs-programs", "dvsd2", "/proc/self/exe", "dvsd/.."] {
            assert!(program(OsStr::new(called)).is_none(), "{called}");
        }
    }
}
