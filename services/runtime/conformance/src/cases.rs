// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cases, each a rule in its name.

mod commands;
mod isolation;
mod life;
mod limits;
pub(crate) mod network;

use anyhow::Result;

use crate::bench::Bench;

/// A rule and what shows it.
pub(crate) type Case = (&'static str, fn(&Bench) -> Result<()>);

pub(crate) const CASES: &[Case] = &[
    ("exec-passes-status-output-and-input", commands::pass_status_output_and_input),
    ("exec-has-what-it-asks-for", commands::have_what_they_ask_for),
    ("exec-with-a-terminal-is-like-one", commands::with_a_terminal),
    ("exec-ends-with-its-stream", commands::end_with_their_stream),
    ("a-command-is-logged-and-its-end-written-down", commands::are_logged),
    ("memory-is-limited-to-its-own-cgroup", limits::of_memory),
    ("limits-change-while-a-container-runs", limits::change),
    ("processes-are-limited", limits::of_processes),
    ("a-quota-of-processors-holds", limits::of_processors),
    ("the-writable-layer-is-limited", limits::of_the_writable_layer),
    ("what-reaches-the-node-is-refused", isolation::of_the_node),
    ("the-profile-of-system-calls-is-in-force", isolation::by_the_profile),
    ("containers-neither-see-nor-signal-each-other", isolation::of_containers),
    ("there-are-no-devices-but-its-own", isolation::of_devices),
    ("files-of-the-kernel-are-masked", isolation::of_files_of_the_kernel),
    ("a-network-is-its-own-and-limited", network::is_its_own),
    ("a-network-does-not-reach-the-node", network::does_not_reach_the_node),
    ("a-container-outlives-who-made-it", life::outlives_its_maker),
    ("a-container-ends-with-its-keeper", life::ends_with_its_keeper),
    ("signals-stop-and-end-a-container", life::is_signalled),
    ("what-cannot-be-is-refused-by-kind", life::refuses_by_kind),
    ("delete-leaves-nothing-behind", life::leaves_nothing),
];
