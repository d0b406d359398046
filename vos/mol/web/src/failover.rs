// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done when a file server is lost: another one takes over, and what was asked is asked again there. Nothing here
//! waits or looks at a clock but by what it is given.

use crate::conditions::Version;
use crate::source::{Entry, Fault, Found, Source};
use crate::target::Target;
use core::time::Duration;

/// How long a server is looked for, from the time on at which a request began to wait.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long it is waited before it is looked for again, at first.
const PAUSE: Duration = Duration::from_millis(50);
/// The same, after a while: a new one is there after seconds.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Time, and who waits.
pub trait Patient {
    /// The time of a clock that never goes back.
    fn now(&self) -> Duration;

    /// Waits.
    fn pause(&self, time: Duration);

    /// Whether nobody waits for the answer any more.
    fn is_alone(&self) -> bool;
}

/// Why a request, or the rest of a body, has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What the source said in the end.
    Fault(Fault),
    /// There is another file under the path now, or the file has been changed.
    Changed,
    /// The file has become shorter than it was when it was opened.
    Short,
    /// Nobody wants to know.
    Alone,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Changed => f.write_str("it was changed while it was sent, and so it was cut"),
            Self::Short => f.write_str("it became shorter while it was sent, and so it was cut"),
            Self::Alone => f.write_str("the client has gone"),
        }
    }
}

impl core::error::Error for Failure {}

/// What is done after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It is tried again after this time.
    Again(Duration),
    /// It is over.
    GiveUp,
}

/// The tries of one request.
#[derive(Debug)]
struct Tries {
    until: Duration,
    pause: Duration,
}

impl Tries {
    fn new(began: Duration) -> Self {
        Self { until: began.saturating_add(PATIENCE), pause: PAUSE }
    }

    /// How long whoever is asked now may take.
    fn rest(&self, now: Duration) -> Duration {
        self.until.saturating_sub(now)
    }

    fn after(&mut self, fault: &Fault, now: Duration) -> Next {
        if !matches!(fault, Fault::Lost(_)) || now >= self.until {
            return Next::GiveUp;
        }
        let pause = self.pause.min(self.until - now);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Next::Again(pause)
    }
}

/// Does something that harms nobody if it is done twice, until it is not a lost server that keeps it from being done. The work is told how
/// to find out how long it may still take.
fn insist<S: Source, T>(
    source: &mut S,
    patient: &impl Patient,
    began: Duration,
    mut work: impl FnMut(&mut S, &dyn Fn() -> Duration) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut tries = Tries::new(began);
    loop {
        if patient.is_alone() {
            return Err(Failure::Alone);
        }
        match work(source, &|| tries.rest(patient.now())) {
            Err(Failure::Fault(fault)) => match tries.after(&fault, patient.now()) {
                Next::Again(pause) => patient.pause(pause),
                Next::GiveUp => return Err(Failure::Fault(fault)),
            },
            other => return other,
        }
    }
}

/// What a target comes to.
#[derive(Debug)]
pub enum Located<O> {
    /// A file.
    File(Reading<O>),
    /// A directory whose address lacks the `/` at its end.
    NoSlash,
    /// What a directory without an `index.html` has.
    List(Vec<Entry>),
}

/// A file that is open, and what it was when it was opened first.
#[derive(Debug)]
pub struct Reading<O> {
    /// Where it is open; `None` after the server was lost.
    open: Option<O>,
    path: Vec<u8>,
    version: Version,
}

impl<O> Reading<O> {
    /// What it was.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Gives back what is open.
    pub fn close(self, source: &mut impl Source<Open = O>) {
        if let Some(open) = self.open {
            source.close(open);
        }
    }
}

/// Looks for what a target is for. `began` is when it was asked.
///
/// # Errors
/// [`Failure`].
pub fn locate<S: Source>(
    source: &mut S,
    patient: &impl Patient,
    began: Duration,
    target: &Target,
) -> Result<Located<S::Open>, Failure> {
    insist(source, patient, began, |source, rest| {
        locate_once(source, target, rest).map_err(Failure::Fault)
    })
}

fn locate_once<S: Source>(
    source: &mut S,
    target: &Target,
    rest: &dyn Fn() -> Duration,
) -> Result<Located<S::Open>, Fault> {
    let path = target.path();
    match source.find(&path, rest())? {
        Found::File(open, version) if target.is_directory => {
            // With a `/` behind it, links on the page would lead elsewhere.
            let reading = Reading { open: Some(open), path, version };
            reading.close(source);
            Err(Fault::Absent)
        }
        Found::File(open, version) => {
            Ok(Located::File(Reading { open: Some(open), path, version }))
        }
        Found::Directory if !target.is_directory => Ok(Located::NoSlash),
        Found::Directory => {
            let index = match path.is_empty() {
                true => b"index.html".to_vec(),
                false => [&path[..], b"index.html"].join(&b"/"[..]),
            };
            match source.find(&index, rest()) {
                Ok(Found::File(open, version)) => {
                    Ok(Located::File(Reading { open: Some(open), path: index, version }))
                }
                Ok(Found::Directory) | Err(Fault::Absent) => {
                    Ok(Located::List(source.list(&path, rest())?))
                }
                Err(other) => Err(other),
            }
        }
    }
}

/// Reads from byte `position` on, at whichever server has the file. The result is how many bytes, which are some.
///
/// # Errors
/// [`Failure`]. What the client gets must not be whole then.
pub fn read<S: Source>(
    source: &mut S,
    patient: &impl Patient,
    began: Duration,
    reading: &mut Reading<S::Open>,
    position: u64,
    into: &mut [u8],
) -> Result<usize, Failure> {
    insist(source, patient, began, |source, rest| {
        let open = match &reading.open {
            Some(open) => open,
            None => match source.find(&reading.path, rest()).map_err(gone)? {
                Found::File(open, version) if version == reading.version => {
                    reading.open.insert(open)
                }
                Found::File(open, _) => {
                    source.close(open);
                    return Err(Failure::Changed);
                }
                Found::Directory => return Err(Failure::Changed),
            },
        };
        match source.read(open, position, into, rest()) {
            Ok(0) => Err(Failure::Short),
            Ok(count) => Ok(count),
            Err(fault) => {
                if matches!(fault, Fault::Lost(_)) {
                    reading.open = None;
                }
                Err(Failure::Fault(fault))
            }
        }
    })
}

/// A file that was there and is not any more has been changed.
fn gone(fault: Fault) -> Failure {
    match fault {
        Fault::Absent | Fault::Denied => Failure::Changed,
        other => Failure::Fault(other),
    }
}

#[cfg(test)]
mod tests;
