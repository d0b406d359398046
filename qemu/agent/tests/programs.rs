// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both ends of the agent on this machine.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use dvs_agent::{Event, Program};

fn agent() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || dvs_agent::serve(&listener));
    address
}

fn shell(script: &str) -> Program {
    Program::start(agent(), &["/bin/sh", "-c", script]).unwrap()
}

/// Standard output, standard error, exit status.
fn end(program: &Program) -> (String, String, i32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match program.next_event().unwrap() {
            Event::Output(bytes) => out.extend(bytes),
            Event::Error(bytes) => err.extend(bytes),
            Event::Ended(status) => {
                return (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), status)
            }
        }
    }
}

#[test]
fn output_and_status_come_back() {
    assert_eq!(end(&shell("echo out; echo err >&2; exit 3")), ("out\n".into(), "err\n".into(), 3));
    assert_eq!(end(&shell("kill -9 $$")).2, 137);
    let long = end(&shell("i=0; while [ $i -lt 30000 ]; do echo $i; i=$((i+1)); done"));
    let expected: String = (0..30_000).map(|n| format!("{n}\n")).collect();
    assert!(long == (expected, String::new(), 0));
}

#[test]
fn input_reaches_the_program() {
    let program = shell("read -r line; echo \"got $line\"; cat; echo over");
    program.input(b"one\ntwo\n").unwrap();
    program.end_of_input().unwrap();
    assert_eq!(end(&program).0, "got one\ntwo\nover\n");
}

#[test]
fn what_cannot_be_started_says_why() {
    let error = Program::start(agent(), &["/no/such/program"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(error.to_string().starts_with("starting /no/such/program: "), "{error}");
    assert!(Program::start(agent(), &[]).is_err());
}

#[test]
fn a_lost_connection_kills_the_program_and_its_children() {
    let program = shell("sleep 600 & echo $! $$; wait");
    let Event::Output(line) = program.next_event().unwrap() else { panic!("no output") };
    let pids = String::from_utf8(line).unwrap();
    drop(program);
    let deadline = Instant::now() + Duration::from_secs(20);
    let gone = |pid: &str| {
        // One that nobody has waited for is as dead.
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        status.is_empty() || status.contains(") Z ")
    };
    while !pids.split_whitespace().all(gone) {
        assert!(Instant::now() < deadline, "{pids} live on");
        thread::sleep(Duration::from_millis(20));
    }
}
