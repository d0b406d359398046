// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether KVM can be used, or instructions must be translated (TCG).
//!
//! `/dev/kvm` existing and opening proves nothing: on some hosts it then hangs an ordinary guest. So `auto` uses KVM only
//! where the processor says that it virtualises **and** a small guest has been seen to print a line, and remembers the answer.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What runs the guests' instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// QEMU's translator: works everywhere.
    Tcg,
    /// The processor, through Linux' KVM.
    Kvm,
    /// The translator with one processor and a clock that advances by the instructions executed: what runs once runs the same
    /// way again, and the guest's clock counts instructions.
    Counting,
    /// The translator with one processor, whose executed instructions are known ([`Cluster::executed`](crate::Cluster::executed)).
    /// While it waits, time passes as it does for others, so that machines can talk to each other.
    Metering,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accelerator::Tcg => "translated (TCG)",
            Accelerator::Kvm => "KVM",
            Accelerator::Counting => "translated (TCG), counting instructions",
            Accelerator::Metering => "translated (TCG), metering instructions",
        })
    }
}

/// What the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// KVM where it has been seen to work.
    #[default]
    Auto,
    /// Without asking.
    Tcg,
    /// Without asking.
    Kvm,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Choice::Auto),
            "tcg" => Ok(Choice::Tcg),
            "kvm" => Ok(Choice::Kvm),
            _ => Err(format!("`{text}` is not an accelerator; choose auto, tcg or kvm")),
        }
    }
}

/// What is known of the host.
#[derive(Clone, Debug)]
pub struct Host {
    cpuinfo: String,
    kvm_opens: bool,
    /// Changes when an earlier answer may no longer hold.
    fingerprint: String,
}

impl Host {
    /// Looks at this host.
    pub fn look(qemu: &str) -> Host {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kvm_opens = fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
        let fingerprint = format!("{} | {} | {qemu}", release.trim(), model.trim());
        Host { cpuinfo, kvm_opens, fingerprint }
    }

    /// Whether it is worth trying KVM at all.
    fn may_have_kvm(&self) -> bool {
        let flags = self.cpuinfo.lines().filter(|line| line.starts_with("flags"));
        let virtualises = flags.flat_map(str::split_whitespace).any(|f| f == "vmx" || f == "svm");
        virtualises && self.kvm_opens
    }
}

/// An answer remembered in the cache directory.
#[derive(Serialize, Deserialize)]
struct Remembered {
    host: String,
    kvm_works: bool,
}

/// Decides for `choice`. `cache` is where answers are remembered; `probe` tries KVM and is only called where it can work.
pub fn choose(
    choice: Choice,
    host: &Host,
    cache: &Path,
    probe: impl FnOnce() -> bool,
) -> Accelerator {
    match choice {
        Choice::Tcg => Accelerator::Tcg,
        Choice::Kvm => Accelerator::Kvm,
        Choice::Auto if !host.may_have_kvm() => Accelerator::Tcg,
        Choice::Auto => {
            let kvm_works = recall(host, cache).unwrap_or_else(|| {
                let kvm_works = probe();
                remember(host, cache, kvm_works);
                kvm_works
            });
            if kvm_works {
                Accelerator::Kvm
            } else {
                Accelerator::Tcg
            }
        }
    }
}

/// What [`choose`] would say, without trying anything: TCG where KVM would still have to be tried.
pub fn foresee(choice: Choice, host: &Host, cache: &Path) -> Accelerator {
    match choice {
        Choice::Auto if recall(host, cache).is_none() => Accelerator::Tcg,
        choice => choose(choice, host, cache, || false),
    }
}

const FILE: &str = "accelerator.json";

fn recall(host: &Host, cache: &Path) -> Option<bool> {
    let text = fs::read_to_string(cache.join(FILE)).ok()?;
    let remembered: Remembered = serde_json::from_str(&text).ok()?;
    (remembered.host == host.fingerprint).then_some(remembered.kvm_works)
}

/// A cache that can't be written only costs the next probe.
fn remember(host: &Host, cache: &Path, kvm_works: bool) {
    let remembered = Remembered { host: host.fingerprint.clone(), kvm_works };
    if let Ok(text) = serde_json::to_string(&remembered) {
        let _ = fs::create_dir_all(cache).and_then(|()| fs::write(cache.join(FILE), text));
    }
}

/// Whether a guest running `kernel` under KVM says something within `patience`.
pub fn kvm_boots(qemu: &str, kernel: &Path, patience: Duration) -> bool {
    let spawned = Command::new(qemu)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35"])
        .args(["-accel", "kvm", "-cpu", "host", "-m", "128M", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut guest) = spawned else { return false };
    let Some(output) = guest.stdout.take() else { return false };
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        let banner = b"Linux version";
        if lines.any(|line| line.windows(banner.len()).any(|window| window == banner)) {
            let _ = sender.send(());
        }
    });
    let spoke = receiver.recv_timeout(patience).is_ok();
    let _ = guest.kill();
    let _ = guest.wait();
    spoke
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(flags: &str, kvm_opens: bool) -> Host {
        let cpuinfo = format!("processor\t: 0\nflags\t\t: fpu {flags} sse2\nbugs\t\t: vmx\n");
        Host { cpuinfo, kvm_opens, fingerprint: "6.1 | cpu".to_owned() }
    }

    #[test]
    fn kvm_is_not_even_probed_where_it_cannot_work() {
        let cache = tempfile::tempdir().unwrap();
        for host in [host("", true), host("vmx", false), host("vmx_like nosvm", true)] {
            let choice = choose(Choice::Auto, &host, cache.path(), || panic!("probed"));
            assert_eq!(choice, Accelerator::Tcg);
        }
    }

    #[test]
    fn an_answer_is_remembered_for_this_host_only() {
        for (works, accelerator) in [(true, Accelerator::Kvm), (false, Accelerator::Tcg)] {
            let cache = tempfile::tempdir().unwrap();
            let cache = &cache.path().join("not/yet/there");
            let one = host("svm", true);
            assert_eq!(foresee(Choice::Auto, &one, cache), Accelerator::Tcg);
            assert_eq!(choose(Choice::Auto, &one, cache, || works), accelerator);
            assert_eq!(foresee(Choice::Auto, &one, cache), accelerator);
            assert_eq!(choose(Choice::Auto, &one, cache, || panic!("probed again")), accelerator);
            let other = Host { fingerprint: "6.2 | cpu".to_owned(), ..one };
            let mut probed = false;
            choose(Choice::Auto, &other, cache, || {
                probed = true;
                false
            });
            assert!(probed);
        }
    }

    #[test]
    fn the_user_overrules() {
        let cache = tempfile::tempdir().unwrap();
        let none = host("", false);
        let all = host("vmx", true);
        let choose = |choice, host| choose(choice, host, cache.path(), || panic!("probed"));
        assert_eq!(choose(Choice::Kvm, &none), Accelerator::Kvm);
        assert_eq!(choose(Choice::Tcg, &all), Accelerator::Tcg);
    }
}
