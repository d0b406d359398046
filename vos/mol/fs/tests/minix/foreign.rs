// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading what others made: all formats, files with holes and far blocks, and images that lie.

use crate::tools::{fsck, mkfs};
use mol_fs::disk::Memory;
use mol_fs::format::{Inode, Kind, Layout, Path, Version, ROOT, SUPERBLOCK_BYTES};
use mol_fs::volume::Options;
use mol_fs::{Damage, Error, Volume};
use mol_protocol::Errno;
use proptest::prelude::*;

/// Every format, with the length of its names.
const FORMATS: [(&[&str], usize); 5] = [
    (&["-1", "-n", "14"], 14),
    (&["-1", "-n", "30"], 30),
    (&["-2", "-n", "14"], 14),
    (&["-2", "-n", "30"], 30),
    (&["-3"], 60),
];

/// An image of `mkfs.minix` into which files are put byte by byte.
struct Foreign {
    bytes: Vec<u8>,
    layout: Layout,
    next_inode: u32,
    next_zone: u32,
}

impl Foreign {
    fn new(arguments: &[&str]) -> Self {
        let bytes = mkfs(arguments, 4 << 20);
        let superblock: &[u8; SUPERBLOCK_BYTES] = bytes[1024..2048].try_into().unwrap();
        let layout = Layout::decode(superblock, bytes.len() as u64).unwrap();
        Self { bytes, next_inode: 2, next_zone: layout.first_data_zone + 1, layout }
    }

    fn block(&mut self, number: u32) -> &mut [u8] {
        &mut self.bytes[number as usize * 1024..][..1024]
    }

    fn mark(&mut self, map: u32, bit: u32) {
        self.block(map)[bit as usize / 8] |= 1 << (bit % 8);
    }

    fn zone(&mut self) -> u32 {
        let zone = self.next_zone;
        self.next_zone += 1;
        let (map, bit) = (self.layout.zone_map_at(), self.layout.zone_bit(zone));
        self.mark(map, bit);
        zone
    }

    fn pointer(&mut self, zone: u32, step: u32) -> u32 {
        let size = self.layout.pointer_bytes() as usize;
        let mut number = [0; 4];
        number[..size].copy_from_slice(&self.block(zone)[step as usize * size..][..size]);
        u32::from_le_bytes(number)
    }

    fn set_pointer(&mut self, zone: u32, step: u32, to: u32) {
        let size = self.layout.pointer_bytes() as usize;
        self.block(zone)[step as usize * size..][..size].copy_from_slice(&to.to_le_bytes()[..size]);
    }

    /// The block `index` of a file with these numbers, made if it is not there.
    fn block_of(&mut self, zones: &mut [u32; 10], index: u32) -> u32 {
        let path = Path::to(&self.layout, index).unwrap();
        if zones[path.slot] == 0 {
            zones[path.slot] = self.zone();
        }
        let mut zone = zones[path.slot];
        for step in path.steps() {
            if self.pointer(zone, *step) == 0 {
                let next = self.zone();
                self.set_pointer(zone, *step, next);
            }
            zone = self.pointer(zone, *step);
        }
        zone
    }

    fn set_inode(&mut self, number: u32, inode: &Inode) {
        let (block, at) = self.layout.inode_place(number);
        let bytes = if self.layout.version == Version::V1 {
            let mut bytes = inode.encode()[..32].to_vec();
            bytes[2..4].copy_from_slice(&inode.user.to_le_bytes());
            bytes[4..8].copy_from_slice(&inode.bytes.to_le_bytes());
            bytes[8..12].copy_from_slice(&inode.modified.to_le_bytes());
            bytes[12..14].copy_from_slice(&[inode.group as u8, inode.links as u8]);
            for (place, zone) in bytes[14..].chunks_exact_mut(2).zip(inode.zones) {
                place.copy_from_slice(&(zone as u16).to_le_bytes());
            }
            bytes
        } else {
            inode.encode().to_vec()
        };
        self.block(block)[at..at + bytes.len()].copy_from_slice(&bytes);
    }

    /// Puts a file into the root: `bytes` long, with the blocks of `filled` filled with their index.
    fn put(&mut self, name: &[u8], mode: u16, bytes: u32, filled: &[u32]) -> u32 {
        let number = self.next_inode;
        self.next_inode += 1;
        let mut zones = [0; 10];
        for index in filled {
            let zone = self.block_of(&mut zones, *index);
            self.block(zone).fill(*index as u8);
        }
        let (user, group) = (1000, 100);
        let (accessed, modified, changed) = (5, 5, 5);
        let inode =
            Inode { mode, links: 1, user, group, bytes, accessed, modified, changed, zones };
        self.set_inode(number, &inode);
        let map = self.layout.inode_map_at();
        self.mark(map, number);
        self.put_name(name, number);
        number
    }

    fn put_name(&mut self, name: &[u8], number: u32) {
        let entry_bytes = self.layout.entry_bytes();
        let (block, at) = self.layout.inode_place(ROOT);
        let version = self.layout.version;
        let mut root = Inode::decode(version, &self.block(block)[at..]);
        let (zone, place) = (root.zones[0], root.bytes as usize);
        let entry = &mut self.block(zone)[place..place + entry_bytes];
        let number_bytes = if version == Version::V3 { 4 } else { 2 };
        entry[..number_bytes].copy_from_slice(&number.to_le_bytes()[..number_bytes]);
        entry[number_bytes..number_bytes + name.len()].copy_from_slice(name);
        root.bytes += entry_bytes as u32;
        self.set_inode(ROOT, &root);
    }

    fn mount(self) -> Volume<Memory> {
        let options = Options { read_only: true, ..Options::default() };
        Volume::mount(Memory::from(self.bytes), options).unwrap()
    }
}

fn names(volume: &mut Volume<Memory>) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    volume
        .list(ROOT, 0, |entry| {
            names.push(entry.name.to_vec());
            true
        })
        .unwrap();
    names
}

#[test]
fn an_empty_file_system_of_every_format_is_read() {
    for (arguments, name_bytes) in FORMATS {
        let mut volume = Foreign::new(arguments).mount();
        assert_eq!(volume.layout().name_bytes, name_bytes);
        let usage = volume.usage();
        assert_eq!(usage.blocks - usage.blocks_free, 1, "{arguments:?}");
        assert_eq!(usage.inodes - usage.inodes_free, 1, "{arguments:?}");
        assert_eq!(names(&mut volume), [b".".to_vec(), b"..".to_vec()]);
        let status = volume.status(ROOT).unwrap();
        assert_eq!((status.inode.links, status.blocks), (2, 1));
        assert!(status.inode.is_directory());
        assert_eq!(volume.lookup(ROOT, b".."), Ok(ROOT));
        assert_eq!(volume.lookup(ROOT, b"x"), Err(Errno::NoEntry.into()));
        let long = vec![b'x'; name_bytes + 1];
        assert_eq!(volume.lookup(ROOT, &long), Err(Errno::NameTooLong.into()));
    }
}

#[test]
fn files_with_holes_and_far_blocks_of_every_format_are_read() {
    for (arguments, name_bytes) in FORMATS {
        let mut foreign = Foreign::new(arguments);
        let per_block = foreign.layout.pointers_per_block();
        // One of the inode, one behind a block of numbers, one behind two, and the same behind three.
        let mut filled = vec![2, 9, 7 + per_block + per_block + 3];
        if foreign.layout.version != Version::V1 {
            filled.push(7 + per_block + per_block.pow(2) + 1);
        }
        let last = *filled.last().unwrap();
        let bytes = last * 1024 + 10;
        let long = vec![b'n'; name_bytes];
        let number = foreign.put(&long, Kind::Regular as u16 | 0o640, bytes, &filled);
        assert_eq!(fsck(&foreign.bytes), None, "{arguments:?}: the image is not sound");

        let mut volume = foreign.mount();
        assert_eq!(volume.lookup(ROOT, &long), Ok(number));
        let status = volume.status(number).unwrap();
        assert_eq!((status.inode.bytes, status.inode.user, status.inode.group), (bytes, 1000, 100));
        assert_eq!(status.inode.modified, 5);
        // Blocks of numbers: one for 9, two for the third, three for the last.
        assert_eq!(status.blocks as usize, filled.len() + 3 + 3 * usize::from(filled.len() == 4));
        let mut block = [1; 1024];
        for index in 0..12 {
            assert_eq!(volume.read(number, index * 1024, &mut block), Ok(1024));
            let expected = if filled.contains(&(index as u32)) { index as u8 } else { 0 };
            assert_eq!(block, [expected; 1024], "{arguments:?}, block {index}");
        }
        for index in &filled {
            let at = u64::from(*index) * 1024 - 1;
            let mut part = [9; 4];
            assert_eq!(volume.read(number, at, &mut part), Ok(4));
            assert_eq!(part, [0, *index as u8, *index as u8, *index as u8]);
        }
        assert_eq!(volume.read(number, u64::from(bytes) - 4, &mut block), Ok(4));
        assert_eq!(volume.read(number, u64::from(bytes), &mut block), Ok(0));
        assert_eq!(volume.read(number, u64::MAX, &mut block), Ok(0));
    }
}

#[test]
fn a_symbolic_link_is_read() {
    let mut foreign = Foreign::new(&["-3"]);
    let number = foreign.put(b"link", Kind::SymbolicLink as u16 | 0o777, 3, &[0]);
    let zone = foreign.next_zone - 1;
    foreign.block(zone)[..4].copy_from_slice(b"a/b\0");
    let mut volume = foreign.mount();
    assert_eq!(volume.read_link(number), Ok(b"a/b".to_vec()));
    assert_eq!(volume.read_link(ROOT), Err(Errno::Invalid.into()));
}

#[test]
fn what_is_damaged_is_named_and_does_no_harm() {
    let regular = Kind::Regular as u16 | 0o644;
    let damaged = |foreign: Foreign, name: &[u8]| {
        let mut volume = foreign.mount();
        let mut block = [0; 1024];
        match volume.lookup(ROOT, name).and_then(|number| volume.read(number, 7 * 1024, &mut block))
        {
            Err(Error::Damaged(damage)) => damage,
            other => panic!("{other:?}"),
        }
    };
    // The block of numbers has itself as the block of the file.
    let mut foreign = Foreign::new(&["-3"]);
    let inode = foreign.put(b"a", regular, 9000, &[7]);
    let zone = foreign.next_zone - 2;
    foreign.set_pointer(zone, 0, zone);
    assert_eq!(damaged(foreign, b"a"), Damage::ZoneTwice { inode, zone });

    let mut foreign = Foreign::new(&["-3"]);
    let inode = foreign.put(b"a", regular, 9000, &[7]);
    let zone = foreign.next_zone - 2;
    foreign.set_pointer(zone, 0, 2);
    assert_eq!(damaged(foreign, b"a"), Damage::ZoneOutside { inode, zone: 2 });

    let mut foreign = Foreign::new(&["-3"]);
    foreign.put_name(b"a", 100_000);
    let outside = Damage::InodeOutside { directory: ROOT, inode: 100_000 };
    assert_eq!(damaged(foreign, b"a"), outside);

    let mut foreign = Foreign::new(&["-3"]);
    foreign.put_name(b"a", 9);
    assert_eq!(damaged(foreign, b"a"), Damage::InodeFree { inode: 9 });

    let mut foreign = Foreign::new(&["-3"]);
    let inode = foreign.put(b"a", 0o170_644, 0, &[]);
    assert_eq!(damaged(foreign, b"a"), Damage::Mode { inode, mode: 0o170_644 });

    let mut foreign = Foreign::new(&["-3"]);
    let inode = foreign.put(b"a", regular, u32::MAX, &[]);
    assert_eq!(damaged(foreign, b"a"), Damage::Size { inode, bytes: u32::MAX });
}

/// Walks all of a tree, as deep as a damaged one lets it, and reads everything.
fn read_all(volume: &mut Volume<Memory>, directory: u32, depth: usize) -> usize {
    let mut found = Vec::new();
    let _ = volume.list(directory, 0, |entry| {
        found.push(entry.name.to_vec());
        true
    });
    let mut read = 0;
    for name in found {
        let Ok(number) = volume.lookup(directory, &name) else { continue };
        let mut buffer = vec![0; 1 << 16];
        read += volume.read(number, 0, &mut buffer).unwrap_or(0);
        read += volume.read_link(number).map_or(0, |path| path.len());
        let _ = volume.status(number);
        if depth > 0 && name != b"." && name != b".." {
            read += read_all(volume, number, depth - 1);
        }
    }
    read
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(
        changes in proptest::collection::vec((0_usize..100 * 1024, any::<u8>()), 1..40),
        seed: u8,
    ) {
        let mut disk = Memory::new(1 << 20);
        mol_fs::format::make(&mut disk, 1024, 32, 0).unwrap();
        let mut bytes = disk.content().to_vec();
        for (at, value) in changes {
            // Most changes hit what has a meaning: superblock, maps, the first inodes, the root.
            let at = if value < 200 { 1024 + at % 7168 } else { at };
            bytes[at] = value.wrapping_mul(seed | 1);
        }
        let options = Options { read_only: true, ..Options::default() };
        if let Ok(mut volume) = Volume::mount(Memory::from(bytes), options) {
            read_all(&mut volume, ROOT, 3);
        }
    }
}
