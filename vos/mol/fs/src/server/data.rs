// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading and writing of open files.

use super::{Outside, Server};
use crate::format::Kind;
use crate::volume::{Listed, Volume};
use dvk::Endpoint;
use mol_protocol::directory::{self, Entry};
use mol_protocol::file::{
    DirectoryPart, Read, ReadDirectory, Write, OPEN_APPEND, OPEN_DURABLE, OPEN_READ, OPEN_WRITE,
    TRANSFER_MAX,
};
use mol_protocol::Errno;

impl<O: Outside> Server<O> {
    pub(super) fn read_file(&mut self, client: Endpoint, read: &Read) -> Result<u32, Errno> {
        let (file, mount, number) = self.file(client, read.file)?;
        file.check(OPEN_READ)?;
        let mut buffer = vec![0; read.bytes.min(TRANSFER_MAX) as usize];
        let count = self.on(mount, |volume| {
            let count = volume.read(number, read.position, &mut buffer)?;
            volume.touch_read(number)?;
            Ok(count)
        })?;
        if count > 0 {
            self.outside.copy_to(read.into.of(client, read.offset), &buffer[..count])?;
        }
        Ok(count as u32)
    }

    pub(super) fn write_file(&mut self, client: Endpoint, write: &Write) -> Result<u32, Errno> {
        let (file, mount, number) = self.file(client, write.file)?;
        file.check(OPEN_WRITE)?;
        let mut data = vec![0; write.bytes.min(TRANSFER_MAX) as usize];
        if !data.is_empty() {
            self.outside.copy_from(write.from.of(client, write.offset), &mut data)?;
        }
        let count = self.on(mount, |volume| {
            let position = match file.flags & OPEN_APPEND {
                0 => write.position,
                _ => volume.status(number)?.inode.bytes.into(),
            };
            let count = volume.write(number, position, &data)?;
            if count > 0 {
                volume.drop_privileges(file.user, number)?;
            }
            Ok(count)
        })?;
        if file.flags & OPEN_DURABLE != 0 {
            self.on(mount, Volume::sync)?;
        }
        Ok(count as u32)
    }

    pub(super) fn list_directory(
        &mut self,
        client: Endpoint,
        read: &ReadDirectory,
    ) -> Result<DirectoryPart, Errno> {
        let (file, mount, number) = self.file(client, read.file)?;
        file.check(OPEN_READ)?;
        let most = read.bytes.min(TRANSFER_MAX) as usize;
        let mut records = Vec::new();
        let mut part = DirectoryPart { next: read.position, bytes: 0 };
        let mut is_small = false;
        self.on(mount, |volume| {
            volume.list(number, read.position, |listed| {
                is_small = !entry_of(&listed).append(&mut records, most);
                if !is_small {
                    part.next = listed.next;
                }
                !is_small
            })?;
            volume.touch_read(number)
        })?;
        if records.is_empty() {
            return if is_small { Err(Errno::Invalid) } else { Ok(part) };
        }
        self.outside.copy_to(read.into.of(client, 0), &records)?;
        part.bytes = records.len() as u32;
        Ok(part)
    }
}

fn entry_of<'b>(listed: &Listed<'b>) -> Entry<'b> {
    let kind = listed
        .kind
        .map_or(directory::Kind::Unknown, |kind: Kind| directory::Kind::of_mode(kind as u16));
    Entry { inode: listed.number.into(), next: listed.next, kind, name: listed.name }
}
