// SPDX-License-Identifier: MIT OR Apache-2.0
//! The form for what a node has to be told at a site: its address where there is no DHCP server, and its cluster.

use std::fmt::Write;

use dvs_config::{Config, Source};

use crate::console::Action;
use crate::facts::Facts;
use crate::field::Field;
use crate::keys::Key;
use crate::page::Turn;
use crate::screen::{Body, Line, Size, Style};

/// What the fields are called, what they may be, and their keys in the configuration.
const FIELDS: [(&str, &str, &str, &str); 6] = [
    (
        "Interface",
        "that administrators reach; Left, Right: choose; empty: none",
        "network.management",
        "interface",
    ),
    ("Address", "and prefix length, such as 10.0.0.15/24", "network.management", "address"),
    ("Gateway", "such as 10.0.0.1; empty: none", "network.management", "gateway"),
    ("Cluster", "its name", "cluster", "name"),
    ("Token", "of the cluster; empty: as it is", "cluster", "token"),
    ("Nodes", "that form the cluster", "cluster", "bootstrap_expect"),
];
const INTERFACE: usize = 0;
const GATEWAY: usize = 2;
const TOKEN: usize = 4;
const NODES: usize = 5;
/// Behind the fields.
const SAVE: usize = FIELDS.len();
/// What stands for a token that the node does not tell.
const UNTOLD: &str = "that of the node, whatever it is";

/// The form.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    /// The configuration that it changes, without any token.
    before: Config,
    has_token: bool,
    fields: [Field; FIELDS.len()],
    chosen: usize,
    /// What is wrong with what was typed.
    error: Option<String>,
}

impl Form {
    /// One that shows a configuration, as the node tells it: without its tokens.
    ///
    /// # Errors
    /// For people: when this release does not understand it.
    pub(crate) fn new(toml: &str, has_token: bool) -> Result<Self, String> {
        let config = read(toml, if has_token { Some(UNTOLD) } else { None }, "")?;
        let management = config.network.management.as_ref();
        let text = |text: Option<String>| text.unwrap_or_default();
        let fields = [
            Field::of(text(management.map(|it| it.interface.to_string()))),
            Field::of(text(management.map(|it| it.address.to_string()))),
            Field::of(text(management.and_then(|it| it.gateway).map(|it| it.to_string()))),
            Field::of(config.cluster.name.to_string()),
            Field::masked(),
            Field::of(config.cluster.bootstrap_expect.to_string()),
        ];
        let mut before = config;
        before.cluster.token = None;
        Ok(Self { before, has_token, fields, chosen: 0, error: None })
    }

    pub(crate) fn press(&mut self, key: Key, facts: &Facts) -> Turn {
        match key {
            Key::Escape => return Turn::menu(),
            Key::Enter if self.chosen == SAVE => match self.toml() {
                Ok(toml) => return Turn::work(Action::Keep { toml }, "Writing it down", facts),
                Err(error) => self.error = Some(error),
            },
            Key::Up => self.chosen = self.chosen.saturating_sub(1),
            Key::Enter | Key::Down => self.chosen = (self.chosen + 1).min(SAVE),
            Key::Left | Key::Right if self.chosen == INTERFACE => self.choose(key, facts),
            key => {
                if let Some(field) = self.fields.get_mut(self.chosen) {
                    field.press(key);
                    self.error = None;
                }
            }
        }
        Turn::Stay
    }

    /// Takes the interface before or after the one that stands there; none is one of them.
    fn choose(&mut self, key: Key, facts: &Facts) {
        let mut names = vec![""];
        names.extend(facts.interfaces.iter().map(|interface| interface.name.as_str()));
        let now = names.iter().position(|name| *name == self.fields[INTERFACE].text());
        let step = if key == Key::Right { 1 } else { names.len() - 1 };
        let next = (now.unwrap_or(0) + step) % names.len();
        self.fields[INTERFACE] = Field::of(names[next].to_owned());
        self.error = None;
    }

    /// The configuration as it is to be. Without a token it means the one that the node has.
    fn toml(&self) -> Result<String, String> {
        let text = |index: usize| self.fields[index].text().trim();
        let mut before = self.before.clone();
        before.network.management = None;
        let has_token = !text(TOKEN).is_empty();
        if has_token {
            // A machine joins with either of the two.
            before.cluster.join_token = None;
        }
        let mut typed = String::new();
        for (index, (_, _, section, key)) in FIELDS.iter().enumerate() {
            let is_left_out = match index {
                // Without an interface there is no address; with one, a missing address is an error.
                INTERFACE..=GATEWAY => text(index).is_empty(),
                _ => index == TOKEN && !has_token,
            };
            if is_left_out {
                continue;
            }
            let value = match index {
                // A number is none with quotation marks, and what is no number is an error that shows it.
                NODES if text(index).parse::<u32>().is_ok() => text(index).to_owned(),
                _ => quoted(text(index)),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(typed, "{section}.{key} = {value}");
        }
        let token = (self.has_token && !has_token).then_some(UNTOLD);
        let mut config = read(&before.to_toml(), token, &typed)?;
        if !has_token {
            config.cluster.token = None;
        }
        Ok(config.to_toml())
    }

    pub(crate) fn body(&self, facts: &Facts, size: Size) -> Body {
        let mut body = Body::default();
        body.push(Line::styled("  Network and cluster", Style::Bold));
        body.gap();
        for (index, ((label, hint, ..), field)) in FIELDS.iter().zip(&self.fields).enumerate() {
            let is_chosen = index == self.chosen;
            let start = format!("  {label:11}");
            let line = Line::plain(format!("{start}{}", field.shown()));
            if is_chosen {
                body.cursor = Some((body.lines.len(), line.text.len()));
            }
            let style = if is_chosen { Style::Bold } else { Style::Plain };
            body.push(Line { style, ..line });
            if is_chosen {
                body.push(Line::plain(format!("  {:11}({hint})", "")));
            }
        }
        body.gap();
        let style = if self.chosen == SAVE { Style::Reverse } else { Style::Plain };
        body.push(Line::styled("  Save  ", style));
        body.gap();
        if let Some(error) = &self.error {
            body.say(error, size);
            return body;
        }
        for interface in &facts.interfaces {
            let (name, mac) = (&interface.name, &interface.mac);
            body.push(Line::plain(format!("  {name:10} {mac:19}{}", interface.state())));
        }
        body
    }
}

/// Texts as one configuration, the later over the earlier.
fn read(before: &str, token: Option<&str>, typed: &str) -> Result<Config, String> {
    let source = |name: &str| Source::File(name.into());
    let token = token.map(|token| format!("cluster.token = {}\n", quoted(token)));
    let sources = [
        (source("the configuration of this node"), before.to_owned()),
        (source("its token"), token.unwrap_or_default()),
        (source("this form"), typed.to_owned()),
    ];
    Config::from_sources(&sources).map_err(|error| error.to_string())
}

/// A string of TOML. Fields have no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
