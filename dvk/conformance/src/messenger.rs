// SPDX-License-Identifier: MIT OR Apache-2.0
//! Brings orders to processes and the answers back, many at a time.

use crate::blocked::patience;
use crate::crew::Crew;
use crate::order::{Addressed, Answer, Answered, Order};
use crate::wish;
use anyhow::{bail, Context, Result};
use std::collections::HashMap;
use std::io::Write;
use std::sync::{mpsc, Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How much longer than its call an order may take: to be brought to another node and back.
const WAY: Duration = Duration::from_secs(20);

/// The answers that are waited for, by order.
type Awaited = Arc<Mutex<HashMap<u32, mpsc::Sender<Answer>>>>;

/// One way to processes.
pub(crate) struct Messenger {
    way: Way,
    awaited: Awaited,
    next: Mutex<u32>,
}

enum Way {
    /// To those that this process started.
    Crew(Crew),
    /// Through standard output and input: whoever started this process passes lines on.
    Lines,
}

impl Messenger {
    /// To processes that this one starts.
    pub(crate) fn here() -> Arc<Self> {
        let awaited = Awaited::default();
        let answers = Arc::clone(&awaited);
        let crew = Crew::new(move |answered| hand_out(&answers, answered));
        Arc::new(Self { way: Way::Crew(crew), awaited, next: Mutex::new(1) })
    }

    /// To those that one on another node starts, and to it.
    pub(crate) fn there() -> Arc<Self> {
        let awaited = Awaited::default();
        let answers = Arc::clone(&awaited);
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(answered) => hand_out(&answers, answered),
                    Err(error) => eprintln!("{line}: {error}"),
                }
            }
            // Nobody answers any more.
            lock(&answers).clear();
        });
        Arc::new(Self { way: Way::Lines, awaited, next: Mutex::new(1) })
    }

    /// Gives an order; its answers come from what is returned.
    pub(crate) fn give(
        &self,
        process: u32,
        endpoint: u32,
        aside: bool,
        order: Order,
    ) -> Result<mpsc::Receiver<Answer>> {
        let id = self.number();
        let (sender, receiver) = mpsc::channel();
        lock(&self.awaited).insert(id, sender);
        let addressed = Addressed { id, process, endpoint, aside, order };
        match &self.way {
            Way::Crew(crew) => {
                if let Some(answer) = crew.obey(&addressed) {
                    hand_out(&self.awaited, Answered { id, answer });
                }
            }
            Way::Lines => send(&addressed)?,
        }
        Ok(receiver)
    }

    /// Gives an order and waits for what comes of it.
    pub(crate) fn ask(&self, process: u32, endpoint: u32, order: Order) -> Result<Answer> {
        let what = format!("{order:?}");
        next(&self.give(process, endpoint, false, order)?, &what)
    }

    /// A number that nothing else has.
    pub(crate) fn number(&self) -> u32 {
        let mut next = lock(&self.next);
        *next += 1;
        *next
    }
}

/// The next answer to an order.
pub(crate) fn next(answers: &mpsc::Receiver<Answer>, what: &str) -> Result<Answer> {
    answers.recv_timeout(patience() + WAY).with_context(|| format!("wait for what comes of {what}"))
}

/// Leaves nothing of a case on the other node. To be called while no other process reads standard input.
///
/// Answers of the last case may still be on their way, and come before the one to this.
pub(crate) fn clear_there(container: u32) -> Result<()> {
    // No case gives so many orders.
    const ID: u32 = u32::MAX;
    let order = Order::Clear { container };
    send(&Addressed { id: ID, process: 0, endpoint: 0, aside: false, order: order.clone() })?;
    for line in std::io::stdin().lines() {
        let line = line?;
        // What a case that was killed had half read is no line.
        if let Ok(Answered { id: ID, answer }) = serde_json::from_str(&line) {
            return Ok(wish::read(&order, Ok(answer))?);
        }
    }
    bail!("nobody is there any more")
}

/// Gives an order to the other node.
fn send(addressed: &Addressed) -> Result<()> {
    let line = serde_json::to_string(addressed)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("give an order")
}

/// Gives an answer to who waits for it.
fn hand_out(awaited: &Awaited, Answered { id, answer }: Answered) {
    let mut awaited = lock(awaited);
    let is_last = !matches!(answer, Answer::Waits);
    if let Some(sender) = awaited.get(&id) {
        // Who does not wait any more does not mind.
        let _ = sender.send(answer);
    }
    if is_last {
        awaited.remove(&id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
