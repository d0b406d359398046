// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to be carried: which link, between whom, how protected, and what is counted and said of it.

use crate::batch::Compression;
use crate::counters::Counters;
use crate::protection::{Ends, Protection};
use core::fmt;
use core::time::Duration;
use dvs_authority::Identity;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

/// One link on its way through a proxy.
#[derive(Debug)]
pub struct Passage<'a, L> {
    /// Whose frames these are.
    pub link: &'a L,
    /// Between whom.
    pub ends: Ends,
    /// How they are protected.
    pub protection: &'a Protection,
    /// What this end proves itself by, to whom TLS is spoken.
    pub identity: Option<&'a Identity>,
    /// What is compressed, where whole batches are sent.
    pub compression: Compression,
    /// What is counted.
    pub counters: &'a Counters,
    /// Who is told.
    pub log: &'a Log,
}

impl<L> Clone for Passage<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Passage<'_, L> {}

/// The same is said once in this time.
const SILENCE: Duration = Duration::from_secs(10);
/// Different things to say that are remembered.
const TOPICS_MAX: usize = 64;

/// Says what people have to know, and not again and again: strangers could fill a disk with it.
pub struct Log {
    sink: Box<dyn Fn(&str) + Send + Sync>,
    said: Mutex<HashMap<String, Instant>>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

impl Log {
    /// A log whose lines go to `sink`.
    pub fn new(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { sink: Box::new(sink), said: Mutex::default() }
    }

    /// Says `what` about `whom`, if the same was not said of anybody a moment ago.
    pub fn say(&self, whom: impl fmt::Display, what: &str) {
        let now = Instant::now();
        // A thread that panicked while it held this left a map.
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        said.retain(|_, at| now.duration_since(*at) < SILENCE);
        if said.len() < TOPICS_MAX && !said.contains_key(what) {
            said.insert(what.to_owned(), now);
            (self.sink)(&format!("{whom}: {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_same_is_said_once() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let log = Log::new(move |line| sink.lock().unwrap().push(line.to_owned()));
        log.say("10.0.0.1:1", "no");
        log.say("10.0.0.1:2", "no");
        log.say("10.0.0.1:2", "yes");
        assert_eq!(*lines.lock().unwrap(), ["10.0.0.1:1: no", "10.0.0.1:2: yes"]);
        for number in 0..1000 {
            log.say("10.0.0.1:3", &number.to_string());
        }
        assert_eq!(lines.lock().unwrap().len(), TOPICS_MAX);
    }
}
