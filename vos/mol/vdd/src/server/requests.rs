// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients ask.

use super::waiting::{Place, Waiting};
use super::{Device, Outside, Server};
use crate::replica::{Change, Input, Replica, Request, RequestId};
use crate::store::Safety;
use dvk::protocol::{Answer, Caller, Reply::Later, Reply::Now};
use dvk::{Endpoint, GrantId};
use mol_protocol::block::{
    self, BlockDevice, Geometry, Whereabouts, DURABLE, OPEN_EXCLUSIVE, OPEN_WRITE, READ_ONLY, TRIMS,
};
use mol_protocol::segment::{self, Segment};
use mol_protocol::Errno;
use std::sync::Arc;

/// The most bytes of one request.
pub const TRANSFER_MAX: u32 = 1 << 20;
/// The most pieces of one request.
pub const SEGMENTS_MAX: u16 = segment::SEGMENTS_MAX;

impl<O: Outside> Server<O> {
    fn device(&self, minor: u32) -> Result<&Device, Errno> {
        self.devices.get(minor as usize).ok_or(Errno::NoSuchDevice)
    }

    /// The device, if it answers here and the client may do what it wants.
    fn device_for(&self, minor: u32, client: Endpoint, writes: bool) -> Result<&Device, Errno> {
        let device = self.device(minor)?;
        device.copy.as_ref().map_or(Ok(()), |copy| copy.check())?;
        self.sessions.check(minor, client, writes)?;
        match writes && !device.shape().writable {
            true => Err(Errno::ReadOnly),
            false => Ok(device),
        }
    }

    /// Begins a request. It is answered in [`Out`](super::Out), at once or later.
    fn begin(&mut self, minor: u32, waiting: Waiting, request: Request) {
        // Who asks again does not wait for what it asked before, and must not take one answer for the other.
        self.give_up(waiting.client());
        let Some(device) = self.devices.get_mut(minor as usize) else { return };
        let Some(copy) = &mut device.copy else {
            self.out.replies.push(device.perform(&self.outside, waiting, &request));
            return;
        };
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.calls.insert(waiting.client(), (minor, id));
        copy.waiting.insert(id, (waiting, request.clone()));
        self.drive(minor, Input::Request(id, request));
    }

    fn check_transfer(
        &self,
        (minor, client, writes): (u32, Endpoint, bool),
        position: u64,
        bytes: u64,
    ) -> Result<(), Errno> {
        let device = self.device_for(minor, client, writes)?;
        match device.shape().has(position, bytes) && bytes <= TRANSFER_MAX.into() {
            true => Ok(()),
            false => Err(Errno::Invalid),
        }
    }

    /// The pieces of a list, once, and how many bytes they have.
    fn copy_list(
        &self,
        minor: u32,
        client: Endpoint,
        list: GrantId,
        count: u16,
    ) -> Result<(Vec<Segment>, u64), Errno> {
        let block: u64 = self.device(minor)?.shape().block_bytes.into();
        if count == 0 || count > SEGMENTS_MAX {
            return Err(Errno::Invalid);
        }
        let mut bytes = vec![0; usize::from(count) * Segment::BYTES];
        self.outside.copy_from(list.of(client, 0), &mut bytes)?;
        let (segments, total) = segment::decode(&bytes).ok_or(Errno::Invalid)?;
        match segments.iter().all(|segment| segment.bytes % block == 0) {
            true => Ok((segments, total)),
            false => Err(Errno::Invalid),
        }
    }

    fn geometry(&self, device: &Device) -> Geometry {
        let shape = device.shape();
        let replica = device.copy.as_ref().and_then(|copy| copy.replica());
        Geometry {
            bytes: shape.bytes,
            block_bytes: shape.block_bytes,
            transfer_max: TRANSFER_MAX,
            flags: TRIMS | if shape.writable { 0 } else { READ_ONLY },
            segments_max: SEGMENTS_MAX,
            replicas: replica.map_or(1, Replica::in_step_count) as u16,
            epoch: replica.map_or(0, |replica| replica.lineup().epoch),
            revision: 1,
        }
    }
}

fn safety_of(flags: u32) -> Result<Safety, Errno> {
    match flags {
        0 => Ok(Safety::AtFlush),
        DURABLE => Ok(Safety::AtOnce),
        _ => Err(Errno::Invalid),
    }
}

impl<O: Outside> BlockDevice for Server<O> {
    fn open(&mut self, caller: Caller<block::Open>, open: block::Open) -> Answer<block::Open> {
        let device = self.device(open.minor)?;
        if open.flags & !(OPEN_WRITE | OPEN_EXCLUSIVE) != 0 {
            return Err(Errno::Invalid);
        }
        device.copy.as_ref().map_or(Ok(()), |copy| copy.check())?;
        if open.flags & OPEN_WRITE != 0 && !device.shape().writable {
            return Err(Errno::ReadOnly);
        }
        let geometry = self.geometry(device);
        let outside = &self.outside;
        let is_gone = |other| outside.is_gone(other);
        self.sessions.open(open.minor, caller.endpoint(), open.flags, is_gone)?;
        Ok(Now(geometry))
    }

    fn close(&mut self, caller: Caller<block::Close>, close: block::Close) -> Answer<block::Close> {
        self.device(close.minor)?;
        self.sessions.close(close.minor, caller.endpoint()).map(Now)
    }

    fn info(
        &mut self,
        caller: Caller<block::GetInfo>,
        get: block::GetInfo,
    ) -> Answer<block::GetInfo> {
        Ok(Now(self.geometry(self.device_for(get.minor, caller.endpoint(), false)?)))
    }

    fn read(&mut self, caller: Caller<block::Read>, read: block::Read) -> Answer<block::Read> {
        let (client, bytes) = (caller.endpoint(), u64::from(read.bytes));
        self.check_transfer((read.minor, client, false), read.position, bytes)?;
        let place = Place::One(read.into.of(client, read.offset));
        let request = Request::Read { position: read.position, bytes };
        self.begin(read.minor, Waiting::Read(caller, place), request);
        Ok(Later)
    }

    fn write(&mut self, caller: Caller<block::Write>, write: block::Write) -> Answer<block::Write> {
        let (client, bytes) = (caller.endpoint(), u64::from(write.bytes));
        let (position, safety) = (write.position, safety_of(write.flags)?);
        self.check_transfer((write.minor, client, true), position, bytes)?;
        let place = Place::One(write.from.of(client, write.offset));
        let data = Arc::from(place.take(&self.outside, bytes as usize)?);
        let change = Change::Write { position, data, safety };
        self.begin(write.minor, Waiting::Write(caller), Request::Change(change));
        Ok(Later)
    }

    fn read_pieces(
        &mut self,
        caller: Caller<block::ReadPieces>,
        read: block::ReadPieces,
    ) -> Answer<block::ReadPieces> {
        let client = caller.endpoint();
        self.device_for(read.minor, client, false)?;
        let (segments, bytes) = self.copy_list(read.minor, client, read.list, read.count)?;
        self.check_transfer((read.minor, client, false), read.position, bytes)?;
        let place = Place::Pieces(client, segments);
        let request = Request::Read { position: read.position, bytes };
        self.begin(read.minor, Waiting::ReadPieces(caller, place), request);
        Ok(Later)
    }

    fn write_pieces(
        &mut self,
        caller: Caller<block::WritePieces>,
        write: block::WritePieces,
    ) -> Answer<block::WritePieces> {
        let client = caller.endpoint();
        let (position, safety) = (write.position, safety_of(write.flags)?);
        self.device_for(write.minor, client, true)?;
        let (segments, bytes) = self.copy_list(write.minor, client, write.list, write.count)?;
        self.check_transfer((write.minor, client, true), position, bytes)?;
        let place = Place::Pieces(client, segments);
        let data = Arc::from(place.take(&self.outside, bytes as usize)?);
        let change = Change::Write { position, data, safety };
        self.begin(write.minor, Waiting::WritePieces(caller), Request::Change(change));
        Ok(Later)
    }

    fn flush(&mut self, caller: Caller<block::Flush>, flush: block::Flush) -> Answer<block::Flush> {
        self.device_for(flush.minor, caller.endpoint(), false)?;
        self.begin(flush.minor, Waiting::Flush(caller), Request::Flush);
        Ok(Later)
    }

    fn trim(&mut self, caller: Caller<block::Trim>, trim: block::Trim) -> Answer<block::Trim> {
        let device = self.device_for(trim.minor, caller.endpoint(), true)?;
        let (position, bytes) = (trim.position, trim.bytes);
        if !device.shape().has(position, bytes) {
            return Err(Errno::Invalid);
        }
        let request = Request::Change(Change::Zero { position, bytes });
        self.begin(trim.minor, Waiting::Trim(caller), request);
        Ok(Later)
    }

    fn locate(&mut self, _: Caller<block::Locate>, locate: block::Locate) -> Answer<block::Locate> {
        let device = self.device(locate.minor)?;
        let nobody = Whereabouts { server: Endpoint::NONE, epoch: 0 };
        let Some(copy) = &device.copy else {
            return Ok(Now(Whereabouts { server: self.me, epoch: 0 }));
        };
        let Some(replica) = copy.replica() else { return Ok(Now(nobody)) };
        let lineup = replica.lineup();
        let of = |(life, server): &(_, Endpoint)| {
            lineup.is_primary(lineup.primary, *life).then_some(*server)
        };
        let server = copy.servers.get(&lineup.primary).and_then(of);
        let server = if replica.is_primary() { Some(self.me) } else { server };
        Ok(Now(Whereabouts { server: server.unwrap_or(Endpoint::NONE), epoch: lineup.epoch }))
    }

    fn scrub(&mut self, _: Caller<block::Scrub>, scrub: block::Scrub) -> Answer<block::Scrub> {
        let copy = self.device(scrub.minor)?.copy.as_ref().ok_or(Errno::NotSupported)?;
        copy.check()?;
        self.drive(scrub.minor, Input::Scrub);
        Ok(Now(()))
    }
}
