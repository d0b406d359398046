// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients ask, request by request.

use super::names::new_of;
use super::{check_flags, user, Outside, Server};
use crate::volume::{New, Volume};
use dvk::protocol::Reply::Now;
use dvk::protocol::{Answer, Caller};
use mol_protocol::directory::NAME_MAX;
use mol_protocol::file::{
    Access, Close, Create, FileServer, GetFileSystem, GetRoot, Link, Lookup, MakeDirectory,
    MakeNode, MakeSymbolicLink, Mount, Open, OpenMade, Read, ReadDirectory, ReadLink, Release,
    RemoveDirectory, Rename, SetMode, SetOwner, SetTimes, Stat, Sync, SyncFile, Truncate,
    TruncateOpen, Unlink, Unmount, Write, MAY_WRITE, MOUNT_READ_ONLY, OPEN_WRITE, RENAME_KEEP,
};
use mol_protocol::Errno;

/// A label as a client says it.
fn label(bytes: Vec<u8>) -> Result<String, Errno> {
    String::from_utf8(bytes).map_err(|_| Errno::NoEntry)
}

impl<O: Outside> FileServer for Server<O> {
    fn mount(&mut self, caller: Caller<Mount>, it: Mount) -> Answer<Mount> {
        check_flags(it.flags, MOUNT_READ_ONLY)?;
        if it.who.user != 0 {
            return Err(Errno::NotPermitted);
        }
        let name = self.copy_name(caller.endpoint(), it.label, it.label_bytes)?;
        let name = label(name).map_err(|_| Errno::NoSuchDevice)?;
        self.mount_label(&name, it.flags & MOUNT_READ_ONLY != 0).map(Now)
    }

    fn unmount(&mut self, caller: Caller<Unmount>, it: Unmount) -> Answer<Unmount> {
        if it.who.user != 0 {
            return Err(Errno::NotPermitted);
        }
        let name = self.copy_name(caller.endpoint(), it.label, it.label_bytes)?;
        self.unmount_label(&label(name)?).map(Now)
    }

    fn root(&mut self, caller: Caller<GetRoot>, it: GetRoot) -> Answer<GetRoot> {
        let client = caller.endpoint();
        let name = match it.label_bytes {
            0 => String::new(),
            bytes => label(self.copy_name(client, it.label, bytes)?)?,
        };
        let mount = self.mount_of(&name).ok_or(Errno::NoEntry)?;
        self.hold_root(client, mount).map(Now)
    }

    fn file_system(
        &mut self,
        caller: Caller<GetFileSystem>,
        it: GetFileSystem,
    ) -> Answer<GetFileSystem> {
        let (mount, _) = self.held(caller.endpoint(), it.node)?;
        self.describe_mount(mount).map(Now)
    }

    fn lookup(&mut self, caller: Caller<Lookup>, it: Lookup) -> Answer<Lookup> {
        let client = caller.endpoint();
        let name = self.copy_name(client, it.name, it.name_bytes)?;
        self.look_up(client, it.directory, &name, &it.who).map(Now)
    }

    fn release(&mut self, caller: Caller<Release>, it: Release) -> Answer<Release> {
        self.release_holds(caller.endpoint(), it.node, it.count).map(Now)
    }

    fn stat(&mut self, caller: Caller<Stat>, it: Stat) -> Answer<Stat> {
        let (mount, number) = self.held(caller.endpoint(), it.node)?;
        self.describe(mount, it.node, number).map(Now)
    }

    fn access(&mut self, caller: Caller<Access>, it: Access) -> Answer<Access> {
        let (mount, number) = self.held(caller.endpoint(), it.node)?;
        let groups = self.copy_groups(caller.endpoint(), &it.who)?;
        self.on(mount, |volume| volume.access(&user(&it.who, &groups), number, it.rights)).map(Now)
    }

    fn create(&mut self, caller: Caller<Create>, it: Create) -> Answer<Create> {
        let client = caller.endpoint();
        let name = self.copy_name(client, it.name, it.name_bytes)?;
        self.make_new(client, (it.directory, &name), it.mode, New::File, &it.who).map(Now)
    }

    fn make_directory(
        &mut self,
        caller: Caller<MakeDirectory>,
        it: MakeDirectory,
    ) -> Answer<MakeDirectory> {
        let client = caller.endpoint();
        let name = self.copy_name(client, it.name, it.name_bytes)?;
        self.make_new(client, (it.directory, &name), it.mode, New::Directory, &it.who).map(Now)
    }

    fn make_node(&mut self, caller: Caller<MakeNode>, it: MakeNode) -> Answer<MakeNode> {
        let client = caller.endpoint();
        let name = self.copy_name(client, it.name, it.name_bytes)?;
        let (new, mode) = new_of(&it)?;
        self.make_new(client, (it.directory, &name), mode, new, &it.who).map(Now)
    }

    fn make_symbolic_link(
        &mut self,
        caller: Caller<MakeSymbolicLink>,
        it: MakeSymbolicLink,
    ) -> Answer<MakeSymbolicLink> {
        let client = caller.endpoint();
        if usize::from(it.name_bytes) > NAME_MAX {
            return Err(Errno::NameTooLong);
        }
        let bytes = usize::from(it.name_bytes) + usize::from(it.path_bytes);
        let names = self.copy_bytes(client, it.names, bytes, bytes)?;
        let (name, path) = names.split_at(it.name_bytes.into());
        let new = New::SymbolicLink(path);
        self.make_new(client, (it.directory, name), 0o777, new, &it.who).map(Now)
    }

    fn link(&mut self, caller: Caller<Link>, it: Link) -> Answer<Link> {
        let client = caller.endpoint();
        let name = self.copy_name(client, it.name, it.name_bytes)?;
        let (mount, number, directory) = self.held_both(client, it.node, it.directory)?;
        let groups = self.copy_groups(client, &it.who)?;
        self.on(mount, |volume| volume.link(&user(&it.who, &groups), number, directory, &name))
            .map(Now)
    }

    fn unlink(&mut self, caller: Caller<Unlink>, it: Unlink) -> Answer<Unlink> {
        let client = caller.endpoint();
        let name = self.copy_name(client, it.name, it.name_bytes)?;
        let (mount, directory) = self.held(client, it.directory)?;
        let groups = self.copy_groups(client, &it.who)?;
        self.on(mount, |volume| volume.unlink(&user(&it.who, &groups), directory, &name)).map(Now)
    }

    fn remove_directory(
        &mut self,
        caller: Caller<RemoveDirectory>,
        it: RemoveDirectory,
    ) -> Answer<RemoveDirectory> {
        let client = caller.endpoint();
        let name = self.copy_name(client, it.name, it.name_bytes)?;
        let (mount, directory) = self.held(client, it.directory)?;
        let groups = self.copy_groups(client, &it.who)?;
        self.on(mount, |volume| volume.remove_directory(&user(&it.who, &groups), directory, &name))
            .map(Now)
    }

    fn rename(&mut self, caller: Caller<Rename>, it: Rename) -> Answer<Rename> {
        let client = caller.endpoint();
        check_flags(it.flags, RENAME_KEEP)?;
        let bytes = usize::from(it.old_bytes) + usize::from(it.new_bytes);
        let names = self.copy_bytes(client, it.names, bytes, bytes)?;
        let (old, new) = names.split_at(it.old_bytes.into());
        let (mount, from, to) = self.held_both(client, it.from, it.to)?;
        let groups = self.copy_groups(client, &it.who)?;
        let keep = it.flags & RENAME_KEEP != 0;
        self.on(mount, |volume| volume.rename(&user(&it.who, &groups), from, old, to, new, keep))
            .map(Now)
    }

    fn read_link(&mut self, caller: Caller<ReadLink>, it: ReadLink) -> Answer<ReadLink> {
        let client = caller.endpoint();
        let (mount, number) = self.held(client, it.node)?;
        let path = self.on(mount, |volume| volume.read_link(number))?;
        let copied = path.len().min(it.bytes as usize);
        if copied > 0 {
            self.outside.copy_to(it.into.of(client, 0), &path[..copied])?;
        }
        Ok(Now(path.len() as u32))
    }

    fn set_mode(&mut self, caller: Caller<SetMode>, it: SetMode) -> Answer<SetMode> {
        let (mount, number) = self.held(caller.endpoint(), it.node)?;
        let groups = self.copy_groups(caller.endpoint(), &it.who)?;
        self.on(mount, |volume| volume.set_mode(&user(&it.who, &groups), number, it.mode))?;
        self.describe(mount, it.node, number).map(Now)
    }

    fn set_owner(&mut self, caller: Caller<SetOwner>, it: SetOwner) -> Answer<SetOwner> {
        let (mount, number) = self.held(caller.endpoint(), it.node)?;
        let groups = self.copy_groups(caller.endpoint(), &it.who)?;
        self.on(mount, |volume| {
            volume.set_owner(&user(&it.who, &groups), number, it.user, it.group)
        })?;
        self.describe(mount, it.node, number).map(Now)
    }

    fn set_times(&mut self, caller: Caller<SetTimes>, it: SetTimes) -> Answer<SetTimes> {
        let (mount, number) = self.held(caller.endpoint(), it.node)?;
        let groups = self.copy_groups(caller.endpoint(), &it.who)?;
        self.on(mount, |volume| {
            volume.set_times(&user(&it.who, &groups), number, it.accessed, it.modified)
        })?;
        self.describe(mount, it.node, number).map(Now)
    }

    fn truncate(&mut self, caller: Caller<Truncate>, it: Truncate) -> Answer<Truncate> {
        let (mount, number) = self.held(caller.endpoint(), it.node)?;
        let groups = self.copy_groups(caller.endpoint(), &it.who)?;
        self.on(mount, |volume| {
            volume.access(&user(&it.who, &groups), number, MAY_WRITE)?;
            volume.truncate(number, it.bytes)?;
            volume.drop_privileges(it.who.user, number)
        })?;
        self.describe(mount, it.node, number).map(Now)
    }

    fn open(&mut self, caller: Caller<Open>, it: Open) -> Answer<Open> {
        let groups = self.copy_groups(caller.endpoint(), &it.who)?;
        let who = user(&it.who, &groups);
        self.open_node(caller.endpoint(), it.node, it.flags, Some(&who)).map(Now)
    }

    fn open_made(&mut self, caller: Caller<OpenMade>, it: OpenMade) -> Answer<OpenMade> {
        if !self.has_made(caller.endpoint(), it.node)? {
            return Err(Errno::NotPermitted);
        }
        self.open_node(caller.endpoint(), it.node, it.flags, None).map(Now)
    }

    fn close(&mut self, caller: Caller<Close>, it: Close) -> Answer<Close> {
        self.close_file(caller.endpoint(), it.file).map(Now)
    }

    fn read(&mut self, caller: Caller<Read>, it: Read) -> Answer<Read> {
        self.read_file(caller.endpoint(), &it).map(Now)
    }

    fn write(&mut self, caller: Caller<Write>, it: Write) -> Answer<Write> {
        self.write_file(caller.endpoint(), &it).map(Now)
    }

    fn read_directory(
        &mut self,
        caller: Caller<ReadDirectory>,
        it: ReadDirectory,
    ) -> Answer<ReadDirectory> {
        self.list_directory(caller.endpoint(), &it).map(Now)
    }

    fn truncate_open(
        &mut self,
        caller: Caller<TruncateOpen>,
        it: TruncateOpen,
    ) -> Answer<TruncateOpen> {
        let (file, mount, number) = self.file(caller.endpoint(), it.file)?;
        file.check(OPEN_WRITE)?;
        self.on(mount, |volume| {
            volume.truncate(number, it.bytes)?;
            volume.drop_privileges(file.user, number)
        })?;
        self.describe(mount, file.node, number).map(Now)
    }

    fn sync_file(&mut self, caller: Caller<SyncFile>, it: SyncFile) -> Answer<SyncFile> {
        let (_, mount, _) = self.file(caller.endpoint(), it.file)?;
        self.on(mount, Volume::sync).map(Now)
    }

    fn sync(&mut self, _: Caller<Sync>, _: Sync) -> Answer<Sync> {
        self.sync_all().map(Now)
    }
}
