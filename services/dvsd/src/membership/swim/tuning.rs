// SPDX-License-Identifier: MIT OR Apache-2.0
//! Intervals and numbers of the failure detection.

/// Intervals and numbers.
///
/// A member that dies is probed by somebody after 1.6 [`probe_ms`](Self::probe_ms) on average, whatever the number of nodes (each probes
/// one in every interval, so that the first of them does after 1 / (1 − 1/e) of it). Then `answer_ms`, `help_ms` and
/// `suspect_ms` pass.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Milliseconds between two probes, on average.
    pub probe_ms: u64,
    /// Milliseconds that a member has to answer.
    pub answer_ms: u64,
    /// Milliseconds that it has to answer through others, which is twice the way.
    pub help_ms: u64,
    /// Milliseconds that a suspect has to contradict.
    pub suspect_ms: u64,
    /// How many others are asked to ask.
    pub helpers: usize,
    /// To how many others news are sent in every probe interval in which there are any.
    pub fanout: usize,
    /// The same while there are more than one datagram holds.
    pub fanout_max: usize,
    /// Milliseconds between two comparisons of all that is known.
    pub compare_ms: u64,
    /// Milliseconds between two looks at somebody who is down.
    pub revisit_ms: u64,
    /// Milliseconds without a direct answer after which a member is unreachable.
    pub unreachable_ms: u64,
    /// If this node was not run for so many milliseconds, the silence of others is its own fault.
    pub stall_ms: u64,
}

impl Tuning {
    /// For machines whose processors do not stand still: a failure is certain after 1.5 seconds on average. With less than 800 ms to
    /// contradict, live members are taken for down where 5 % of the datagrams are lost.
    pub const BARE_METAL: Self = Self {
        probe_ms: 200,
        answer_ms: 150,
        help_ms: 300,
        suspect_ms: 800,
        helpers: 3,
        fanout: 2,
        fanout_max: 6,
        compare_ms: 4_000,
        revisit_ms: 1_000,
        unreachable_ms: 1_500,
        stall_ms: 300,
    };

    /// For virtual machines on a loaded host, which may stand still for two seconds: a failure is certain after 2.4.
    pub const VIRTUAL: Self =
        Self { answer_ms: 300, help_ms: 300, suspect_ms: 1_500, stall_ms: 700, ..Self::BARE_METAL };

    /// That for a machine of which the kernel says this in `/proc/cpuinfo`: processors of virtual machines have the flag `hypervisor`.
    pub fn of_machine(cpuinfo: &str) -> Self {
        let flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
        match flags.flat_map(str::split_ascii_whitespace).any(|flag| flag == "hypervisor") {
            true => Self::VIRTUAL,
            false => Self::BARE_METAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_machine_is_known_by_the_flag_of_its_processors() {
        let text =
            |flags| format!("processor\t: 0\nmodel name\t: hypervisor\nflags\t\t: fpu {flags}\n\n");
        assert_eq!(
            Tuning::of_machine(&text("hypervisor lahf_lm")).suspect_ms,
            Tuning::VIRTUAL.suspect_ms
        );
        assert_eq!(Tuning::of_machine(&text("lahf_lm")).suspect_ms, Tuning::BARE_METAL.suspect_ms);
        assert_eq!(Tuning::of_machine("").suspect_ms, Tuning::BARE_METAL.suspect_ms);
    }
}
