// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proxies that an earlier run of `dvsd` left behind when it was killed.

use std::fs;
use std::path::Path;

use rustix::process::{kill_process, Pid, Signal};

/// The process that gets those whose parent has ended.
const FOSTER_PARENT: i32 = 1;

/// Ends the processes of a program that have lost their parent: they hold ports that the proxies of
/// this run need.
pub fn end(program: &str) {
    for pid in of(Path::new("/proc"), program) {
        if let Some(pid) = Pid::from_raw(pid) {
            // It may have ended by itself.
            if kill_process(pid, Signal::KILL).is_ok() {
                println!(
                    "ended process {}, a {program} that nobody looked after",
                    pid.as_raw_nonzero()
                );
            }
        }
    }
}

/// The processes of a program whose parent is PID 1.
fn of(proc: &Path, program: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let orphan = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        is_orphan(&stat, program).then_some(pid)
    };
    entries.flatten().filter_map(orphan).collect()
}

/// Whether a line of `/proc/PID/stat` is of such a process. The name, in parentheses, may hold any
/// characters and is cut to 15.
fn is_orphan(stat: &str, program: &str) -> bool {
    let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'))
    else {
        return false;
    };
    let parent = rest.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    name == &program[..program.len().min(15)] && parent == Some(FOSTER_PARENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_orphans_of_the_program_are_found() {
        assert!(is_orphan("70 (dvs-proxy) S 1 60 60 0", "dvs-proxy"));
        assert!(!is_orphan("70 (dvs-proxy) S 61 60 60 0", "dvs-proxy"));
        assert!(!is_orphan("70 (dvs-proxy2) S 1 60 60 0", "dvs-proxy"));
        assert!(!is_orphan("70 (a) (dvs-proxy) S 1 60 60 0", "dvs-proxy"));
        assert!(!is_orphan("", "dvs-proxy"));
        assert_eq!(of(Path::new("/proc"), "no such program"), Vec::<i32>::new());
    }
}
