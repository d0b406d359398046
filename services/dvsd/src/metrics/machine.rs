// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine and this process.

use dvs_api::Usage;

use super::exposition::{Exposition, Kind};
use crate::machine::Process;
use Kind::{Counter, Gauge};

pub(super) fn write(out: &mut Exposition, usage: &Usage, process: Option<Process>) {
    out.one("dvs_machine_cpus", Gauge, "Processors of the machine.", usage.cpus);
    let help = "Seconds of all processors, at work or not.";
    let mut family = out.family("dvs_machine_cpu_seconds_total", Counter, help);
    family.sample(&[("mode", "busy")], usage.cpu_busy_s);
    family.sample(&[("mode", "idle")], usage.cpu_idle_s);
    let total = usage.memory_total_bytes;
    out.one("dvs_machine_memory_bytes", Gauge, "Memory of the machine.", total);
    let help = "Memory of the machine that programs can still have.";
    out.one("dvs_machine_memory_available_bytes", Gauge, help, usage.memory_available_bytes);
    let help = "Threads that run or want to, on average over a minute.";
    out.one("dvs_machine_load1", Gauge, help, usage.load[0]);
    let help = "When the machine was booted, by its clock, since 1970.";
    out.one("dvs_machine_boot_time_seconds", Gauge, help, usage.booted_unix_s);
    let Some(process) = process else { return };
    // The names that the client libraries of Prometheus give these.
    out.one("process_cpu_seconds_total", Counter, "Processor time of dvsd.", process.cpu_s);
    let resident = process.resident_bytes;
    out.one("process_resident_memory_bytes", Gauge, "Memory of dvsd.", resident);
    let help = "Addresses of dvsd.";
    out.one("process_virtual_memory_bytes", Gauge, help, process.virtual_bytes);
    out.one("process_threads", Gauge, "Threads of dvsd.", process.threads);
    out.one("process_open_fds", Gauge, "Open files of dvsd.", process.open_files);
    if let Some(most) = process.open_files_max {
        out.one("process_max_fds", Gauge, "How many files dvsd may open.", most);
    }
    let began = usage.booted_unix_s as f64 + process.began_s;
    let help = "When dvsd was started, by the machine's clock, since 1970.";
    out.one("process_start_time_seconds", Gauge, help, began);
}
