// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands in containers.

use std::time::Instant;

use anyhow::{ensure, Context, Result};
use dvs_runtime::{Frame, Request, Session, Size, User};

use crate::bench::{equal, owned, request, shown, spec, Bench, PATIENCE};

pub(super) fn pass_status_output_and_input(bench: &Bench) -> Result<()> {
    bench.started(&spec("web"))?;
    let finished = bench.run("web", &["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])?;
    let parts = (finished.status, finished.stdout.as_slice(), finished.stderr.as_slice());
    equal("a command's end", parts, (7, &b"out\n"[..], &b"err\n"[..]))?;
    equal("a success", bench.run("web", &["true"])?.status, 0)?;
    equal(
        "a command that kills itself",
        bench.run("web", &["sh", "-c", "kill -9 $$"])?.status,
        137,
    )?;
    let missing = bench.run("web", &["/no/such/program"])?;
    ensure!(
        missing.status == 127 && missing.stderr.starts_with(b"error: "),
        "running what is not there: {}",
        shown(&missing)
    );
    let denied = bench.run("web", &["/etc/passwd"])?;
    ensure!(denied.status == 126, "running what is no program: {}", shown(&denied));
    // More than all buffers on the way hold, so neither end may wait for the other for ever.
    let much: Vec<u8> = (0..3 << 20).map(|number: u32| (number % 251) as u8).collect();
    let echoed = bench.run_with("web", request(&["cat"]), &much)?;
    ensure!(
        echoed.status == 0 && echoed.stdout == much,
        "echoing {} bytes: {} came back, exit status {}",
        much.len(),
        echoed.stdout.len(),
        echoed.status
    );
    Ok(())
}

pub(super) fn have_what_they_ask_for(bench: &Bench) -> Result<()> {
    let mut web = spec("web");
    web.hostname = Some("other-name".to_owned());
    web.process.environment.insert("A".to_owned(), "of the container".to_owned());
    web.process.directory = Some("/tmp".to_owned());
    bench.started(&web)?;
    let script = "echo $A; pwd; id -u; id -g; hostname; echo $HOME";
    let plain = bench.shell("web", script)?;
    equal("the container's", plain.as_str(), "of the container\n/tmp\n0\n0\nother-name\n/root")?;
    let asked = Request {
        command: owned(&["/bin/sh", "-c", script]),
        environment: [("A".to_owned(), "of the command".to_owned())].into(),
        directory: Some("/etc".to_owned()),
        user: Some(User { uid: 1000, gid: 100 }),
        terminal: None,
    };
    let finished = bench.run_with("web", asked, b"")?;
    let text = String::from_utf8_lossy(&finished.stdout);
    ensure!(
        text.starts_with("of the command\n/etc\n1000\n100\nother-name\n"),
        "the command's own: {}",
        shown(&finished)
    );
    let blocked = bench.shell("web", "grep SigBlk /proc/self/status")?;
    equal(
        "the signals that a command does not take",
        blocked.as_str(),
        "SigBlk:\t0000000000000000",
    )?;
    // Another user than root of the container has no capabilities at all.
    let asked = Request {
        command: owned(&["grep", "-E", "^Cap(Prm|Eff|Inh|Amb)", "/proc/self/status"]),
        user: Some(User { uid: 1000, gid: 100 }),
        ..Request::default()
    };
    let text = String::from_utf8_lossy(&bench.run_with("web", asked, b"")?.stdout).into_owned();
    let none =
        text.lines().count() == 4 && text.lines().all(|line| line.ends_with("\t0000000000000000"));
    ensure!(none, "capabilities of a user: {text}");
    Ok(())
}

/// Hears until what was heard contains `wanted`.
fn await_text(session: &mut Session, heard: &mut String, wanted: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !heard.contains(wanted) {
        ensure!(Instant::now() < deadline, "waiting for {wanted:?} on a terminal: {heard:?}");
        match session
            .next_frame()
            .with_context(|| format!("waiting for {wanted:?} after {heard:?}"))?
        {
            Frame::Output(bytes) => heard.push_str(&String::from_utf8_lossy(&bytes)),
            other => {
                anyhow::bail!("waiting for {wanted:?} on a terminal: {other:?} after {heard:?}")
            }
        }
    }
    heard.clear();
    Ok(())
}

pub(super) fn with_a_terminal(bench: &Bench) -> Result<()> {
    bench.started(&spec("web"))?;
    let terminal = Some(Size { rows: 33, columns: 111 });
    let asked = Request { command: owned(&["/bin/sh"]), terminal, ..Request::default() };
    let mut session = bench.runtime.exec("web", asked)?;
    session.set_patience(PATIENCE)?;
    let mut heard = String::new();
    let say = |session: &mut Session, text: &str| session.say(&Frame::Input(text.into()));
    say(&mut session, "tty; stty size; echo read''y\n")?;
    let mut all = String::new();
    while !all.contains("ready\r\n") {
        match session.next_frame()? {
            Frame::Output(bytes) => all.push_str(&String::from_utf8_lossy(&bytes)),
            other => anyhow::bail!("reading from a terminal: {other:?} after {all:?}"),
        }
    }
    ensure!(
        all.contains("/dev/pts/0\r\n") && all.contains("\r\n33 111\r\n"),
        "asking a terminal for its name and size: {all:?}"
    );
    session.say(&Frame::Resize(Size { rows: 20, columns: 50 }))?;
    say(&mut session, "stty size\n")?;
    await_text(&mut session, &mut heard, "\r\n20 50\r\n")?;
    // What is typed to end a command ends that, and not the shell that runs it. The command itself says that it runs: until
    // it does, the shell is in the foreground of the terminal, and the key would be meant for that.
    say(&mut session, "sh -c 'echo begi\"\"ns; exec sleep 1000'; echo end''s $?\n")?;
    await_text(&mut session, &mut heard, "begins\r\n")?;
    say(&mut session, "\u{3}")?;
    say(&mut session, "echo then''\n")?;
    await_text(&mut session, &mut heard, "then\r\n")?;
    say(&mut session, "trap 'echo go''t it' USR1; echo se''t\n")?;
    await_text(&mut session, &mut heard, "set\r\n")?;
    session.say(&Frame::Signal(10))?;
    say(&mut session, "\n")?;
    await_text(&mut session, &mut heard, "got it\r\n")?;
    say(&mut session, "exit 9\n")?;
    loop {
        match session.next_frame()? {
            Frame::Output(_) => {}
            Frame::Exited(status) => return equal("the end of a shell", status, 9),
            other => anyhow::bail!("waiting for the end of a shell: {other:?}"),
        }
    }
}

pub(super) fn end_with_their_stream(bench: &Bench) -> Result<()> {
    bench.started(&spec("web"))?;
    let runs = |bench: &Bench| -> Result<bool> {
        let script = "ps -o args | grep -c '^sleep 1000' || true";
        Ok(bench.shell("web", script)? != "0")
    };
    let mut session =
        bench.runtime.exec("web", request(&["sh", "-c", "echo up; exec sleep 1000"]))?;
    session.set_patience(PATIENCE)?;
    equal("the first output", session.next_frame()?, Frame::Output(b"up\n".to_vec()))?;
    let deadline = Instant::now() + PATIENCE;
    while !runs(bench)? {
        ensure!(Instant::now() < deadline, "waiting for a command to run: it does not");
    }
    drop(session);
    while runs(bench)? {
        ensure!(
            Instant::now() < deadline,
            "waiting for a command to end with its stream: it runs on"
        );
    }
    Ok(())
}

pub(super) fn are_logged(bench: &Bench) -> Result<()> {
    let mut web = spec("web");
    web.process.command =
        owned(&["/bin/sh", "-c", "grep SigBlk /proc/self/status; echo err >&2; exit 3"]);
    bench.started(&web)?;
    let status = bench.await_stopped("web")?;
    let end = status.end.context("a container has ended, and how was not written down")?;
    equal("its end", (end.status, end.out_of_memory), (3, 0))?;
    let log = bench.runtime.logs("web")?;
    equal("its log", String::from_utf8_lossy(&log).as_ref(), "SigBlk:\t0000000000000000\nerr\n")?;
    // A log has a bound, and what is newest is in it.
    let mut loud = spec("loud");
    loud.process.command = owned(&["/bin/sh", "-c", "seq 1 300000; echo last"]);
    bench.started(&loud)?;
    bench.await_stopped("loud")?;
    let log = bench.runtime.logs("loud")?;
    ensure!(
        log.ends_with(b"\n300000\nlast\n") && log.len() <= 512 << 10 && log.len() > 200 << 10,
        "the log of two megabytes of output: {} bytes",
        log.len()
    );
    let written = (1..=300_000u32).map(|number| format!("{number}\n").len()).sum::<usize>() + 5;
    let kept = bench.runtime.log_from("loud", 0)?;
    equal("where its log ends", kept.begins as usize + kept.bytes.len(), written)?;
    let rest = bench.runtime.log_from("loud", written as u64 - 5)?;
    equal("the end of its log", rest.bytes.as_slice(), b"last\n")?;
    Ok(())
}
