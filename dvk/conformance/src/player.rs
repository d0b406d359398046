// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that does what the lines on its standard input say, and says on its standard output
//! what came of it. It leaves at the end of its input.

use crate::blocked::slow;
use crate::crew::Crew;
use crate::dvs;
use crate::order::{Addressed, Answer, Answered, Order};
use crate::troupe::{Job, Troupe};
use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};

/// Is that process.
///
/// A signal that is sent to a process is taken by its first thread. So calls are made there, and orders
/// are read by another one.
pub(crate) fn play() -> Result<()> {
    let (jobs, todo) = mpsc::channel::<Job>();
    std::thread::spawn(move || {
        let status = match read(&Player { troupe: Troupe::default(), crew: Crew::new(say), jobs }) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("{error:#}");
                1
            }
        };
        // The first thread may be in a call for ever.
        std::process::exit(status)
    });
    for job in todo {
        job();
    }
    Ok(())
}

struct Player {
    troupe: Troupe,
    crew: Crew,
    /// For the first thread.
    jobs: mpsc::Sender<Job>,
}

fn read(player: &Player) -> Result<()> {
    let is_busy = Arc::new(AtomicBool::new(false));
    for line in std::io::stdin().lines() {
        let line = line?;
        let addressed: Addressed =
            serde_json::from_str(&line).with_context(|| format!("read the order {line}"))?;
        let id = addressed.id;
        let answer = if addressed.process != 0 {
            match player.crew.obey(&addressed) {
                Some(answer) => answer,
                None => continue,
            }
        } else if let Order::Clear { container } = addressed.order {
            match player.crew.clear().and_then(|()| Ok(dvs::destroy(container)?)) {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Broken(format!("{error:#}")),
            }
        } else if addressed.order == Order::Exec {
            // No line behind this one must have been read by this program, so those who want another
            // wait for this.
            say(Answered { id, answer: Answer::Waits });
            exec()
        } else if addressed.aside {
            match player.begin(addressed, &is_busy) {
                Ok(true) => continue,
                Ok(false) => Answer::Waits,
                Err(error) => Answer::Broken(format!("{error:#}")),
            }
        } else {
            player.troupe.obey(addressed.endpoint, &addressed.order)
        };
        say(Answered { id, answer });
    }
    Ok(())
}

impl Player {
    /// Begins an order in the first thread if that is idle, else in one of its own. Returns whether
    /// it is over.
    fn begin(&self, addressed: Addressed, is_busy: &Arc<AtomicBool>) -> Result<bool> {
        let Addressed { id, endpoint, order, .. } = addressed;
        let told = move |answer| say(Answered { id, answer });
        if is_busy.swap(true, Ordering::AcqRel) {
            return self.troupe.begin(endpoint, order, |job| drop(std::thread::spawn(job)), told);
        }
        let is_busy = Arc::clone(is_busy);
        let spawn = |job: Job| {
            // The first thread is there for as long as this one.
            let _ = self.jobs.send(Box::new(move || {
                job();
                is_busy.store(false, Ordering::Release);
            }));
        };
        self.troupe.begin(endpoint, order, spawn, told)
    }
}

/// Becomes a new program; its answers tell that it runs.
fn exec() -> Answer {
    match std::env::current_exe() {
        Ok(program) => {
            let error = Command::new(program)
                .args(["--role", "troupe", &format!("--slow={}", slow())])
                .exec();
            Answer::Broken(format!("exec: {error}"))
        }
        Err(error) => Answer::Broken(format!("find the own program: {error}")),
    }
}

fn say(answered: Answered) {
    let line = serde_json::to_string(&answered);
    let line = line.unwrap_or_else(|error| format!("an answer that is no text: {error}"));
    let mut stdout = std::io::stdout().lock();
    // Nobody may be left to read it.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
