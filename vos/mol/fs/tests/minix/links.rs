// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file with as many names as there can be.

use mol_fs::disk::{Disk, Memory};
use mol_fs::format::{make, ROOT};
use mol_fs::volume::{New, Options, User};
use mol_fs::{Error, Volume};
use mol_protocol::Errno;

/// The most names of a file.
const MOST: u16 = 65_530;
/// Where the inode after the root's is: behind two blocks before the maps, one of each of these, and the root's.
const INODE: u64 = 4 * 1024 + 64;

#[test]
fn a_file_has_so_many_names_and_no_more() {
    let mut disk = Memory::new(200 << 10);
    make(&mut disk, 1024, 64, 0).unwrap();
    let mut volume = Volume::mount(disk, Options::default()).unwrap();
    let file = volume.make(&User::SUPERUSER, ROOT, b"a", 0o644, New::File).unwrap();
    let mut disk = volume.unmount().map_err(|(_, error)| error).unwrap();
    // One less than there can be, as if the names were in many directories.
    let mut block = [0; 1024];
    let (at, inside) = (INODE / 1024 * 1024, (INODE % 1024) as usize + 2);
    disk.read(at, &mut block).unwrap();
    assert_eq!(block[inside..inside + 2], 1_u16.to_le_bytes(), "the count of names");
    block[inside..inside + 2].copy_from_slice(&(MOST - 1).to_le_bytes());
    disk.write(at, &block).unwrap();
    let mut volume = Volume::mount(disk, Options::default()).unwrap();
    volume.link(&User::SUPERUSER, file, ROOT, b"b").unwrap();
    let refused = volume.link(&User::SUPERUSER, file, ROOT, b"c").unwrap_err();
    assert!(matches!(refused, Error::Refused(Errno::TooManyLinks)), "{refused:?}");
    assert_eq!(volume.status(file).unwrap().inode.links, MOST);
    volume.unlink(&User::SUPERUSER, ROOT, b"a").unwrap();
    volume.link(&User::SUPERUSER, file, ROOT, b"c").unwrap();
}
