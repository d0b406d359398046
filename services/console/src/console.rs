// SPDX-License-Identifier: MIT OR Apache-2.0
//! The screen over time: facts, events, keys and outcomes go in, a page and what is to be done come out.

use std::time::Duration;

use dvs_api::{DiskListed, Event};

use crate::facts::Facts;
use crate::install::Disks;
use crate::keys::Key;
use crate::network::Form;
use crate::page::{Menu, Next, Note, Page, Power, Turn};
use crate::screen::{framed, Body, Screen, Size};
use crate::status;

/// Events that are remembered: more than any screen has lines for.
const EVENTS_MAX: usize = 200;
/// Without a key for this long, whoever was there has gone.
const IDLE: Duration = Duration::from_secs(600);

/// What is to be done, one thing at a time. What came of it is told by [`Console::done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Restart the machine, or, with `force`, do so whatever speaks against it.
    Restart {
        /// Whether objections do not count.
        force: bool,
    },
    /// Switch it off.
    ShutDown {
        /// Whether objections do not count.
        force: bool,
    },
    /// Find out which disks there are.
    ListDisks,
    /// Make a disk one that boots this node.
    Install {
        /// The disk, such as `/dev/vda`.
        disk: String,
        /// Whether what is on it may be lost.
        wipe: bool,
    },
    /// Find out what the node is configured to be.
    ReadConfig,
    /// Have the machine start next with this configuration. Without a cluster token it means the one that there is.
    Keep {
        /// The configuration.
        toml: String,
    },
    /// Have the node use it until the machine restarts.
    Apply {
        /// The configuration.
        toml: String,
    },
    /// Leave the terminal to who was there before.
    Leave,
}

/// What came of an [`Action`]. Errors are for people.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The machine goes down, or why not, and whether that would be done with `force`.
    Power(Result<(), (String, bool)>),
    /// The disks.
    Disks(Result<Vec<DiskListed>, String>),
    /// The disk that boots this node now.
    Installed(Result<String, String>),
    /// The configuration without its tokens, and whether it has one.
    Config(Result<(String, bool), String>),
    /// The device that has the configuration for the next start; or why it is nowhere, and the configuration.
    Kept(Result<String, (String, String)>),
    /// The keys that have changed, and those that would take a restart.
    Applied(Result<[Vec<String>; 2], String>),
}

/// A screen with keys.
#[derive(Debug)]
pub struct Console {
    facts: Facts,
    events: Vec<Event>,
    page: Page,
    /// The uptime at which the last key was pressed.
    pressed: Duration,
    /// Whether somebody else has the terminal otherwise.
    is_guest: bool,
    /// What goes down, as long as nobody knows what comes of it.
    power: Option<Power>,
}

impl Console {
    /// One that shows the status. A guest gives the terminal back when whoever used it is done or gone.
    pub fn new(facts: Facts, is_guest: bool) -> Self {
        let pressed = facts.uptime;
        Self { facts, events: Vec::new(), page: Page::Status, pressed, is_guest, power: None }
    }

    /// Takes in what is so now. `None` but where a guest has to leave.
    pub fn learn(&mut self, facts: Facts) -> Option<Action> {
        self.facts = facts;
        let idle = self.facts.uptime.saturating_sub(self.pressed);
        let is_busy = matches!(self.page, Page::Work(_));
        if idle < IDLE || is_busy {
            return None;
        }
        // What was typed is not for the next one who comes by.
        self.page = Page::Status;
        self.is_guest.then_some(Action::Leave)
    }

    /// Takes in events that are newer than all before.
    pub fn hear(&mut self, events: impl IntoIterator<Item = Event>) {
        self.events.extend(events);
        let surplus = self.events.len().saturating_sub(EVENTS_MAX);
        self.events.drain(..surplus);
    }

    /// Does what a key asks for, as far as that is a matter of the screen; what is to be done else.
    pub fn press(&mut self, key: Key) -> Option<Action> {
        self.pressed = self.facts.uptime;
        let facts = &self.facts;
        let turn = match &mut self.page {
            Page::Status => match key {
                Key::Enter if facts.has_menu => Turn::Go(Page::Menu(Menu::default())),
                Key::Escape | Key::Character('q') if self.is_guest => return Some(Action::Leave),
                _ => Turn::Stay,
            },
            Page::Menu(menu) => menu.press(key, facts),
            Page::Question(question) => question.press(key, facts),
            Page::Disks(disks) => disks.press(key),
            Page::Confirmation(confirmation) => confirmation.press(key, facts),
            Page::Form(form) => form.press(key, facts),
            Page::Work(_) => Turn::Stay,
            Page::Note(note) => note.press(key, facts),
        };
        match turn {
            Turn::Stay => None,
            Turn::Go(page) => {
                self.page = page;
                None
            }
            Turn::Do(action, page) => {
                self.page = page;
                self.power = match action {
                    Action::Restart { .. } => Some(Power::Restart),
                    Action::ShutDown { .. } => Some(Power::Off),
                    _ => None,
                };
                Some(action)
            }
        }
    }

    /// Takes in what came of an action.
    pub fn done(&mut self, outcome: Outcome) {
        // The time that it took is not the time that somebody was away.
        self.pressed = self.facts.uptime;
        self.page = match outcome {
            // PID 1 ends all services, this screen as well.
            Outcome::Power(Ok(())) => return,
            Outcome::Power(Err((why, may_force))) => {
                let next = self.power.filter(|_| may_force).map(Next::Force);
                Page::Note(Note::new("The machine stays on", why, next))
            }
            Outcome::Disks(Ok(disks)) => Page::Disks(Disks::new(disks)),
            Outcome::Disks(Err(why)) => {
                Page::Note(Note::new("The disks cannot be listed", why, None))
            }
            Outcome::Installed(Ok(disk)) => {
                let title = format!("{disk} boots this node from now on");
                let text = "Pull the stick or the CD out and restart the machine. What it boots then is up to its firmware: choose the \
                            disk in its setup if it boots something else.";
                Page::Note(Note::new(title, text, Some(Next::Restart)))
            }
            Outcome::Installed(Err(why)) => {
                Page::Note(Note::new("The node was not installed", why, None))
            }
            Outcome::Config(read) => match read.and_then(|(toml, has)| Form::new(&toml, has)) {
                Ok(form) => Page::Form(Box::new(form)),
                Err(why) => Page::Note(Note::new("The configuration cannot be read", why, None)),
            },
            Outcome::Kept(Ok(device)) => {
                let title = format!("{device} has the new configuration");
                let text = "The node uses it when the machine has restarted, and at each start from then on.";
                Page::Note(Note::new(title, text, Some(Next::Restart)))
            }
            Outcome::Kept(Err((why, toml))) => {
                let text = format!(
                    "{why}\n\nThe node can use it until the machine restarts, but for what is about interfaces, which takes a restart."
                );
                Page::Note(Note::new("It was written nowhere", text, Some(Next::Apply(toml))))
            }
            Outcome::Applied(Ok([changed, at_boot])) => {
                let keys = |keys: Vec<String>| match keys.is_empty() {
                    true => "nothing".to_owned(),
                    false => keys.join(", "),
                };
                let text = format!(
                    "Changed until the machine restarts: {}.\nNot changed, since it takes a restart: {}.",
                    keys(changed),
                    keys(at_boot)
                );
                Page::Note(Note::new("The node starts anew", text, None))
            }
            Outcome::Applied(Err(why)) => Page::Note(Note::new("Nothing was changed", why, None)),
        };
    }

    /// What a terminal of this size is to show.
    pub fn screen(&self, size: Size) -> Screen {
        let head = format!("dvs {}", self.facts.version);
        let title = status::title(&self.facts);
        let choose = || "Up, Down: choose   Enter: go on   Esc: back".to_owned();
        let (body, foot): (Body, String) = match &self.page {
            Page::Status => (status::body(&self.facts, &self.events, size), self.keys()),
            Page::Menu(menu) => (menu.body(), choose()),
            Page::Question(question) => (question.body(size), question.foot()),
            Page::Disks(disks) => (disks.body(size), choose()),
            Page::Confirmation(it) => (it.body(size), "Enter: go on   Esc: back".into()),
            Page::Form(form) => {
                let foot = "Up, Down: choose   Enter: next, and save at the end   Esc: back";
                (form.body(&self.facts, size), foot.into())
            }
            Page::Work(work) => (work.body(&self.facts, size), "please wait".into()),
            Page::Note(note) => (note.body(size), note.foot()),
        };
        framed([&head, &title], body, &foot, size)
    }

    /// The keys of the status.
    fn keys(&self) -> String {
        let menu = match self.facts.has_menu {
            true => "Enter: menu",
            false => "The menu is off",
        };
        match self.is_guest {
            true => format!("{menu}   Esc: leave"),
            false => menu.to_owned(),
        }
    }
}
