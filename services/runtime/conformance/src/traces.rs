// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that a container could leave behind on a node, counted before and after.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

/// What is left of a process that was killed goes when the kernel has the time; after this it stays.
const PATIENCE: Duration = Duration::from_secs(20);

/// Things of the node, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traces(BTreeMap<&'static str, Vec<String>>);

impl Traces {
    /// What there is now.
    pub(crate) fn taken() -> Result<Self> {
        let mut namespaces = Vec::new();
        let mut processes = Vec::new();
        for process in names("/proc")? {
            if !process.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let path = Path::new("/proc").join(&process);
            // One may end while it is looked at, and threads of the kernel come and go as they like: they have no command line.
            let Ok(command) = fs::read_to_string(path.join("cmdline")) else { continue };
            if command.is_empty() {
                continue;
            }
            processes.push(format!("{process} {}", command.replace('\0', " ").trim_end()));
            for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
                if let Ok(namespace) = fs::read_link(path.join("ns").join(kind)) {
                    namespaces.push(namespace.display().to_string());
                }
            }
        }
        namespaces.sort();
        namespaces.dedup();
        let mut cgroups = Vec::new();
        collect_directories(Path::new("/sys/fs/cgroup"), &mut cgroups)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let mut all = BTreeMap::from([
            ("namespaces", namespaces),
            ("processes", processes),
            ("cgroups", cgroups),
            ("mounts", mounts.lines().map(str::to_owned).collect()),
            ("network links", names("/sys/class/net")?),
            ("containers", names("/run/dvs/containers").unwrap_or_default()),
        ]);
        for list in all.values_mut() {
            list.retain(|name| name != ".lock");
            list.sort();
        }
        Ok(Self(all))
    }

    /// Fails with what is different unless all becomes equal to `after`, or to what is there soon.
    pub(crate) fn equal(&self, after: &Self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut now = after.clone();
        while *self != now && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            now = Self::taken()?;
        }
        for (kind, before) in &self.0 {
            let now = &now.0[kind];
            let more: Vec<_> = now.iter().filter(|one| !before.contains(one)).collect();
            let less: Vec<_> = before.iter().filter(|one| !now.contains(one)).collect();
            ensure!(
                more.is_empty() && less.is_empty() && before.len() == now.len(),
                "counting {kind}: {} before and {} after; new: {more:#?}; gone: {less:#?}",
                before.len(),
                now.len()
            );
        }
        Ok(())
    }

    /// How many of a kind there are.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.0.get(kind).map_or(0, Vec::len)
    }
}

/// Says what there is, waits for a line, and fails with what is different then.
pub(crate) fn compare() -> Result<()> {
    let before = Traces::taken()?;
    println!(
        "counted {} namespaces and {} cgroups",
        before.count("namespaces"),
        before.count("cgroups")
    );
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("waiting to be told to count again")?;
    before.equal(&Traces::taken()?)?;
    println!("nothing is left");
    Ok(())
}

fn names(directory: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("listing {directory}"))? {
        let name = entry.with_context(|| format!("listing {directory}"))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    Ok(names)
}

fn collect_directories(path: &Path, into: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(path).with_context(|| format!("listing {}", path.display()))? {
        let path: PathBuf = entry?.path();
        if path.is_dir() {
            into.push(path.display().to_string());
            collect_directories(&path, into)?;
        }
    }
    Ok(())
}
