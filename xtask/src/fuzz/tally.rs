// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `dvk-fuzz` says on the console of its machine, read and put into a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use dvk_abi::errno::Errno;
use dvk_fuzz::call::{errors, CALLS};

/// What its lines begin with.
const MARK: &str = "fuzz: ";

/// The tally of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// How often each call ended with each errno.
    counts: BTreeMap<String, BTreeMap<u16, u64>>,
    events: Vec<(String, u64)>,
    faults: Vec<String>,
    /// Numbers of the programs that ran when it was last said.
    running: String,
    /// As of the last line about it.
    calls: u64,
    seconds: f64,
    done: bool,
}

impl Tally {
    /// Takes in a line of the console; returns what is to be said about it at once.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        let (_, text) = line.split_once(MARK)?;
        let (verb, rest) = text.split_once(' ')?;
        match verb {
            "progress" => {
                let mut words = rest.splitn(3, ' ');
                self.calls = words.next()?.parse().ok()?;
                self.seconds = words.next()?.parse().ok()?;
                let rate = self.calls as f64 / self.seconds.max(1.0);
                let running = words.next().unwrap_or_default();
                self.running = running.trim().trim_start_matches("running ").to_owned();
                Some(format!("{} calls, {rate:.0} a second; {running}", self.calls))
            }
            "count" => {
                let mut words = rest.splitn(3, ' ');
                let errno = words.next()?.parse().ok()?;
                let count = words.next()?.parse().ok()?;
                self.counts.entry(words.next()?.to_owned()).or_default().insert(errno, count);
                None
            }
            "event" => {
                let (count, name) = rest.split_once(' ')?;
                self.events.push((name.to_owned(), count.parse().ok()?));
                None
            }
            "done" => {
                let (calls, seconds) = rest.split_once(' ')?;
                (self.calls, self.seconds) = (calls.parse().ok()?, seconds.trim().parse().ok()?);
                self.done = true;
                None
            }
            "fault" => {
                self.faults.push(rest.to_owned());
                Some(format!("found: {rest}"))
            }
            "warming" | "looking" | "memory:" | "processors:" => Some(text.to_owned()),
            _ => None,
        }
    }

    /// How many calls were made.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// What the program found.
    pub(super) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Numbers of the programs that ran last.
    pub(super) fn running(&self) -> &str {
        &self.running
    }

    /// The errors of the reference that no call ended with.
    pub(super) fn never(&self) -> Vec<&'static str> {
        let seen = self.errnos();
        let unseen = errors().filter(|errno| !seen.contains(&u16::from(errno.raw())));
        unseen.map(Errno::name).collect()
    }

    /// Calls of the DVK that ended with an error which the reference does not have.
    pub(super) fn undocumented(&self) -> Vec<String> {
        let known: BTreeSet<u16> = errors().map(|errno| errno.raw().into()).collect();
        let mut found = Vec::new();
        for (call, counts) in &self.counts {
            // A file that was closed meanwhile is Linux's affair.
            for (errno, count) in counts.iter().filter(|(errno, _)| !matches!(errno, 0 | 9)) {
                if !known.contains(errno) {
                    found.push(format!(
                        "{count} times {call} ended with {}, which the reference does not have",
                        errno_name(*errno)
                    ));
                }
            }
        }
        found
    }

    fn errnos(&self) -> BTreeSet<u16> {
        self.counts.values().flat_map(|counts| counts.keys()).copied().collect()
    }

    /// A line for each call: how often it was made, succeeded, and failed in which way.
    pub(super) fn table(&self) -> String {
        let mut text = format!("{:<20} {:>9} {:>9}  errors\n", "call", "made", "done");
        let names = CALLS.iter().map(|call| call.name).chain(["no call"]);
        for name in names {
            let none = BTreeMap::new();
            let counts = self.counts.get(name).unwrap_or(&none);
            let made: u64 = counts.values().sum();
            let done = counts.get(&0).copied().unwrap_or(0);
            let mut errors: Vec<_> = counts.iter().filter(|(errno, _)| **errno != 0).collect();
            errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let errors: Vec<String> = errors
                .iter()
                .map(|(errno, count)| format!("{} {count}", errno_name(**errno)))
                .collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<20} {made:>9} {done:>9}  {}", errors.join(", "));
        }
        for (name, count) in &self.events {
            let _ = writeln!(text, "{name:<44} {count:>9}");
        }
        let never = self.never();
        if !never.is_empty() {
            let _ =
                writeln!(text, "errors of the reference that did not occur: {}", never.join(", "));
        }
        text
    }

    /// The last line.
    pub(super) fn summary(&self, seed: u64, found_nothing: bool) -> String {
        let made = CALLS.iter().filter(|call| self.counts.contains_key(call.name)).count();
        let pairs: usize = self.counts.values().map(BTreeMap::len).sum();
        let errnos = errors().count() - self.never().len();
        let found = match (found_nothing, self.done) {
            (true, true) => "nothing found",
            (true, false) => "not finished",
            (false, _) => "FOUND SOMETHING, see above",
        };
        format!(
            "fuzz dvk, seed {seed}: {} calls in {:.0} s, {made} of {} kinds, {errnos} of {} errors, {pairs} pairs of both: {found}",
            self.calls,
            self.seconds,
            CALLS.len(),
            errors().count(),
        )
    }
}

fn errno_name(errno: u16) -> String {
    let known = u8::try_from(errno).ok().and_then(Errno::from_raw);
    match (known, errno) {
        (Some(known), _) => known.name().to_owned(),
        // Not the DVK's, but those of files that are not open, and of another driver's.
        (None, 9) => "EBADF".to_owned(),
        (None, other) => format!("errno-{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_a_table() {
        let mut tally = Tally::default();
        for line in [
            "[    3.1] a line of the kernel",
            "fuzz: count 0 900 SENDREC",
            "fuzz: count 4 70 SENDREC",
            "fuzz: count 9 30 SENDREC",
            "fuzz: count 25 5 no call",
            "fuzz: event 12 forks",
            "fuzz: done 1005 10.5",
        ] {
            assert_eq!(tally.line(line), None);
        }
        let news = tally.line("fuzz: progress 500 5 running 3 4").unwrap();
        assert_eq!(news, "500 calls, 100 a second; running 3 4");
        let table = tally.table();
        let line = table.lines().find(|line| line.starts_with("SENDREC")).unwrap();
        assert!(line.ends_with("1000       900  EINTR 70, EBADF 30"), "{line}");
        assert!(table.contains("forks"));
        assert!(tally.summary(7, true).contains("nothing found"));
        assert_eq!(tally.running(), "3 4");
        assert!(tally.line("fuzz: fault a leak: much").is_some());
        assert_eq!(tally.faults(), ["a leak: much"]);
        assert!(tally.summary(7, false).contains("FOUND"));
    }

    #[test]
    fn a_run_that_broke_off_is_no_success() {
        assert!(Tally::default().summary(1, true).contains("not finished"));
    }

    #[test]
    fn errors_of_the_reference_are_missed_and_others_are_found() {
        let mut tally = Tally::default();
        assert_eq!(tally.never().len(), errors().count());
        for line in ["fuzz: count 0 9 SEND", "fuzz: count 9 1 SEND", "fuzz: count 4 2 SEND"] {
            tally.line(line);
        }
        assert_eq!(tally.never().len(), errors().count() - 1);
        assert!(!tally.never().contains(&"EINTR") && tally.never().contains(&"EPERM"));
        assert_eq!(tally.undocumented(), [""; 0]);
        tally.line("fuzz: count 78 3 SEND");
        tally.line("fuzz: count 5 1 BIND");
        let found = tally.undocumented();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("BIND ended with errno-5") && found[1].contains("EREMCHG"));
    }

    #[test]
    fn the_reference_lists_the_same_errors() {
        let reference = include_str!("../../../docs/dvk-reference.md");
        let (_, table) = reference.split_once("## Errors").unwrap();
        let (table, _) = table.split_once("## Rules").unwrap();
        let mut listed: Vec<&str> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name)
            .collect();
        let mut known: Vec<&str> = errors().map(Errno::name).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }
}
