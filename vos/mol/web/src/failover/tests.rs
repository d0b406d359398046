// SPDX-License-Identifier: MIT OR Apache-2.0
//! Against servers that are lost at each point, and a clock that goes when somebody waits.

use super::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};

const VERSION: Version =
    Version { inode: 5, bytes: 1000, modified: Duration::from_secs(1_700_000_000) };

#[derive(Default)]
struct Clock {
    now: Cell<Duration>,
    is_alone: Cell<bool>,
}

impl Patient for Clock {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn pause(&self, time: Duration) {
        assert!(time > Duration::ZERO, "it would be tried all the time");
        self.now.set(self.now.get() + time);
    }

    fn is_alone(&self) -> bool {
        self.is_alone.get()
    }
}

fn content() -> Vec<u8> {
    (0..VERSION.bytes).map(|at| (at % 251) as u8).collect()
}

/// Servers one after the other, as the source of one client.
struct Servers<'c> {
    clock: &'c Clock,
    /// At which calls, counted from 0, the server in charge is lost.
    losses: Vec<usize>,
    /// At which it says nothing, for as long as it is waited for.
    silences: Vec<usize>,
    /// How long it takes until another one has taken over.
    takeover: Duration,
    /// What the file is at the next server.
    next_version: Version,
    next_content: Vec<u8>,
    calls: usize,
    /// Which server is in charge, and from when on.
    server: usize,
    since: Duration,
    version: Version,
    content: Vec<u8>,
    /// How often files were opened less how often closed, at the server in charge.
    open: RefCell<i32>,
}

impl<'c> Servers<'c> {
    fn new(clock: &'c Clock, losses: &[usize], takeover: Duration) -> Self {
        Self {
            clock,
            losses: losses.to_vec(),
            silences: Vec::new(),
            takeover,
            next_version: VERSION,
            next_content: content(),
            calls: 0,
            server: 0,
            since: Duration::ZERO,
            version: VERSION,
            content: content(),
            open: RefCell::new(0),
        }
    }

    fn call(&mut self, limit: Duration) -> Result<(), Fault> {
        let call = self.calls;
        self.calls += 1;
        if self.losses.contains(&call) {
            self.server += 1;
            self.since = self.clock.now() + self.takeover;
            self.version = self.next_version;
            self.content = self.next_content.clone();
            *self.open.borrow_mut() = 0;
        }
        if self.silences.contains(&call) {
            self.clock.now.set(self.clock.now() + limit);
            // A source keeps nothing at a server that it lost.
            *self.open.borrow_mut() = 0;
            return Err(Fault::Lost(format!("server {} says nothing", self.server)));
        }
        match self.losses.contains(&call) || self.clock.now() < self.since {
            true => Err(Fault::Lost(format!("server {} is not there", self.server))),
            false => Ok(()),
        }
    }
}

impl Source for Servers<'_> {
    /// At which server it is open.
    type Open = usize;

    fn find(&mut self, path: &[u8], limit: Duration) -> Result<Found<usize>, Fault> {
        self.call(limit)?;
        match path {
            b"" | b"d" => Ok(Found::Directory),
            b"f" | b"d/index.html" => {
                *self.open.borrow_mut() += 1;
                Ok(Found::File(self.server, self.version))
            }
            _ => Err(Fault::Absent),
        }
    }

    fn list(&mut self, _: &[u8], limit: Duration) -> Result<Vec<Entry>, Fault> {
        self.call(limit)?;
        Ok(Vec::new())
    }

    fn read(
        &mut self,
        file: &usize,
        position: u64,
        into: &mut [u8],
        limit: Duration,
    ) -> Result<usize, Fault> {
        self.call(limit)?;
        if *file != self.server {
            return Err(Fault::Lost("it is not open here".to_owned()));
        }
        let rest = &self.content[(position as usize).min(self.content.len())..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn close(&mut self, file: usize) {
        if file == self.server {
            *self.open.borrow_mut() -= 1;
        }
    }
}

/// Gets all of a file, as a connection does it.
fn get(servers: &mut Servers<'_>, clock: &Clock, block: usize) -> Result<Vec<u8>, Failure> {
    let target = Target::parse("/f").unwrap();
    let Located::File(mut reading) = locate(servers, clock, clock.now(), &target)? else {
        panic!("it is a file");
    };
    let mut got = Vec::new();
    let mut failed = None;
    while got.len() < VERSION.bytes as usize && failed.is_none() {
        let mut into = vec![0; block.min(VERSION.bytes as usize - got.len())];
        match read(servers, clock, clock.now(), &mut reading, got.len() as u64, &mut into) {
            Ok(count) => got.extend(&into[..count]),
            Err(failure) => failed = Some(failure),
        }
    }
    reading.close(servers);
    assert_eq!(*servers.open.borrow(), 0, "everything is given back");
    failed.map_or(Ok(got), Err)
}

#[test]
fn a_body_goes_on_wherever_the_server_is_lost() {
    for loss in 0..20 {
        let clock = Clock::default();
        let mut servers = Servers::new(&clock, &[loss], Duration::from_secs(10));
        assert!(get(&mut servers, &clock, 100) == Ok(content()), "lost at call {loss}");
        let is_lost = loss < 11;
        assert_eq!(servers.server, usize::from(is_lost), "call {loss}");
        assert_eq!(clock.now() >= Duration::from_secs(10), is_lost, "call {loss}");
    }
}

#[test]
fn a_server_that_loses_it_again_and_again_does_not_matter() {
    let clock = Clock::default();
    let mut servers = Servers::new(&clock, &[1, 3, 4, 60, 61, 90], Duration::from_secs(7));
    assert!(get(&mut servers, &clock, 100) == Ok(content()));
}

#[test]
fn after_half_a_minute_it_is_given_up_and_not_before() {
    let clock = Clock::default();
    let mut servers = Servers::new(&clock, &[0], Duration::from_millis(29_999));
    assert!(get(&mut servers, &clock, 100).is_ok());
    for loss in [0, 5] {
        let clock = Clock::default();
        let mut servers = Servers::new(&clock, &[loss], Duration::from_secs(31));
        let failed = get(&mut servers, &clock, 100);
        assert!(matches!(failed, Err(Failure::Fault(Fault::Lost(_)))), "{failed:?}");
        assert_eq!(clock.now(), PATIENCE, "it is tried at the very end");
    }
}

#[test]
fn time_in_line_counts() {
    let clock = Clock::default();
    clock.now.set(Duration::from_secs(100));
    let mut servers = Servers::new(&clock, &[0], Duration::from_secs(60));
    let target = Target::parse("/f").unwrap();
    let failed = locate(&mut servers, &clock, Duration::from_secs(75), &target);
    assert!(failed.is_err());
    assert_eq!(clock.now(), Duration::from_secs(105));
}

#[test]
fn a_server_that_is_silent_takes_no_more_time_than_there_is() {
    for silence in 0..11 {
        let clock = Clock::default();
        clock.now.set(Duration::from_secs(100));
        let mut servers = Servers::new(&clock, &[], Duration::ZERO);
        servers.silences.push(silence);
        let failed = get(&mut servers, &clock, 100);
        assert!(matches!(failed, Err(Failure::Fault(Fault::Lost(_)))), "{silence}: {failed:?}");
        assert_eq!(clock.now(), Duration::from_secs(130), "call {silence}");
    }
}

#[test]
fn time_that_was_lost_with_another_server_is_not_given_to_one_that_is_silent() {
    let clock = Clock::default();
    let mut servers = Servers::new(&clock, &[0], Duration::from_secs(10));
    servers.silences.extend(2..1000);
    assert!(get(&mut servers, &clock, 100).is_err());
    assert_eq!(clock.now(), PATIENCE);
}

#[test]
fn nobody_is_looked_for_when_nobody_waits() {
    let clock = Clock::default();
    clock.is_alone.set(true);
    let mut servers = Servers::new(&clock, &[], Duration::ZERO);
    assert_eq!(get(&mut servers, &clock, 100), Err(Failure::Alone));
    assert_eq!(servers.calls, 0);
}

#[test]
fn another_file_is_not_sent_for_the_rest_of_this_one() {
    let seconds = VERSION.modified + Duration::from_secs(1);
    for version in [
        Version { bytes: 999, ..VERSION },
        Version { bytes: 1001, ..VERSION },
        Version { modified: seconds, ..VERSION },
        Version { inode: 6, ..VERSION },
    ] {
        let clock = Clock::default();
        let mut servers = Servers::new(&clock, &[5], Duration::from_secs(1));
        servers.next_version = version;
        assert_eq!(get(&mut servers, &clock, 100), Err(Failure::Changed), "{version:?}");
        // Before anything was said of it, another version is as good.
        let mut servers = Servers::new(&clock, &[0], Duration::from_secs(1));
        servers.next_version = version;
        assert!(get(&mut servers, &clock, 100).is_ok());
    }
    assert_eq!(gone(Fault::Absent), Failure::Changed);
}

#[test]
fn a_file_that_was_cut_does_not_become_whole() {
    let clock = Clock::default();
    let mut servers = Servers::new(&clock, &[], Duration::ZERO);
    servers.content.truncate(550);
    assert_eq!(get(&mut servers, &clock, 100), Err(Failure::Short));
}

#[test]
fn faults_of_a_file_are_told_at_once() {
    for fault in
        [Fault::Absent, Fault::Denied, Fault::Full(String::new()), Fault::Failed(String::new())]
    {
        assert_eq!(Tries::new(Duration::ZERO).after(&fault, Duration::ZERO), Next::GiveUp);
    }
}

#[test]
fn a_target_is_a_file_or_a_directory_with_a_slash() {
    let clock = Clock::default();
    let said = |path: &str| {
        let mut servers = Servers::new(&clock, &[], Duration::ZERO);
        let located = locate(&mut servers, &clock, clock.now(), &Target::parse(path).unwrap());
        let said = match &located {
            Ok(Located::File(reading)) => String::from_utf8(reading.path.clone()).unwrap(),
            Ok(Located::NoSlash) => "no slash".to_owned(),
            Ok(Located::List(_)) => "list".to_owned(),
            Err(failure) => failure.to_string(),
        };
        let open = *servers.open.borrow();
        assert_eq!(open, i32::from(matches!(located, Ok(Located::File(_)))), "{path}");
        said
    };
    assert_eq!(said("/f"), "f");
    assert_eq!(said("/f/"), "there is no such file");
    assert_eq!(said("/d"), "no slash");
    assert_eq!(said("/d/"), "d/index.html");
    assert_eq!(said("/"), "list");
    assert_eq!(said("/g"), "there is no such file");
}

proptest! {
    #[test]
    fn whatever_happens_nothing_wrong_is_sent(
        losses in prop::collection::vec(0..80_usize, 0..6),
        takeover_ms in 0..40_000_u64,
        block in 1..300_usize,
        changes: bool,
    ) {
        let clock = Clock::default();
        let mut servers = Servers::new(&clock, &losses, Duration::from_millis(takeover_ms));
        if changes {
            servers.next_version.modified += Duration::from_secs(1);
            servers.next_content.reverse();
        }
        if let Ok(got) = get(&mut servers, &clock, block) {
            let mut reversed = content();
            reversed.reverse();
            prop_assert!(got == content() || changes && got == reversed);
        }
    }
}
