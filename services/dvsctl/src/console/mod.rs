// SPDX-License-Identifier: MIT OR Apache-2.0
//! The screen of the node that this runs on: a terminal around what `dvs_console` decides.

mod deeds;
mod machine;
mod terminal;
mod watch;

use std::process::ExitCode;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use dvs_api::Event;
use dvs_client::{Address, Client};
use dvs_console::{Action, Console, Key, Keys, Outcome, Painter, Silence};

use crate::arguments::ConsoleArguments;
use crate::cluster::Cluster;
use crate::Failure;
use machine::Machine;
use terminal::Terminal;

/// How often facts are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How soon the rest of a key comes that is several bytes.
const REST: Duration = Duration::from_millis(50);
/// How often everything is painted, since the kernel and PID 1 may write to the same terminal.
const REPAINT: Duration = Duration::from_secs(5);

/// What comes from elsewhere.
pub(crate) enum Message {
    /// Keys were pressed.
    Bytes(Vec<u8>),
    /// There is no terminal any more.
    Closed(String),
    /// Something has happened to the cluster.
    Heard(Vec<Event>),
    /// Which nodes are not ready, or why the node does not answer.
    Nodes(Result<Vec<String>, String>),
    /// What was to be done is done, or is not.
    Done(Outcome),
}

/// Shows the node until a guest leaves.
pub(crate) fn run(arguments: &ConsoleArguments) -> Result<ExitCode, Failure> {
    let machine = Machine::new(&arguments.root);
    let node = Cluster::new(vec![Client::new(Address::Socket(machine.socket()), None)]);
    let mut terminal = Terminal::open(&arguments.terminal)?;
    let (tell, told) = channel();
    terminal.listen(tell.clone())?;
    watch::begin(&node, &tell);

    let mut facts = machine.facts();
    let (mut has_answered, mut absent, mut silence) = (false, Vec::new(), None::<Silence>);
    let mut console = Console::new(facts.clone(), arguments.guest);
    let (mut keys, mut painter) = (Keys::default(), Painter::default());
    let (mut next, mut painted, mut size) = (Instant::now() + LOOK, Instant::now(), None);
    loop {
        let now = terminal.size();
        if size != Some(now) || painted.elapsed() >= REPAINT {
            painter.forget();
            (size, painted) = (Some(now), Instant::now());
        }
        terminal.write(&painter.paint(&console.screen(now), now.columns))?;
        let wait = match keys.is_open() {
            true => REST,
            false => next.saturating_duration_since(Instant::now()),
        };
        let mut pressed = Vec::new();
        match told.recv_timeout(wait) {
            Ok(Message::Bytes(bytes)) => pressed = keys.push(&bytes),
            Ok(Message::Closed(why)) => return Err(Failure::Refused(why)),
            Ok(Message::Heard(events)) => console.hear(events),
            Ok(Message::Done(outcome)) => console.done(outcome),
            Ok(Message::Nodes(Ok(nodes))) => (absent, silence, has_answered) = (nodes, None, true),
            Ok(Message::Nodes(Err(why))) => {
                let since = silence.map_or(facts.uptime, |silence| silence.since);
                silence = Some(Silence { since, why });
            }
            Err(RecvTimeoutError::Timeout) => pressed.extend(keys.settle()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Refused("nothing is told to the screen any more".into()));
            }
        }
        let mut action = None;
        for key in pressed {
            if key == Key::Redraw {
                painter.forget();
            }
            // A key that comes while something else is begun has no effect.
            action = action.or(console.press(key));
        }
        if Instant::now() >= next {
            next = Instant::now() + LOOK;
            facts = machine.facts();
            // One that waits to be let into a cluster says how it is, and answers nobody yet.
            let counts = has_answered || facts.status.is_none();
            facts.silence = silence.clone().filter(|_| counts);
            facts.absent.clone_from(&absent);
            action = action.or(console.learn(facts.clone()));
        }
        match action {
            None => {}
            Some(Action::Leave) => {
                terminal.write(painter.leave())?;
                return Ok(ExitCode::SUCCESS);
            }
            Some(action) => {
                let (node, tell) = (node.clone(), tell.clone());
                // The screen may have ended meanwhile, which nobody needs to be told.
                thread::spawn(move || drop(tell.send(Message::Done(deeds::done(&node, &action)))));
            }
        }
    }
}
