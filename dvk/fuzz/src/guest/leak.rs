// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether memory came back: the kernel's own counts at rest, before and after.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// How long freed memory may take to be free: RCU callbacks, work, and who exits last.
const REST: Duration = Duration::from_secs(2);
/// kmemleak reports no object younger than five seconds.
const AGE: Duration = Duration::from_secs(6);
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// Objects by which a cache may have grown. The counts include what other parts of the kernel keep
/// (inodes of `/proc` and `/sys`, timers, names). In runs of 10,000 to 200,000 calls no cache but
/// [`OWN_CACHES`] grew by more than 60.
const OBJECTS_MAX: i64 = 400;
/// Caches that the debug kernel fills for itself: what it remembers of timers, work and allocations.
const OWN_CACHES: [&str; 2] = ["debug_objects_cache", "kmemleak_object"];
/// Pages by which free memory may have shrunk, for the same reason.
const PAGES_MAX: i64 = 4096;

/// Memory in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Objects of each cache, and the bytes of one.
    caches: BTreeMap<String, (i64, i64)>,
    free_pages: i64,
    /// Pages that were pinned for copying and not released.
    pinned_pages: i64,
}

impl Memory {
    /// Looks, after everything that is only kept for speed was dropped.
    pub(crate) fn look() -> Result<Self> {
        for _ in 0..2 {
            thread::sleep(REST);
            shrink();
        }
        let slabinfo = fs::read_to_string("/proc/slabinfo")
            .context("reading /proc/slabinfo; it takes CONFIG_SLUB_DEBUG")?;
        let vmstat = fs::read_to_string("/proc/vmstat").context("reading /proc/vmstat")?;
        let stat = |name: &str| -> i64 {
            let line = vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            caches: caches(&slabinfo),
            free_pages: stat("nr_free_pages"),
            pinned_pages: stat("nr_foll_pin_acquired") - stat("nr_foll_pin_released"),
        })
    }

    /// What is in use now and was not before, where it is more than it may be.
    pub(crate) fn grown_since(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, grown, bytes) in self.growth(before) {
            if grown > OBJECTS_MAX && !OWN_CACHES.contains(&name) {
                found.push(format!("{name} has {grown} objects of {bytes} bytes more than before"));
            }
        }
        let pages = before.free_pages - self.free_pages;
        if pages > PAGES_MAX {
            found.push(format!("{pages} pages fewer are free than before"));
        }
        let pinned = self.pinned_pages - before.pinned_pages;
        if pinned != 0 {
            found.push(format!("{pinned} pages that were pinned were not released"));
        }
        found
    }

    /// The caches that changed most, for people.
    pub(crate) fn summary(&self, before: &Self) -> String {
        let mut growth = self.growth(before);
        growth.sort_by_key(|(_, grown, bytes)| -(grown * bytes).abs());
        let mut text: Vec<String> = growth
            .iter()
            .take(6)
            .map(|(name, grown, bytes)| format!("{name} {grown:+} of {bytes} B"))
            .collect();
        text.push(format!("free pages {:+}", self.free_pages - before.free_pages));
        text.push(format!("pinned pages {:+}", self.pinned_pages - before.pinned_pages));
        text.join(", ")
    }

    fn growth(&self, before: &Self) -> Vec<(&str, i64, i64)> {
        self.caches
            .iter()
            .map(|(name, (objects, bytes))| {
                let was = before.caches.get(name).map_or(0, |(objects, _)| *objects);
                (name.as_str(), objects - was, *bytes)
            })
            .collect()
    }
}

fn caches(slabinfo: &str) -> BTreeMap<String, (i64, i64)> {
    let cache = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let objects: i64 = words.next()?.parse().ok()?;
        let bytes: i64 = words.nth(1)?.parse().ok()?;
        Some((name, (objects, bytes)))
    };
    slabinfo.lines().filter_map(cache).collect()
}

/// Makes the kernel let go of what it keeps for speed: the page cache, names, and the free objects
/// of each processor, of which some are still in quarantine where KASAN watches.
fn shrink() {
    // Nothing of it is an error: what is not there keeps nothing.
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    for entry in fs::read_dir("/sys/kernel/slab").into_iter().flatten().flatten() {
        // Names of caches that were merged with another are links to it.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::write(entry.path().join("shrink"), "1");
        }
    }
}

/// Objects that nobody points to, each with how it was allocated; `None` where the kernel does not
/// look for them.
pub(crate) fn unreferenced() -> Option<String> {
    fs::write(KMEMLEAK, "scan").ok()?;
    thread::sleep(AGE);
    // An object that was on its way in a register is found again by the second scan.
    fs::write(KMEMLEAK, "scan").ok()?;
    fs::read_to_string(KMEMLEAK).ok()
}

/// Takes what is unreferenced now for granted.
pub(crate) fn forget_unreferenced() {
    let _ = fs::write(KMEMLEAK, "scan");
    let _ = fs::write(KMEMLEAK, "clear");
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "slabinfo - version: 2.1\n\
        # name            <active_objs> <num_objs> <objsize> <objperslab>\n\
        kmalloc-64          1000   1024     64   64    1 : tunables    0    0    0\n\
        filp                 100    128    256   16    1 : tunables    0    0    0\n";

    fn memory(slabinfo: &str, free_pages: i64, pinned_pages: i64) -> Memory {
        Memory { caches: caches(slabinfo), free_pages, pinned_pages }
    }

    #[test]
    fn what_stays_is_found_and_what_wavers_is_not() {
        let before = memory(BEFORE, 50_000, 3);
        assert_eq!(before.caches["kmalloc-64"], (1000, 64));
        let wavering = BEFORE.replace(" 1000 ", " 1300 ");
        assert!(memory(&wavering, 49_000, 3).grown_since(&before).is_empty());
        let own = BEFORE.replace("filp ", "debug_objects_cache ").replace(" 100 ", " 9100 ");
        assert!(memory(&own, 50_000, 3).grown_since(&before).is_empty());
        let grown = BEFORE.replace(" 100 ", " 9100 ");
        let found = memory(&grown, 10_000, 4).grown_since(&before);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], "filp has 9000 objects of 256 bytes more than before");
    }
}
