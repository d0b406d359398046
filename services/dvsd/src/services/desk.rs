// SPDX-License-Identifier: MIT OR Apache-2.0
//! One container's endpoint: takes questions out of the memory that programs lend, and puts answers there.

use std::collections::BTreeMap;
use std::sync::Arc;

use dvk::protocol::{self, Caller, Reply};
use dvk::{Endpoint, Granted, How, Then};
use dvk_services::{
    read_question, write_answer, Answer, Ask, Exchange, ExchangeError, Question, Reason, Refusal,
    QUESTION_BYTES_MAX,
};
use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use super::answer::answer;
use super::space::Space;
use crate::agreement::asking::Asking;
use crate::kernel::ServerPort;

/// Questions of one container that are being answered on this node at once, those that wait included.
const QUESTIONS_MAX: usize = 256;

pub(super) struct Desk {
    port: Arc<dyn ServerPort>,
    asking: Asking,
    space: Space,
    /// What is being answered, by who asked. It ends with the desk.
    tasks: JoinSet<()>,
    running: BTreeMap<u64, AbortHandle>,
}

impl Desk {
    pub(super) fn new(port: Arc<dyn ServerPort>, asking: Asking, space: Space) -> Self {
        Self { port, asking, space, tasks: JoinSet::new(), running: BTreeMap::new() }
    }

    /// Answers until the endpoint ends, as it does with its container.
    pub(super) async fn serve(mut self) {
        let port = Arc::clone(&self.port);
        while let Ok(received) = port.receive().await {
            match self.handle(&received) {
                Then::Reply(message) if received.how == How::Request => {
                    port.reply(received.source(), &message);
                }
                Then::Reply(_) | Then::Continue | Then::Stop => {}
            }
        }
    }

    fn question(&self, from: Endpoint, ask: &Ask) -> Result<Question, ExchangeError> {
        let bytes = usize::try_from(ask.question).map_err(|_| ExchangeError::Size)?;
        if bytes > QUESTION_BYTES_MAX || ask.question > ask.bytes {
            return Err(ExchangeError::Size);
        }
        let mut question = vec![0; bytes];
        let place = ask.memory.of(from, 0);
        self.port.copy_from(place, &mut question).map_err(|_| ExchangeError::Memory)?;
        let question = read_question(&question)?;
        // What has been done must not fail to be told.
        match question.answer_bytes() <= ask.bytes as usize {
            true => Ok(question),
            false => Err(ExchangeError::Size),
        }
    }
}

impl Exchange for Desk {
    fn ask(&mut self, from: Caller<Ask>, ask: Ask) -> protocol::Answer<Ask> {
        while self.tasks.try_join_next().is_some() {}
        self.running.retain(|_, task| !task.is_finished());
        // Who asks again has given up what it asked before, whose answer must not be taken for that to this.
        if let Some(earlier) = self.running.remove(&from.endpoint().raw()) {
            earlier.abort();
        }
        if self.running.len() >= QUESTIONS_MAX {
            return Err(ExchangeError::Busy);
        }
        let (asker, place) = (from.endpoint().raw(), ask.memory.of(from.endpoint(), 0));
        let question = self.question(from.endpoint(), &ask)?;
        let (port, asking) = (Arc::clone(&self.port), self.asking.clone());
        let (space, bytes) = (self.space.clone(), ask.bytes as usize);
        let task = self.tasks.spawn(async move {
            let answer = answer(&asking, &space, question).await;
            let given = give(&*port, place, bytes, &answer);
            let (to, message) = from.answer(given);
            port.reply(to, &message);
        });
        self.running.insert(asker, task);
        Ok(Reply::Later)
    }
}

/// Puts an answer into lent memory.
fn give(
    port: &dyn ServerPort,
    place: Granted,
    bytes: usize,
    answer: &Answer,
) -> Result<u32, ExchangeError> {
    let mut written = write_answer(answer)?;
    if written.len() > bytes {
        // Only changes have no bound, and who has missed some begins anew.
        let text = "more has changed at once than an answer can hold; read the present state and go on from there";
        let refusal = Refusal { reason: Reason::Compacted, text: text.into() };
        written = write_answer(&Answer::Refused(refusal))?;
    }
    port.copy_to(place, &written).map_err(|_| ExchangeError::Memory)?;
    u32::try_from(written.len()).map_err(|_| ExchangeError::Size)
}
