// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making things with names.

use super::{user, Outside, Server};
use crate::format::Kind;
use crate::volume::New;
use dvk::Endpoint;
use mol_protocol::file::{Attributes, MakeNode, NodeId, Who, MAY_EXECUTE};
use mol_protocol::Errno;

/// The permissions in a mode.
const PERMISSIONS: u16 = 0o7777;

impl<O: Outside> Server<O> {
    pub(super) fn look_up(
        &mut self,
        client: Endpoint,
        directory: NodeId,
        name: &[u8],
        who: &Who,
    ) -> Result<Attributes, Errno> {
        let (mount, number) = self.held(client, directory)?;
        self.check_room(client)?;
        let groups = self.copy_groups(client, who)?;
        let found = self.on(mount, |volume| {
            if !volume.status(number)?.inode.is_directory() {
                return Err(Errno::NotDirectory.into());
            }
            volume.access(&user(who, &groups), number, MAY_EXECUTE)?;
            volume.lookup(number, name)
        })?;
        self.hold(client, mount, found, false)
    }

    /// Makes something and holds it.
    pub(super) fn make_new(
        &mut self,
        client: Endpoint,
        (directory, name): (NodeId, &[u8]),
        mode: u16,
        new: New<'_>,
        who: &Who,
    ) -> Result<Attributes, Errno> {
        let (mount, number) = self.held(client, directory)?;
        if mode & !PERMISSIONS != 0 {
            return Err(Errno::Invalid);
        }
        self.check_room(client)?;
        let groups = self.copy_groups(client, who)?;
        let made =
            self.on(mount, |volume| volume.make(&user(who, &groups), number, name, mode, new))?;
        self.hold(client, mount, made, true)
    }
}

/// What a request for a node with this mode is to make.
pub(super) fn new_of(make: &MakeNode) -> Result<(New<'static>, u16), Errno> {
    let new = match Kind::of_mode(make.mode) {
        Some(Kind::Regular) => New::File,
        Some(Kind::Pipe) => New::Pipe,
        Some(Kind::Socket) => New::Socket,
        Some(Kind::CharacterDevice) => New::CharacterDevice(make.device),
        Some(Kind::BlockDevice) => New::BlockDevice(make.device),
        _ => return Err(Errno::Invalid),
    };
    let is_device = matches!(new, New::CharacterDevice(_) | New::BlockDevice(_));
    if make.device != 0 && !is_device {
        return Err(Errno::Invalid);
    }
    Ok((new, make.mode & PERMISSIONS))
}
