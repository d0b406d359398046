// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients have opened.

use dvk::Endpoint;
use mol_protocol::block::{OPEN_EXCLUSIVE, OPEN_WRITE};
use mol_protocol::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// How often a client may have one device open.
pub const OPENS_MAX: usize = 64;
/// How many clients may have one device open.
pub const CLIENTS_MAX: usize = 4096;

/// The opens of all devices; those of a client that dies are forgotten.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By device and client, the flags of each open.
    opens: BTreeMap<u32, BTreeMap<Endpoint, Vec<u32>>>,
}

impl Sessions {
    /// Opens a device. Whoever is in the way and `is_gone` is forgotten.
    pub(super) fn open(
        &mut self,
        minor: u32,
        client: Endpoint,
        flags: u32,
        is_gone: impl Fn(Endpoint) -> bool,
    ) -> Result<(), Errno> {
        while let Some(other) = self.in_the_way(minor, client, flags) {
            if !is_gone(other) {
                return Err(Errno::Busy);
            }
            self.forget(other);
        }
        let device = self.opens.entry(minor).or_default();
        if device.len() >= CLIENTS_MAX && !device.contains_key(&client) {
            return Err(Errno::TableFull);
        }
        let opens = device.entry(client).or_default();
        if opens.len() >= OPENS_MAX {
            return Err(Errno::TooManyOpen);
        }
        opens.push(flags);
        Ok(())
    }

    /// Another client whose opens do not go with one that has these flags.
    fn in_the_way(&self, minor: u32, client: Endpoint, flags: u32) -> Option<Endpoint> {
        let excluded = |theirs: u32| {
            flags & OPEN_WRITE != 0 && theirs & OPEN_EXCLUSIVE != 0
                || flags & OPEN_EXCLUSIVE != 0 && theirs & (OPEN_WRITE | OPEN_EXCLUSIVE) != 0
        };
        let mut others = self.opens.get(&minor)?.iter().filter(|(other, _)| **other != client);
        others.find(|(_, opens)| opens.iter().any(|flags| excluded(*flags))).map(|(it, _)| *it)
    }

    /// Ends the last open.
    pub(super) fn close(&mut self, minor: u32, client: Endpoint) -> Result<(), Errno> {
        let device = self.opens.get_mut(&minor).ok_or(Errno::BadFile)?;
        let opens = device.get_mut(&client).ok_or(Errno::BadFile)?;
        opens.pop();
        if opens.is_empty() {
            device.remove(&client);
        }
        Ok(())
    }

    /// Whether a client may read, or also write.
    pub(super) fn check(&self, minor: u32, client: Endpoint, writes: bool) -> Result<(), Errno> {
        let opens = self.opens.get(&minor).and_then(|device| device.get(&client));
        let opens = opens.ok_or(Errno::BadFile)?;
        match !writes || opens.iter().any(|flags| flags & OPEN_WRITE != 0) {
            true => Ok(()),
            false => Err(Errno::BadFile),
        }
    }

    /// A client is dead.
    pub(super) fn forget(&mut self, client: Endpoint) {
        self.opens.values_mut().for_each(|device| drop(device.remove(&client)));
    }

    /// Nobody has the device open any more.
    pub(super) fn clear(&mut self, minor: u32) {
        self.opens.remove(&minor);
    }

    /// Whoever has something open.
    pub(super) fn clients(&self) -> BTreeSet<Endpoint> {
        self.opens.values().flat_map(|device| device.keys().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;

    fn client(slot: u32) -> Endpoint {
        Endpoint::new(slot, NonZeroU32::MIN)
    }

    const BOTH: u32 = OPEN_WRITE | OPEN_EXCLUSIVE;

    #[test]
    fn a_device_is_open_as_often_as_it_was_opened() {
        let mut sessions = Sessions::default();
        let all_live = |_| false;
        assert_eq!(sessions.check(0, client(70), false), Err(Errno::BadFile));
        assert_eq!(sessions.open(0, client(70), 0, all_live), Ok(()));
        assert_eq!(sessions.check(0, client(70), true), Err(Errno::BadFile), "not for writing");
        assert_eq!(sessions.check(1, client(70), false), Err(Errno::BadFile), "another device");
        assert_eq!(sessions.open(0, client(70), OPEN_WRITE, all_live), Ok(()));
        assert_eq!(sessions.check(0, client(70), true), Ok(()));
        assert_eq!(sessions.close(0, client(70)), Ok(()));
        assert_eq!(sessions.check(0, client(70), true), Err(Errno::BadFile));
        assert_eq!(sessions.check(0, client(70), false), Ok(()));
        assert_eq!(sessions.close(0, client(70)), Ok(()));
        assert_eq!(sessions.close(0, client(70)), Err(Errno::BadFile));
        for _ in 0..OPENS_MAX {
            assert_eq!(sessions.open(0, client(70), 0, all_live), Ok(()));
        }
        assert_eq!(sessions.open(0, client(70), 0, all_live), Err(Errno::TooManyOpen));
    }

    #[test]
    fn who_wants_no_other_writer_has_none() {
        // What one has, what another one wants, and whether it gets it.
        let cases = [
            (0, BOTH, true),
            (OPEN_WRITE, OPEN_WRITE, true),
            (OPEN_WRITE, BOTH, false),
            (OPEN_WRITE, OPEN_EXCLUSIVE, false),
            (BOTH, OPEN_WRITE, false),
            (BOTH, BOTH, false),
            (OPEN_EXCLUSIVE, OPEN_WRITE, false),
            (BOTH, 0, true),
        ];
        for (has, wants, gets) in cases {
            let mut sessions = Sessions::default();
            sessions.open(0, client(70), has, |_| false).unwrap();
            let got = sessions.open(0, client(71), wants, |_| false);
            assert_eq!(got, if gets { Ok(()) } else { Err(Errno::Busy) }, "{has} and {wants}");
            let mut alone = Sessions::default();
            alone.open(0, client(70), has, |_| false).unwrap();
            assert_eq!(alone.open(0, client(70), wants, |_| false), Ok(()), "the same client");
        }
    }

    #[test]
    fn the_dead_are_in_nobodys_way() {
        let mut sessions = Sessions::default();
        sessions.open(0, client(70), BOTH, |_| false).unwrap();
        sessions.open(1, client(70), BOTH, |_| false).unwrap();
        assert_eq!(sessions.open(0, client(71), BOTH, |other| other == client(70)), Ok(()));
        assert_eq!(sessions.check(1, client(70), false), Err(Errno::BadFile));
        assert_eq!(sessions.clients(), [client(71)].into());
        sessions.forget(client(71));
        assert!(sessions.clients().is_empty());
    }
}
