// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gateway to Linux over a store, without Linux: requests that are made up.

use core::time::Duration;
use libublk::sys;
use mol_protocol::Errno;
use mol_vdd::export::Export;
use mol_vdd::store::{MemoryStore, Safety, Store};
use mol_vdd::ublk::{serve, Operation, Request, Requests, Traits, REQUEST_BYTES_MAX};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

const PATIENCE: Duration = Duration::from_secs(60);
const BYTES: u64 = 1 << 20;

/// What a block device is asked, and what it is told.
#[derive(Default)]
struct Script {
    requests: VecDeque<(u32, Request, Vec<u8>)>,
    /// How many of them have come already when another one is being done.
    waiting: usize,
    read: Vec<(u32, Vec<u8>)>,
    answers: Vec<(u32, Result<(), Errno>)>,
    /// That of the request that was taken last.
    data: Vec<u8>,
    taken: u32,
}

impl Script {
    fn ask(mut self, operation: Operation, position: u64, bytes: u64, data: &[u8]) -> Self {
        let number = self.requests.len() as u32;
        self.requests.push_back((number, Request { operation, position, bytes }, data.to_vec()));
        self
    }
}

/// A request can neither be answered twice nor be forgotten. Its data is as long as that of any.
struct Asked(u32, Request);

impl Requests for Script {
    type Taken = Asked;
    type Error = &'static str;

    fn take(&mut self) -> Result<Option<Asked>, &'static str> {
        let taken = self.requests.pop_front();
        self.taken += u32::from(taken.is_some());
        Ok(taken.map(|(number, request, data)| {
            self.data = data;
            self.data.resize(REQUEST_BYTES_MAX as usize, 0xee);
            Asked(number, request)
        }))
    }

    fn take_waiting(&mut self) -> Result<Option<Asked>, &'static str> {
        if self.waiting == 0 {
            return Ok(None);
        }
        self.waiting -= 1;
        self.take()
    }

    fn request(&self, taken: &Asked) -> Request {
        taken.1
    }

    fn data(&mut self, _: &Asked) -> &mut [u8] {
        &mut self.data
    }

    fn answer(&mut self, taken: Asked, done: Result<(), Errno>) -> Result<(), &'static str> {
        if done.is_ok() && taken.1.operation == Operation::Read {
            let bytes = taken.1.bytes as usize;
            self.read.push((taken.0, self.data[..bytes].to_vec()));
        }
        self.answers.push((taken.0, done));
        Ok(())
    }
}

struct Disk {
    store: MemoryStore,
    is_read_only: bool,
    /// What is safe: writes that are durable, and flushes.
    safe: Vec<(u64, usize)>,
    flushes: u32,
    trimmed: Vec<(u64, u64)>,
    /// How long nobody answers for it, and a clock.
    silence: Duration,
    now: Rc<Cell<Duration>>,
}

impl Disk {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(BYTES, 512).expect("a store"),
            is_read_only: false,
            safe: Vec::new(),
            flushes: 0,
            trimmed: Vec::new(),
            silence: Duration::ZERO,
            now: Rc::default(),
        }
    }

    fn is_heard(&self) -> Result<(), Errno> {
        self.now.set(self.now.get() + self.silence);
        if self.silence.is_zero() {
            Ok(())
        } else {
            Err(Errno::Io)
        }
    }
}

impl Export for Disk {
    fn bytes(&self) -> u64 {
        BYTES
    }

    fn block_bytes(&self) -> u32 {
        512
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.is_heard()?;
        self.store.read(position, into).map_err(|error| error.errno())
    }

    fn write(&mut self, position: u64, from: &[u8], durable: bool) -> Result<(), Errno> {
        self.is_heard()?;
        if durable {
            self.safe.push((position, from.len()));
        }
        self.store.write(position, from, Safety::AtFlush).map_err(|error| error.errno())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        self.is_heard()?;
        self.flushes += 1;
        Ok(())
    }

    fn trim(&mut self, position: u64, bytes: u64) -> Result<(), Errno> {
        self.is_heard()?;
        self.trimmed.push((position, bytes));
        Ok(())
    }
}

fn run(script: &mut Script, disk: &mut Disk) -> Vec<Result<(), Errno>> {
    let clock = disk.now.clone();
    serve(script, disk, || clock.get(), PATIENCE).expect("Linux can be asked");
    script.answers.sort_by_key(|(number, _)| *number);
    let numbers: Vec<_> = script.answers.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..script.taken).collect::<Vec<_>>(), "each is answered once");
    script.answers.iter().map(|(_, done)| *done).collect()
}

#[test]
fn a_block_device_does_what_linux_asks() {
    let durable = Operation::Write { is_durable: true };
    let mut script = Script::default()
        .ask(Operation::Write { is_durable: false }, 512, 1024, &[7; 1024])
        .ask(durable, 4096, 512, &[8; 512])
        .ask(Operation::Flush, 0, 0, &[])
        .ask(Operation::Read, 0, 2048, &[])
        .ask(Operation::Discard, 8192, 4096, &[])
        .ask(Operation::WriteZeroes { is_durable: true }, 1024, 512, &[])
        .ask(Operation::Read, 1024, 512, &[])
        .ask(Operation::Read, BYTES - 512, 512, &[]);
    let mut disk = Disk::new();
    assert_eq!(run(&mut script, &mut disk), [Ok(()); 8]);
    let first = [vec![0; 512], vec![7; 1024], vec![0; 512]].concat();
    assert_eq!(script.read, [(3, first), (6, vec![0; 512]), (7, vec![0; 512])]);
    assert_eq!(disk.safe, [(4096, 512), (1024, 512)]);
    assert_eq!((disk.flushes, disk.trimmed), (1, vec![(8192, 4096)]));
    let mut back = [0; 512];
    disk.store.read(4096, &mut back).expect("a range");
    assert_eq!(back, [8; 512]);
}

#[test]
fn what_a_block_device_cannot_do_is_refused_and_the_next_is_done() {
    let mut script = Script::default()
        .ask(Operation::Read, BYTES, 512, &[])
        .ask(Operation::Read, u64::MAX, 512, &[])
        .ask(Operation::Read, 0, 0, &[])
        .ask(Operation::Write { is_durable: false }, BYTES - 512, 1024, &[1; 1024])
        .ask(Operation::Read, 0, 32 << 20, &[])
        .ask(Operation::Read, 1, 512, &[])
        .ask(Operation::Discard, 0, BYTES + 512, &[])
        .ask(Operation::Other(18), 0, 512, &[])
        .ask(Operation::Read, 0, 512, &[]);
    let mut disk = Disk::new();
    let mut expected = vec![Err(Errno::Invalid); 7];
    expected.extend([Err(Errno::NotSupported), Ok(())]);
    assert_eq!(run(&mut script, &mut disk), expected);
    assert_eq!(script.read, [(8, vec![0; 512])], "nobody gets what was not read");
    let write = Operation::Write { is_durable: false };
    let mut script = Script::default()
        .ask(write, 0, 512, &[1; 512])
        .ask(Operation::Discard, 0, 512, &[])
        .ask(Operation::WriteZeroes { is_durable: false }, 0, 512, &[])
        .ask(Operation::Flush, 0, 0, &[])
        .ask(Operation::Read, 0, 512, &[]);
    disk.is_read_only = true;
    let refused = Err(Errno::ReadOnly);
    assert_eq!(run(&mut script, &mut disk), [refused, refused, refused, Ok(()), Ok(())]);
    assert!(disk.trimmed.is_empty());
}

#[test]
fn those_that_have_waited_through_a_silence_do_not_wait_for_another() {
    let script = || {
        (0..6).fold(Script::default(), |script, at| script.ask(Operation::Read, at * 512, 512, &[]))
    };
    let (mut disk, mut silent) = (Disk::new(), script());
    silent.waiting = 3;
    disk.silence = PATIENCE;
    assert_eq!(run(&mut silent, &mut disk), [Err(Errno::Io); 6]);
    // The first, and the two that came after those that had waited behind it.
    assert_eq!(disk.now.get(), 3 * PATIENCE);
    let (mut disk, mut failing) = (Disk::new(), script());
    failing.waiting = 3;
    disk.silence = PATIENCE / 2;
    assert_eq!(run(&mut failing, &mut disk), [Err(Errno::Io); 6]);
    assert_eq!(disk.now.get(), 3 * PATIENCE, "a device that says that it fails is asked each time");
}

#[test]
fn a_device_is_what_linux_is_told() {
    let traits = Traits { bytes: 3 << 20, block_bytes: 4096, is_read_only: false };
    let told = traits.parameters().expect("a device that Linux can have");
    let (basic, discard) = (told.basic, told.discard);
    assert_eq!((told.types, basic.attrs), (0b11, 0b1100));
    assert_eq!([basic.logical_bs_shift, basic.physical_bs_shift], [12; 2]);
    assert_eq!([basic.io_opt_shift, basic.io_min_shift], [12; 2]);
    assert_eq!((basic.max_sectors, basic.chunk_sectors, basic.dev_sectors), (512, 0, 6144));
    assert_eq!((discard.discard_alignment, discard.discard_granularity), (0, 4096));
    assert_eq!(discard.max_discard_sectors, 16_384);
    assert_eq!(discard.max_write_zeroes_sectors, 16_384);
    assert_eq!(discard.max_discard_segments, 1);
    let told = Traits { is_read_only: true, ..traits }.parameters().expect("a device");
    assert_eq!((told.types, told.basic.attrs), (1, 0b1101));
    assert_eq!(told.discard.max_discard_sectors, 0);
    let is_possible = |bytes, block_bytes| {
        Traits { bytes, block_bytes, is_read_only: false }.parameters().is_ok()
    };
    assert!(is_possible(512, 512) && is_possible(4096, 4096));
    assert!(!is_possible(0, 512) && !is_possible(1000, 512) && !is_possible(1 << 63, 512));
    assert!(!is_possible(1 << 20, 256) && !is_possible(3 << 20, 768));
    assert!(!is_possible(1 << 20, 8192));
    let refused = Traits { bytes: 1 << 20, block_bytes: 8192, is_read_only: false };
    let error = refused.parameters().expect_err("blocks of two pages").to_string();
    assert!(error.ends_with("its blocks have 512 to 4096 bytes"), "{error}");
}

#[test]
fn requests_are_what_linux_asks() {
    let of = |op_flags, nr_sectors, start_sector| {
        Request::from(sys::ublksrv_io_desc { op_flags, nr_sectors, start_sector, addr: 7 })
    };
    for (what, operation, data) in [
        (0, Operation::Read, 4096),
        (1, Operation::Write { is_durable: false }, 4096),
        (1 | 1 << 13 | 1 << 11, Operation::Write { is_durable: true }, 4096),
        (2, Operation::Flush, 0),
        (3, Operation::Discard, 0),
        (5 | 1 << 13, Operation::WriteZeroes { is_durable: true }, 0),
        (5 | 1 << 15, Operation::WriteZeroes { is_durable: false }, 0),
        (18, Operation::Other(18), 0),
    ] {
        let request = of(what, 8, 6);
        assert_eq!(request, Request { operation, position: 3072, bytes: 4096 });
        assert_eq!(request.data_bytes(), data, "{operation:?}");
        assert_eq!(i64::from(request.answer(Ok(()))), data as i64, "{operation:?}");
        assert_eq!(request.answer(Err(Errno::Io)), -5);
    }
    assert_eq!(of(0, 1, u64::MAX).position, u64::MAX, "which no device has");
}
