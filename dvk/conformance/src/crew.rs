// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that take orders and were started by this one, so that they can be killed,
//! interrupted and replaced.

use crate::blocked::{slow, until};
use crate::order::{Addressed, Answer, Answered, Order};
use anyhow::{anyhow, Context, Result};
use rustix::process::{kill_process, Pid, Signal};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Takes the answers of all of them.
type Told = Arc<dyn Fn(Answered) + Send + Sync>;

/// The processes, by the numbers that whoever gives the orders has chosen.
pub(crate) struct Crew {
    told: Told,
    members: Mutex<HashMap<u32, Member>>,
}

struct Member {
    process: Child,
    /// Gone once it was told to leave.
    orders: Option<ChildStdin>,
    /// Passes its answers on until it is gone.
    reader: JoinHandle<()>,
}

impl Member {
    /// Waits until it is gone and all of its answers were told.
    fn await_end(mut self) -> Result<()> {
        until("a process to be gone", || Ok(self.process.try_wait()?.is_some()))?;
        self.reader.join().map_err(|_| anyhow!("the reader of its answers panicked"))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // What does not end with this process is told to whoever runs it, by its time limit.
        let _ = self.clear();
    }
}

impl Crew {
    /// None yet.
    pub(crate) fn new(told: impl Fn(Answered) + Send + Sync + 'static) -> Self {
        Self { told: Arc::new(told), members: Mutex::default() }
    }

    /// Does an order that is addressed to one of them, or hands it on. In the second case the
    /// answer comes later.
    pub(crate) fn obey(&self, addressed: &Addressed) -> Option<Answer> {
        let done = match addressed.order {
            Order::Process => self.start(addressed.process).map(|()| Some(Answer::Done)),
            Order::Kill => self.end(addressed.process, true).map(|()| Some(Answer::Done)),
            Order::Dismiss => self.end(addressed.process, false).map(|()| Some(Answer::Done)),
            Order::Interrupt => self.interrupt(addressed.process).map(|()| Some(Answer::Done)),
            _ => self.hand_on(addressed).map(|()| None),
        };
        done.unwrap_or_else(|error| {
            Some(Answer::Broken(format!("{:?}: {error:#}", addressed.order)))
        })
    }

    fn start(&self, number: u32) -> Result<()> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--role", "troupe", &format!("--slow={}", slow())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a process")?;
        let orders = process.stdin.take().context("a process without standard input")?;
        let answers = process.stdout.take().context("a process without standard output")?;
        let told = Arc::clone(&self.told);
        let reader = std::thread::spawn(move || {
            // What cannot be read is missed by whoever waits for it.
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                if let Ok(answered) = serde_json::from_str(&line) {
                    told(answered);
                }
            }
        });
        self.members().insert(number, Member { process, orders: Some(orders), reader });
        Ok(())
    }

    /// Ends a process and waits until it is gone.
    fn end(&self, number: u32, kill: bool) -> Result<()> {
        let mut member = self.members().remove(&number).context("no such process")?;
        if kill {
            member.process.kill()?;
        } else {
            // It leaves at the end of its input.
            member.orders = None;
        }
        member.await_end()
    }

    /// Kills all of them. When it returns, no answer of theirs is told any more.
    pub(crate) fn clear(&self) -> Result<()> {
        let mut members = std::mem::take(&mut *self.members());
        // All at once, since one may wait for another.
        for member in members.values_mut() {
            member.process.kill()?;
        }
        members.into_values().try_for_each(Member::await_end)
    }

    fn interrupt(&self, number: u32) -> Result<()> {
        let members = self.members();
        let member = members.get(&number).context("no such process")?;
        let pid = Pid::from_raw(member.process.id().cast_signed());
        Ok(kill_process(pid.context("a process without id")?, Signal::USR1)?)
    }

    fn hand_on(&self, addressed: &Addressed) -> Result<()> {
        let mut members = self.members();
        let member = members.get_mut(&addressed.process).context("no such process")?;
        let line = serde_json::to_string(&Addressed { process: 0, ..addressed.clone() })?;
        let orders = member.orders.as_mut().context("it was told to leave")?;
        writeln!(orders, "{line}").context("give an order")
    }

    fn members(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
