// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making a disk one that boots this node: which one, and whether what is on it may be lost.

use dvs_api::DiskListed;

use crate::console::Action;
use crate::facts::Facts;
use crate::field::Field;
use crate::keys::Key;
use crate::page::{choice, moved, Page, Turn};
use crate::screen::{Body, Line, Size, Style};

/// The disks of the machine, one of which is chosen.
#[derive(Clone, Debug)]
pub(crate) struct Disks {
    disks: Vec<DiskListed>,
    chosen: usize,
}

impl Disks {
    pub(crate) fn new(disks: Vec<DiskListed>) -> Self {
        Self { disks, chosen: 0 }
    }

    pub(crate) fn press(&mut self, key: Key) -> Turn {
        match key {
            Key::Escape => Turn::menu(),
            Key::Enter => match self.disks.get(self.chosen) {
                Some(disk) if disk.unfit.is_none() => {
                    let (disk, name) = (disk.clone(), Field::default());
                    Turn::Go(Page::Confirmation(Confirmation { disk, name, is_wrong: false }))
                }
                _ => Turn::Stay,
            },
            key => {
                self.chosen = moved(self.chosen, self.disks.len(), key);
                Turn::Stay
            }
        }
    }

    pub(crate) fn body(&self, size: Size) -> Body {
        let mut body = Body::default();
        body.gap();
        body.push(Line::styled("  Install this node on a disk", Style::Bold));
        body.gap();
        if self.disks.is_empty() {
            body.say("This machine has no disk that could be written to.", size);
        }
        for (index, disk) in self.disks.iter().enumerate() {
            if index == self.chosen {
                body.cursor = Some((body.lines.len(), 0));
            }
            let (bytes, model) = (volume(disk.bytes), disk.model.as_deref().unwrap_or(""));
            let text = format!("{:14}{bytes:>10}  {model}", disk.disk);
            body.push(choice(index == self.chosen, &text));
            let state = match (&disk.unfit, &disk.found) {
                (Some(why), _) => format!("cannot be used: {why}"),
                (None, Some(found)) => found.clone(),
                (None, None) => "nothing is on it".into(),
            };
            body.push(Line::plain(format!("      {state}")));
        }
        body
    }
}

/// A disk that is about to be written to.
#[derive(Clone, Debug)]
pub(crate) struct Confirmation {
    disk: DiskListed,
    /// The disk's name, as it was typed.
    name: Field,
    /// Whether another one was.
    is_wrong: bool,
}

impl Confirmation {
    /// What has to be typed: the name without the folder of all devices.
    fn wanted(&self) -> &str {
        self.disk.disk.strip_prefix("/dev/").unwrap_or(&self.disk.disk)
    }

    pub(crate) fn press(&mut self, key: Key, facts: &Facts) -> Turn {
        match key {
            Key::Escape => Turn::menu(),
            Key::Enter if [self.wanted(), &self.disk.disk].contains(&self.name.text().trim()) => {
                let disk = self.disk.disk.clone();
                let text = format!("Writing to {disk}, and reading back");
                Turn::work(Action::Install { disk, wipe: self.disk.found.is_some() }, text, facts)
            }
            Key::Enter => {
                self.is_wrong = !self.name.text().is_empty();
                Turn::Stay
            }
            key => {
                self.is_wrong &= !self.name.press(key);
                Turn::Stay
            }
        }
    }

    pub(crate) fn body(&self, size: Size) -> Body {
        let mut body = Body::default();
        let DiskListed { disk, bytes, model, found, .. } = &self.disk;
        body.gap();
        body.push(Line::styled(format!("  Install this node on {disk}"), Style::Bold));
        body.gap();
        let model = model.as_ref().map(|model| format!(", {model}")).unwrap_or_default();
        body.say(&format!("{disk} has {}{model}.", volume(*bytes)), size);
        match found {
            Some(found) => body.say(&format!("It has {found}, WHICH WILL BE LOST."), size),
            None => body.say("Nothing is on it.", size),
        }
        body.gap();
        let text = "The disk gets a boot loader for UEFI, the image that runs now, and the machine configuration, its secrets included.";
        body.say(text, size);
        body.gap();
        let prompt = format!("  Type {} to go on: ", self.wanted());
        let line = Line::plain(format!("{prompt}{}", self.name.shown()));
        body.cursor = Some((body.lines.len(), line.text.len()));
        body.push(line);
        if self.is_wrong {
            body.gap();
            body.push(Line::styled("  That is not the name of this disk.", Style::Bold));
        }
        body
    }
}

/// Bytes in the unit that disks are sold in.
fn volume(bytes: u64) -> String {
    match bytes {
        0..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        10_000_000_000..10_000_000_000_000 => format!("{} GB", bytes / 1_000_000_000),
        _ => format!("{} TB", bytes / 1_000_000_000_000),
    }
}
