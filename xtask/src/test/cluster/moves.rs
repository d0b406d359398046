// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that moves between nodes under load.

use std::time::{Duration, Instant};

use super::bed::{Bed, MEMBERS, PATIENCE};
use super::control::Control;
use super::guest::Guest;
use super::mismatch::{expect, Mismatch};

/// Nobody else's.
const CONTAINER: u32 = 50;
/// Server slot of the one that moves.
const SLOT: u32 = 5;
/// How many clients run on each member.
const CLIENTS: [u32; MEMBERS] = [3, 2, 2, 3];
/// Between these it moves.
const HOMES: [usize; 2] = [1, 2];
/// After so many moves, one is begun and undone.
const UNDO_EVERY: u32 = 10;
/// How many moves there are, and with `--long`.
const MOVES: (u32, u32) = (100, 1_000);
/// For all of them together.
const LIMIT: Duration = Duration::from_secs(900);
const STEP: &str = "moving a server";

/// The programs of the scenario, and where the server is.
struct Stage {
    control: Control,
    servers: Vec<Guest>,
    endpoint: u64,
    home: usize,
    epoch: u32,
}

/// The server moves to and fro while ten clients count; nothing is lost, doubled or reordered.
pub(super) fn under_load(bed: &mut Bed) -> Result<(), Mismatch> {
    let moves = if bed.is_long() { MOVES.1 } else { MOVES.0 };
    let mut stage = Stage::set(bed)?;
    let container = CONTAINER.to_string();
    let server = stage.endpoint.to_string();
    let (mut clients, mut first) = (Vec::new(), 0);
    for (node, count) in CLIENTS.iter().enumerate() {
        let (first_word, count_word) = (first.to_string(), count.to_string());
        let words = [
            "dvk-scenarios",
            "clients",
            "--container",
            &container,
            "--first",
            &first_word,
            "--count",
            &count_word,
            "--server",
            &server,
        ];
        let mut guest = bed.start_on(node, &words, LIMIT)?;
        said(&mut guest, "counting")?;
        clients.push(guest);
        first += count;
    }
    let began = Instant::now();
    let mut undone = 0;
    for number in 1..=moves {
        stage.move_server()?;
        if number.is_multiple_of(UNDO_EVERY) {
            undone += 1;
            // Sometimes somebody is there already.
            stage.undo_move(undone % 2 == 0)?;
        }
    }
    let took = began.elapsed();
    let (mut counted, mut longest) = (Vec::new(), 0);
    for guest in &clients {
        guest.say("stop")?;
    }
    for guest in &mut clients {
        for line in until_end(guest)? {
            let (done, pause) = line.split_once(" longest ").unwrap_or((&line, ""));
            counted.push(done.to_owned());
            longest = longest.max(pause.parse::<u64>().unwrap_or(u64::MAX));
        }
    }
    drop(clients);
    let home = stage.home;
    let stop = format!("stop {CONTAINER} {}", stage.endpoint);
    stage.control.order(home, &stop)?;
    let server = &mut stage.servers[home];
    server.say("report")?;
    let report = until_end(server)?;
    let numbers = |line: &String| line.split(' ').nth(3)?.parse::<u64>().ok();
    let total: u64 = counted.iter().filter_map(numbers).sum();
    let sum = format!(
        "{moves} moves and {undone} that were undone in {:.1} s; {total} calls of {} clients; the longest pause that a client saw was {:.1} ms",
        took.as_secs_f64(),
        counted.len(),
        longest as f64 / 1e3,
    );
    let step = "comparing what the server counted with what the clients did";
    let expected = format!("duplicates 0 early 0\n{}", counted.join("\n"));
    expect(report.join("\n") == expected, step, &expected, report.join("\n"))?;
    let idle: Vec<_> = counted.iter().filter(|line| numbers(line).unwrap_or(0) < 10).collect();
    expect(idle.is_empty(), step, "every client made some calls", format!("{idle:?}"))?;
    stage.control.destroy(&[0, 1, 2, 3])?;
    bed.note(sum);
    Ok(())
}

impl Stage {
    /// Makes a container on all members and binds the server at its first home.
    fn set(bed: &Bed) -> Result<Self, Mismatch> {
        let container = CONTAINER.to_string();
        let mut stage = Self {
            control: Control::create(bed, CONTAINER, LIMIT)?,
            servers: Vec::new(),
            endpoint: 0,
            home: HOMES[0],
            epoch: 0,
        };
        for node in 0..MEMBERS {
            let words = ["dvk-scenarios", "server", "--container", &container];
            stage.servers.push(bed.start_on(node, &words, LIMIT)?);
        }
        let home = stage.home;
        stage.servers[home].say(&format!("bind {SLOT}"))?;
        let bound = stage.servers[home].line()?;
        let endpoint = bound.strip_prefix("bound ").and_then(|word| word.parse().ok());
        let unbound = || Mismatch::new("binding the server", "an endpoint", &bound);
        stage.endpoint = endpoint.ok_or_else(unbound)?;
        stage.control.locate(stage.endpoint, home)?;
        Ok(stage)
    }

    /// Starts a move on all nodes, and returns the ledger of the server, which rests.
    fn start(&mut self) -> Result<(usize, String), Mismatch> {
        let (from, to) = (self.home, HOMES[usize::from(self.home == HOMES[0])]);
        self.epoch += 1;
        let passage = format!("{CONTAINER} {} {from} {to} {}", self.endpoint, self.epoch);
        let state = self.control.order(from, &format!("start {passage}"))?;
        let line = self.servers[from].line()?;
        let ledger = line.strip_prefix("frozen ").map(str::to_owned);
        let ledger = ledger.ok_or_else(|| Mismatch::new(STEP, "the server is frozen", line))?;
        self.control.order_all((0..MEMBERS).filter(|node| *node != from), |node| {
            let state = if node == to { format!(" state {state}") } else { String::new() };
            format!("follow {passage}{state}")
        })?;
        Ok((to, ledger))
    }

    fn end(&self, how: &str) -> String {
        let (endpoint, epoch) = (self.endpoint, self.epoch);
        // The nodes of a move that is over are not named.
        format!("{how} {CONTAINER} {endpoint} 0 0 {epoch}")
    }

    fn adopt(&mut self, to: usize, ledger: &str) -> Result<(), Mismatch> {
        self.servers[to].say(&format!("adopt {} {ledger}", self.endpoint))?;
        said(&mut self.servers[to], "adopted")
    }

    fn move_server(&mut self) -> Result<(), Mismatch> {
        let from = self.home;
        let (to, ledger) = self.start()?;
        self.adopt(to, &ledger)?;
        let commit = self.end("commit");
        let others = (0..MEMBERS).filter(|node| ![from, to].contains(node));
        self.control.order_all(others, |_| commit.clone())?;
        self.control.order(from, &commit)?;
        self.control.order(to, &commit)?;
        self.home = to;
        self.servers[from].say("close")?;
        said(&mut self.servers[from], "closed")
    }

    /// Begins a move, and lets the server stay.
    fn undo_move(&mut self, adopted: bool) -> Result<(), Mismatch> {
        let from = self.home;
        let (to, ledger) = self.start()?;
        if adopted {
            self.adopt(to, &ledger)?;
        }
        let rollback = self.end("rollback");
        self.control.order(from, &rollback)?;
        self.servers[from].say("resume")?;
        said(&mut self.servers[from], "resumed")?;
        self.control.order_all((0..MEMBERS).filter(|node| *node != from), |_| rollback.clone())?;
        if adopted {
            said(&mut self.servers[to], "undone")?;
            self.servers[to].say("close")?;
            said(&mut self.servers[to], "closed")?;
        }
        Ok(())
    }
}

/// Reads a line that must be this one.
fn said(guest: &mut Guest, expected: &str) -> Result<(), Mismatch> {
    let line = guest.line()?;
    expect(line == expected, STEP, expected, line)
}

/// Reads lines up to `end`.
fn until_end(guest: &mut Guest) -> Result<Vec<String>, Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    let mut lines = Vec::new();
    loop {
        let line = guest.line()?;
        if line == "end" {
            return Ok(lines);
        }
        lines.push(line);
        expect(Instant::now() < deadline, STEP, "an end of the report", lines.join("\n"))?;
    }
}
