// SPDX-License-Identifier: MIT OR Apache-2.0
//! The runtime's side of the containers: what is to be done next with each.

use std::collections::BTreeMap;

use dvs_runtime::{
    Capability, Cpu, End, Ids, Io, Limits, Network, Phase, Process, Root, Seccomp, Spec, Status,
    User,
};
use dvs_state::containers::{ContainerId, Restart};

use super::desired::Desired;
use crate::images;

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
/// What has run for so long has not failed again.
const CALM_MS: u64 = 10_000;

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
    Update(Box<Spec>),
    Start,
    Delete,
}

/// What is known of a container when a step is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// What it is to be, unless it is to go.
    pub(super) wanted: Option<&'a Desired>,
    /// Its description, or why there can be none yet.
    pub(super) spec: Option<&'a Result<Spec, String>>,
    /// What the runtime says of it.
    pub(super) found: Option<&'a Status>,
    /// With which description it was made.
    pub(super) made: Option<&'a Spec>,
    /// Whether its DVK is there.
    pub(super) is_ready: bool,
    /// Whether what failed may be tried again already.
    pub(super) may: bool,
}

/// What is to be done next.
pub(super) fn step(known: Known<'_>) -> Step {
    let Known { wanted, spec, found, made, is_ready, may } = known;
    let spec = spec.and_then(|spec| spec.as_ref().ok());
    match (wanted, found.map(|status| status.phase)) {
        _ if !may => Step::Nothing,
        (None, Some(_)) => Step::Delete,
        (Some(_), None) => match spec.filter(|_| is_ready) {
            Some(spec) => Step::Create(Box::new(spec.clone())),
            None => Step::Nothing,
        },
        (Some(_), Some(Phase::Creating)) | (None, None) => Step::Nothing,
        (Some(wanted), Some(phase)) => match (spec, made) {
            (Some(spec), Some(made)) if spec != made => {
                match phase != Phase::Stopped && spec.is_adjusted(made) {
                    true => Step::Update(Box::new(spec.clone())),
                    false => Step::Delete,
                }
            }
            _ => match phase {
                Phase::Created => Step::Start,
                Phase::Stopped if !rests(wanted, found) => Step::Delete,
                _ => Step::Nothing,
            },
        },
    }
}

/// Whether what has ended is to be left as it is.
pub(super) fn rests(wanted: &Desired, found: Option<&Status>) -> bool {
    let workload = &wanted.defined.workload;
    let Some(status) = found.filter(|status| status.phase == Phase::Stopped) else { return false };
    // Nobody wrote down how it ended if it was killed with its keeper, which is no success.
    let succeeded = status.end.as_ref().is_some_and(|end| end.status == 0);
    match workload.restart {
        // One that is kept open is not there to end.
        _ if workload.command.is_empty() => false,
        Restart::Always => false,
        Restart::OnFailure => succeeded,
        Restart::Never => true,
    }
}

/// How a container ended, for people.
pub(super) fn how_it_ended(status: &Status) -> String {
    match &status.end {
        None => "it was ended from outside".to_owned(),
        Some(End { status, out_of_memory: 0 }) => format!("it ended with status {status}"),
        Some(End { status, .. }) => {
            format!("it ended with status {status}, and processes were killed for want of memory")
        }
    }
}

/// Its description for the runtime. `made` is the one that it was made with, if it is there.
pub(super) fn spec(wanted: &Desired, network: Option<Network>, made: Option<&Spec>) -> Spec {
    let workload = &wanted.defined.workload;
    let memory = wanted.limits.memory_bytes.unwrap_or(MEMORY);
    // What nobody has chosen is no reason to make it anew when it gets more memory.
    let usual = made.map_or(memory / WRITABLE_PART, |made| made.limits.writable.min(memory));
    Spec {
        name: name_of(wanted.id),
        dvk: wanted.id.into(),
        root: match &workload.image {
            None => Root::Builtin,
            Some(image) => Root::Image(images::name_of(image.digest)),
        },
        process: Process {
            command: workload.command.clone(),
            environment: workload.environment.clone(),
            directory: workload.directory.clone(),
            user: workload.user.map(|(uid, gid)| User { uid, gid }).unwrap_or_default(),
        },
        hostname: Some(wanted.name.clone()),
        // No two containers have an id of the node in common, so none can do anything to a file or process of another.
        ids: Ids { first: u32::from(wanted.id).saturating_mul(IDS), count: IDS },
        limits: Limits {
            memory,
            swap: workload.swap_bytes.unwrap_or(0),
            processes: wanted.limits.pids.unwrap_or(PROCESSES),
            writable: workload.writable_bytes.unwrap_or(usual),
            cpu: Cpu {
                milli: wanted.limits.cpu_milli,
                weight: workload.cpu_weight,
                set: workload.cpu_set.clone(),
            },
            io: workload
                .io
                .iter()
                .map(|io| Io {
                    device: io.device.clone(),
                    read_bytes: io.read_bytes,
                    write_bytes: io.write_bytes,
                    reads: io.reads,
                    writes: io.writes,
                })
                .collect(),
        },
        network,
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
    /// When it was started again.
    started_ms: Option<u64>,
}

impl Retries {
    /// Whether something may be done with a container now.
    pub(super) fn may(&self, id: ContainerId, now_ms: u64) -> bool {
        self.0.get(&id).is_none_or(|failed| now_ms >= failed.again_ms)
    }

    /// Why the last step failed, if it did and none has succeeded since.
    pub(super) fn trouble(&self, id: ContainerId) -> Option<&str> {
        let failed = self.0.get(&id).filter(|failed| failed.started_ms.is_none());
        failed.map(|failed| failed.why.as_str())
    }

    /// A step failed, or what ran has ended; says whether that is news.
    pub(super) fn failed(&mut self, id: ContainerId, now_ms: u64, why: &str) -> bool {
        let before = self.0.get(&id);
        let pause_ms = before.map_or(PAUSE_MIN_MS, |it| (2 * it.pause_ms).min(PAUSE_MAX_MS));
        let is_news = before.is_none_or(|it| it.why != why);
        let again_ms = now_ms + pause_ms;
        let failed = Failed { why: why.to_owned(), pause_ms, again_ms, started_ms: None };
        self.0.insert(id, failed);
        is_news
    }

    /// It was started. If it ends again soon, the pause is longer nevertheless.
    pub(super) fn started(&mut self, id: ContainerId, now_ms: u64) {
        if let Some(failed) = self.0.get_mut(&id) {
            failed.started_ms = Some(now_ms);
        }
    }

    /// It runs. What failed is forgotten once it has done so for as long as it was waited for it, or a while.
    pub(super) fn runs(&mut self, id: ContainerId, now_ms: u64) {
        let is_calm = |failed: &Failed| {
            let calm_ms = failed.pause_ms.max(CALM_MS);
            failed.started_ms.is_some_and(|started_ms| now_ms >= started_ms + calm_ms)
        };
        if self.0.get(&id).is_some_and(is_calm) {
            self.0.remove(&id);
        }
    }

    /// It is not to be there any more.
    pub(super) fn forget(&mut self, id: ContainerId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvs_state::containers::{Defined, Image, Limits as Agreed, Workload};
    use dvs_state::images::Digest;

    fn wanted() -> Desired {
        let limits =
            Agreed { memory_bytes: Some(32 << 20), cpu_milli: Some(500), ..Agreed::default() };
        Desired {
            id: 7,
            name: "web".into(),
            limits,
            defined: Defined::default(),
            nodes: vec![0, 1],
            leases: BTreeMap::new(),
        }
    }

    fn found(phase: Phase, end: Option<i32>) -> Status {
        let end = end.map(|status| End { status, out_of_memory: 0 });
        Status { name: "dc7".into(), dvk: 7, phase, pid: None, end }
    }

    #[test]
    fn a_container_is_made_started_and_made_anew_when_it_ends() {
        let wanted = wanted();
        let described = Ok(spec(&wanted, None, None));
        let undescribed = Err("not yet".to_owned());
        let now = |phase: Option<Phase>, change: fn(&mut Known<'_>)| {
            let found = phase.map(|phase| found(phase, None));
            let mut known = Known {
                wanted: Some(&wanted),
                spec: Some(&described),
                found: found.as_ref(),
                made: None,
                is_ready: true,
                may: true,
            };
            change(&mut known);
            step(known)
        };
        let next = |phase| now(phase, |_| ());
        assert!(matches!(next(None), Step::Create(_)));
        assert_eq!(next(Some(Phase::Creating)), Step::Nothing);
        assert_eq!(next(Some(Phase::Created)), Step::Start);
        assert_eq!(next(Some(Phase::Running)), Step::Nothing);
        assert_eq!(next(Some(Phase::Stopped)), Step::Delete);
        assert_eq!(now(None, |it| it.is_ready = false), Step::Nothing, "its device is not there");
        assert_eq!(now(None, |it| it.may = false), Step::Nothing, "it has just failed");
        assert_eq!(now(Some(Phase::Running), |it| it.wanted = None), Step::Delete);
        assert_eq!(now(None, |it| it.wanted = None), Step::Nothing);
        let known = Known {
            wanted: Some(&wanted),
            spec: Some(&undescribed),
            found: None,
            made: None,
            is_ready: true,
            may: true,
        };
        assert_eq!(step(known), Step::Nothing);
    }

    #[test]
    fn what_is_changed_is_changed_in_place_if_it_can_be() {
        let mut wanted = wanted();
        let made = spec(&wanted, None, None);
        let next = |wanted: &Desired, phase| {
            let (described, found) = (Ok(spec(wanted, None, Some(&made))), found(phase, None));
            step(Known {
                wanted: Some(wanted),
                spec: Some(&described),
                found: Some(&found),
                made: Some(&made),
                is_ready: true,
                may: true,
            })
        };
        assert_eq!(next(&wanted, Phase::Running), Step::Nothing);
        wanted.limits.pids = Some(50);
        assert!(matches!(next(&wanted, Phase::Running), Step::Update(_)));
        assert!(matches!(next(&wanted, Phase::Created), Step::Update(_)));
        assert_eq!(next(&wanted, Phase::Stopped), Step::Delete);
        wanted.limits.memory_bytes = Some(128 << 20);
        assert!(matches!(next(&wanted, Phase::Running), Step::Update(_)));
        wanted.limits.memory_bytes = Some(8 << 20);
        assert_eq!(next(&wanted, Phase::Running), Step::Delete, "what may be written shrinks, too");
        wanted.limits.memory_bytes = Some(32 << 20);
        wanted.defined.workload.command = vec!["httpd".into()];
        assert_eq!(next(&wanted, Phase::Running), Step::Delete);
    }

    #[test]
    fn what_is_not_to_be_started_again_rests() {
        let mut wanted = wanted();
        let mut rests_after = |restart, command: &[&str], end| {
            wanted.defined.workload.restart = restart;
            wanted.defined.workload.command = command.iter().map(|&word| word.into()).collect();
            rests(&wanted, Some(&found(Phase::Stopped, end)))
        };
        for restart in [Restart::Always, Restart::OnFailure, Restart::Never] {
            assert!(!rests_after(restart, &[], Some(0)), "it is kept open");
        }
        assert!(!rests_after(Restart::Always, &["true"], Some(0)));
        assert!(rests_after(Restart::OnFailure, &["true"], Some(0)));
        assert!(!rests_after(Restart::OnFailure, &["false"], Some(1)));
        assert!(!rests_after(Restart::OnFailure, &["true"], None), "its keeper was killed");
        assert!(rests_after(Restart::Never, &["false"], Some(1)));
        assert!(!rests(&wanted, Some(&found(Phase::Running, None))));
    }

    #[test]
    fn descriptions_are_ones_that_the_runtime_takes() {
        let spec = spec(&wanted(), None, None);
        spec.check().unwrap();
        assert_eq!((spec.name.as_str(), spec.hostname.as_deref()), ("dc7", Some("web")));
        assert_eq!((spec.limits.memory, spec.limits.cpu.milli), (32 << 20, Some(500)));
        let image = Image { name: "web".into(), digest: Digest([0xab; 32]) };
        let workload = Workload {
            image: Some(image),
            command: vec!["httpd".into(), "-f".into()],
            user: Some((7, 8)),
            writable_bytes: Some(1 << 20),
            cpu_set: Some("0-1".into()),
            ..Workload::default()
        };
        let defined = Defined { revision: 1, workload };
        let id = ContainerId::MAX - 1;
        let last = Desired { id, limits: Agreed::default(), defined, ..wanted() };
        let spec = super::spec(&last, None, None);
        spec.check().unwrap();
        assert_eq!(spec.root, Root::Image("ab".repeat(20)));
        assert_eq!((spec.process.user.uid, spec.limits.writable), (7, 1 << 20));
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
        retries.forget(1);
        assert_eq!((retries.trouble(1), retries.may(1, 0)), (None, true));
    }

    #[test]
    fn what_ends_again_soon_waits_longer_and_what_runs_for_a_while_does_not() {
        let mut retries = Retries::default();
        retries.failed(1, 0, "it ended");
        retries.started(1, 1_000);
        assert_eq!(retries.trouble(1), None, "it runs");
        retries.runs(1, 2_000);
        retries.failed(1, 3_000, "it ended");
        assert!(!retries.may(1, 4_999) && retries.may(1, 5_000));
        retries.started(1, 5_000);
        retries.runs(1, 5_000 + CALM_MS);
        retries.failed(1, 20_000, "it ended");
        assert!(retries.may(1, 21_000), "that was long ago");
    }
}
