// SPDX-License-Identifier: MIT OR Apache-2.0
//! The runtime's side of the containers: what is to be done next with each.

use std::collections::BTreeMap;

use dvs_runtime::{Capability, Cpu, Ids, Limits, Phase, Process, Root, Seccomp, Spec, Status};
use dvs_state::containers::ContainerId;

use super::desired::Desired;

/// Ids of the node that a container gets: as many as images may use.
const IDS: u32 = 65_536;
/// Bytes of memory of a container for which no limit was given: half of what a small node has.
const MEMORY: u64 = 64 << 20;
/// Processes of such a container.
const PROCESSES: u32 = 128;
/// What part of its memory the writable layer of a container may take.
const WRITABLE_PART: u64 = 2;
/// The pause after something failed; it doubles up to the longest one.
const PAUSE_MIN_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;

/// What names those containers of the runtime that are `dvsd`'s.
const PREFIX: &str = "dc";

/// What a container is called by the runtime. Its own name may be given to another one while it is being removed.
pub(super) fn name_of(id: ContainerId) -> String {
    format!("{PREFIX}{id}")
}

/// Which container the runtime means; `None` for one that somebody else made.
pub(super) fn owned(name: &str) -> Option<ContainerId> {
    let id = name.strip_prefix(PREFIX)?.parse().ok()?;
    (name_of(id) == name).then_some(id)
}

/// Something that the runtime is to do with a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Create(Box<Spec>),
    Start,
    Delete,
}

/// What is to be done next. `is_ready` says whether its DVK is, `may` whether what failed may be tried again already.
pub(super) fn step(
    wanted: Option<&Desired>,
    found: Option<&Status>,
    is_ready: bool,
    may: bool,
) -> Step {
    match (wanted, found.map(|status| status.phase)) {
        _ if !may => Step::Nothing,
        (None, Some(_)) => Step::Delete,
        (Some(wanted), None) if is_ready => Step::Create(Box::new(spec(wanted))),
        (Some(_), Some(Phase::Created)) => Step::Start,
        // It was not told to end.
        (Some(_), Some(Phase::Stopped)) => Step::Delete,
        (Some(_), Some(Phase::Creating | Phase::Running)) | (_, None) => Step::Nothing,
    }
}

/// Its description for the runtime.
pub(super) fn spec(wanted: &Desired) -> Spec {
    let memory = wanted.limits.memory_bytes.unwrap_or(MEMORY);
    Spec {
        name: name_of(wanted.id),
        dvk: wanted.id.into(),
        root: Root::Builtin,
        process: Process::default(),
        hostname: Some(wanted.name.clone()),
        // No two containers have an id of the node in common, so none can do anything to a file or process of another.
        ids: Ids { first: u32::from(wanted.id).saturating_mul(IDS), count: IDS },
        limits: Limits {
            memory,
            swap: 0,
            processes: wanted.limits.pids.unwrap_or(PROCESSES),
            writable: memory / WRITABLE_PART,
            cpu: Cpu { milli: wanted.limits.cpu_milli, ..Cpu::default() },
            io: Vec::new(),
        },
        network: None,
        capabilities: Capability::defaults(),
        seccomp: Seccomp::default(),
    }
}

/// What failed, and when it may be tried again.
#[derive(Clone, Debug, Default)]
pub(super) struct Retries(BTreeMap<ContainerId, Failed>);

#[derive(Clone, Debug)]
struct Failed {
    why: String,
    pause_ms: u64,
    again_ms: u64,
}

impl Retries {
    /// Whether something may be done with a container now.
    pub(super) fn may(&self, id: ContainerId, now_ms: u64) -> bool {
        self.0.get(&id).is_none_or(|failed| now_ms >= failed.again_ms)
    }

    /// Why the last step failed, if it did and none has succeeded since.
    pub(super) fn trouble(&self, id: ContainerId) -> Option<&str> {
        self.0.get(&id).map(|failed| failed.why.as_str())
    }

    /// A step failed; says whether that is news.
    pub(super) fn failed(&mut self, id: ContainerId, now_ms: u64, why: &str) -> bool {
        let before = self.0.get(&id);
        let pause_ms = before.map_or(PAUSE_MIN_MS, |it| (2 * it.pause_ms).min(PAUSE_MAX_MS));
        let is_news = before.is_none_or(|it| it.why != why);
        let again_ms = now_ms + pause_ms;
        self.0.insert(id, Failed { why: why.to_owned(), pause_ms, again_ms });
        is_news
    }

    /// All went well.
    pub(super) fn succeeded(&mut self, id: ContainerId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvs_state::containers::Limits as Agreed;

    fn wanted() -> Desired {
        let limits =
            Agreed { memory_bytes: Some(32 << 20), cpu_milli: Some(500), ..Agreed::default() };
        Desired { id: 7, name: "web".into(), limits, leases: BTreeMap::new() }
    }

    fn found(phase: Phase) -> Status {
        Status { name: "dc7".into(), dvk: 7, phase, pid: None, end: None }
    }

    #[test]
    fn a_container_is_made_started_and_made_anew_when_it_ends() {
        let wanted = wanted();
        let next =
            |phase: Option<Phase>| step(Some(&wanted), phase.map(found).as_ref(), true, true);
        assert!(matches!(next(None), Step::Create(_)));
        assert_eq!(next(Some(Phase::Creating)), Step::Nothing);
        assert_eq!(next(Some(Phase::Created)), Step::Start);
        assert_eq!(next(Some(Phase::Running)), Step::Nothing);
        assert_eq!(next(Some(Phase::Stopped)), Step::Delete);
        assert_eq!(
            step(Some(&wanted), None, false, true),
            Step::Nothing,
            "its device is not there"
        );
        assert_eq!(step(Some(&wanted), None, true, false), Step::Nothing, "it has just failed");
        assert_eq!(step(None, Some(&found(Phase::Running)), true, true), Step::Delete);
        assert_eq!(step(None, None, false, true), Step::Nothing);
    }

    #[test]
    fn descriptions_are_ones_that_the_runtime_takes() {
        let spec = spec(&wanted());
        spec.check().unwrap();
        assert_eq!((spec.name.as_str(), spec.hostname.as_deref()), ("dc7", Some("web")));
        assert_eq!((spec.limits.memory, spec.limits.cpu.milli), (32 << 20, Some(500)));
        let last = Desired { id: ContainerId::MAX - 1, limits: Agreed::default(), ..wanted() };
        super::spec(&last).check().unwrap();
    }

    #[test]
    fn only_own_names_are_owned() {
        assert_eq!(owned("dc7"), Some(7));
        for other in ["web", "dc", "dc07", "dc+7", "dc7x", "dc65536"] {
            assert_eq!(owned(other), None, "{other}");
        }
    }

    #[test]
    fn what_fails_is_tried_again_less_and_less_often() {
        let mut retries = Retries::default();
        assert!(retries.may(1, 0) && retries.failed(1, 0, "no"));
        assert!(!retries.may(1, 999) && retries.may(1, 1_000) && retries.may(2, 0));
        assert!(!retries.failed(1, 1_000, "no"), "it was told before");
        assert!(!retries.may(1, 2_999) && retries.may(1, 3_000));
        assert_eq!(retries.trouble(1), Some("no"));
        for _ in 0..20 {
            retries.failed(1, 0, "no");
        }
        assert!(retries.may(1, PAUSE_MAX_MS));
        retries.succeeded(1);
        assert_eq!((retries.trouble(1), retries.may(1, 0)), (None, true));
    }
}
