// SPDX-License-Identifier: MIT OR Apache-2.0
//! What root of a container may do: capabilities in its own user namespace, which say nothing about the node.

use anyhow::{ensure, Context, Result};
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

/// The capabilities that a container can have. Those that reach devices, networks, the kernel or namespaces are not among
/// them: in a user namespace they open more of the kernel than any image needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Change owners of files.
    Chown,
    /// Pass over permissions of files.
    DacOverride,
    /// Do what only owners of files may.
    Fowner,
    /// Keep set-id bits of files that are changed.
    Fsetid,
    /// Send signals to processes of other users.
    Kill,
    /// Become another group.
    Setgid,
    /// Become another user.
    Setuid,
    /// Serve on ports below 1024.
    NetBindService,
}

impl Capability {
    /// All of them: what a system of several users needs within itself.
    pub fn defaults() -> Vec<Self> {
        use Capability::{
            Chown, DacOverride, Fowner, Fsetid, Kill, NetBindService, Setgid, Setuid,
        };
        vec![Chown, DacOverride, Fowner, Fsetid, Kill, Setgid, Setuid, NetBindService]
    }

    fn bit(self) -> CapabilitySet {
        match self {
            Self::Chown => CapabilitySet::CHOWN,
            Self::DacOverride => CapabilitySet::DAC_OVERRIDE,
            Self::Fowner => CapabilitySet::FOWNER,
            Self::Fsetid => CapabilitySet::FSETID,
            Self::Kill => CapabilitySet::KILL,
            Self::Setgid => CapabilitySet::SETGID,
            Self::Setuid => CapabilitySet::SETUID,
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
        }
    }
}

fn set(capabilities: &[Capability]) -> CapabilitySet {
    capabilities.iter().map(|capability| capability.bit()).collect()
}

/// Takes from the bounding set of this thread what is not among `capabilities`, so that no program gets it back.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn bound(capabilities: &[Capability]) -> Result<()> {
    let kept = set(capabilities);
    // Beyond the last capability that the kernel knows, it says that there is none.
    for number in 0..u64::BITS {
        let bit = CapabilitySet::from_bits_retain(1 << number);
        match thread::capability_is_in_bounding_set(bit) {
            Ok(true) if !kept.contains(bit) => thread::remove_capability_from_bounding_set(bit)
                .with_context(|| format!("giving up capability {number} for ever"))?,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    thread::clear_ambient_capability_set().context("giving up ambient capabilities")
}

/// Gives up what is not among `capabilities` and sees to it that it is gone.
///
/// # Errors
/// When the kernel refuses, or keeps something.
pub(crate) fn keep(capabilities: &[Capability]) -> Result<()> {
    let kept = set(capabilities);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets).context("giving up capabilities")?;
    let now = thread::capabilities(None).context("reading the capabilities")?;
    ensure!(
        now.effective == kept && now.permitted == kept,
        "giving up capabilities: the kernel left {:?}",
        now.permitted
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_reaches_the_node_can_be_kept() {
        let all = set(&Capability::defaults());
        for dangerous in [
            CapabilitySet::SYS_ADMIN,
            CapabilitySet::SYS_PTRACE,
            CapabilitySet::SYS_MODULE,
            CapabilitySet::SYS_RAWIO,
            CapabilitySet::SYS_CHROOT,
            CapabilitySet::MKNOD,
            CapabilitySet::NET_RAW,
            CapabilitySet::NET_ADMIN,
            CapabilitySet::BPF,
        ] {
            assert!(!all.intersects(dangerous), "{dangerous:?}");
        }
    }

    #[test]
    fn names_are_strict() {
        let parsed: Vec<Capability> = serde_json::from_str(r#"["net-bind-service"]"#).unwrap();
        assert_eq!(parsed, [Capability::NetBindService]);
        assert!(serde_json::from_str::<Capability>("\"sys-admin\"").is_err());
    }
}
