// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pages besides the status: what each shows, and what keys do on it.

use std::time::Duration;

use crate::console::Action;
use crate::facts::{spoken, Facts};
use crate::install::{Confirmation, Disks};
use crate::keys::Key;
use crate::network::Form;
use crate::screen::{Body, Line, Size, Style};

/// What is on the screen.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    /// How the node is.
    Status,
    Menu(Menu),
    /// Something that is not done without a second thought.
    Question(Question),
    Disks(Disks),
    Confirmation(Confirmation),
    Form(Box<Form>),
    /// Something is being done, which keys cannot stop.
    Work(Work),
    /// What came of it.
    Note(Note),
}

/// What a key leads to.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    /// Nothing but perhaps another look of the page.
    Stay,
    /// Another page.
    Go(Page),
    /// Something is done, and this page is shown meanwhile.
    Do(Action, Page),
}

impl Turn {
    /// Does something that takes a while from now on.
    pub(crate) fn work(action: Action, text: impl Into<String>, facts: &Facts) -> Self {
        Self::Do(action, Page::Work(Work { text: text.into(), since: facts.uptime }))
    }

    pub(crate) fn menu() -> Self {
        Self::Go(Page::Menu(Menu::default()))
    }
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Status,
    Install,
    Network,
    Restart,
    ShutDown,
}

const ITEMS: [(Item, &str); 5] = [
    (Item::Status, "Status"),
    (Item::Install, "Install this node on a disk"),
    (Item::Network, "Network and cluster"),
    (Item::Restart, "Restart the machine"),
    (Item::ShutDown, "Switch the machine off"),
];

/// The items of the menu, one of which is chosen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Menu {
    chosen: usize,
}

impl Menu {
    pub(crate) fn press(&mut self, key: Key, facts: &Facts) -> Turn {
        let item = match key {
            Key::Enter => self.chosen,
            Key::Character(c @ '1'..='9') => c as usize - '1' as usize,
            Key::Escape => return Turn::Go(Page::Status),
            key => {
                self.chosen = moved(self.chosen, ITEMS.len(), key);
                return Turn::Stay;
            }
        };
        match ITEMS.get(item).map(|(item, _)| *item) {
            None => Turn::Stay,
            Some(Item::Status) => Turn::Go(Page::Status),
            Some(Item::Install) => Turn::work(Action::ListDisks, "Looking at the disks", facts),
            Some(Item::Network) => {
                Turn::work(Action::ReadConfig, "Asking for the configuration", facts)
            }
            Some(Item::Restart) => Turn::Go(Page::Question(Question(Power::Restart))),
            Some(Item::ShutDown) => Turn::Go(Page::Question(Question(Power::Off))),
        }
    }

    pub(crate) fn body(&self) -> Body {
        let mut body = Body::default();
        body.gap();
        for (index, (_, text)) in ITEMS.iter().enumerate() {
            body.push(choice(index == self.chosen, &format!("{}  {text}", index + 1)));
        }
        body
    }
}

/// A line that can be chosen.
pub(crate) fn choice(is_chosen: bool, text: &str) -> Line {
    let style = if is_chosen { Style::Reverse } else { Style::Plain };
    Line::styled(format!("  {text}  "), style)
}

/// Which of so many is chosen after a key.
pub(crate) fn moved(chosen: usize, count: usize, key: Key) -> usize {
    match key {
        Key::Up => chosen.saturating_sub(1),
        Key::Down if chosen + 1 < count => chosen + 1,
        _ => chosen,
    }
}

/// What becomes of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Restart,
    Off,
}

impl Power {
    fn text(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Off => "switch off",
        }
    }

    pub(crate) fn turn(self, force: bool, facts: &Facts) -> Turn {
        let (action, text) = match self {
            Self::Restart => (Action::Restart { force }, "The machine restarts"),
            Self::Off => (Action::ShutDown { force }, "The machine switches itself off"),
        };
        Turn::work(action, text, facts)
    }
}

/// Asks before the machine goes down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question(Power);

impl Question {
    pub(crate) fn press(self, key: Key, facts: &Facts) -> Turn {
        match key {
            Key::Character('y' | 'Y') => self.0.turn(false, facts),
            Key::Escape | Key::Character('n' | 'N') => Turn::menu(),
            _ => Turn::Stay,
        }
    }

    pub(crate) fn body(self, size: Size) -> Body {
        let mut body = Body::default();
        body.gap();
        let what = match self.0 {
            Power::Restart => "Restart this machine?",
            Power::Off => "Switch this machine off?",
        };
        body.push(Line::styled(format!("  {what}"), Style::Bold));
        body.gap();
        let text = "Containers that run on it end. Its vote goes to another node first, and the others go on.";
        body.say(text, size);
        body
    }

    pub(crate) fn foot(self) -> String {
        format!("y: {}   Esc: back", self.0.text())
    }
}

/// Something that takes a while.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    text: String,
    /// The uptime at which it began.
    since: Duration,
}

impl Work {
    pub(crate) fn body(&self, facts: &Facts, size: Size) -> Body {
        let mut body = Body::default();
        body.gap();
        let time = spoken(facts.uptime.saturating_sub(self.since));
        body.say(&format!("{} ... {time}", self.text), size);
        body
    }
}

/// What came of something, and what can be done next.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    title: String,
    text: String,
    next: Option<Next>,
}

/// See [`Note`].
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// Restart, with `r`.
    Restart,
    /// The same that was refused, against all objections, with `f`.
    Force(Power),
    /// Use this configuration until the machine restarts, with `a`.
    Apply(String),
}

impl Note {
    pub(crate) fn new(
        title: impl Into<String>,
        text: impl Into<String>,
        next: Option<Next>,
    ) -> Self {
        Self { title: title.into(), text: text.into(), next }
    }

    pub(crate) fn press(&self, key: Key, facts: &Facts) -> Turn {
        match (key, &self.next) {
            (Key::Character('r' | 'R'), Some(Next::Restart)) => Power::Restart.turn(false, facts),
            (Key::Character('f' | 'F'), Some(Next::Force(power))) => power.turn(true, facts),
            (Key::Character('a' | 'A'), Some(Next::Apply(toml))) => {
                Turn::work(Action::Apply { toml: toml.clone() }, "Changing it", facts)
            }
            (Key::Enter | Key::Escape, _) => Turn::menu(),
            _ => Turn::Stay,
        }
    }

    pub(crate) fn body(&self, size: Size) -> Body {
        let mut body = Body::default();
        body.gap();
        body.push(Line::styled(format!("  {}", self.title), Style::Bold));
        body.gap();
        body.say(&self.text, size);
        body
    }

    pub(crate) fn foot(&self) -> String {
        match &self.next {
            None => "Enter: back".into(),
            Some(Next::Restart) => "r: restart   Enter: back".into(),
            Some(Next::Apply(_)) => "a: use it until the machine restarts   Enter: back".into(),
            Some(Next::Force(power)) => {
                format!("f: {} all the same   Enter: back", power.text())
            }
        }
    }
}
