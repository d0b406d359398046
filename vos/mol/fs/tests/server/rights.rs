// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may do what.

use crate::lab::{refusal, Lab, ROOT};
use mol_protocol::file::{self, Who, MAY_EXECUTE, MAY_READ, MAY_WRITE, OPEN_READ, OPEN_WRITE};
use mol_protocol::Errno;

const DENIED: Option<Errno> = Some(Errno::Denied);

#[test]
fn permissions_are_those_of_the_user_who_asks() {
    let lab = Lab::mounted(&["disk"]);
    let one = lab.client();
    let root = one.root();
    let directory = one.make_directory(root, "d");
    let node = one.create(directory, "f");
    let mode = |node, mode| {
        one.ask().set_mode(&file::SetMode { node, mode, who: ROOT }).unwrap();
    };
    let user = Who::new(5, 5);
    mode(directory, 0o711);
    mode(node, 0o640);
    assert!(one.lookup_as(directory, "f", user).is_ok(), "it may be searched");
    let open = |flags, who| one.ask().open(&file::Open { node, flags, who }).map_err(refusal);
    assert_eq!(open(OPEN_READ, user), Err(DENIED));
    assert_eq!(one.create_as(directory, "g", 0o644, user).map(drop), Err(DENIED));
    mode(directory, 0o644);
    assert_eq!(one.lookup_as(directory, "f", user).map(drop), Err(DENIED));
    let access =
        |rights, who| one.ask().access(&file::Access { node, rights, who }).map_err(refusal);
    assert_eq!(access(MAY_READ, user), Err(DENIED));
    assert_eq!(access(MAY_READ | MAY_WRITE, ROOT), Ok(()));
    assert_eq!(access(MAY_EXECUTE, ROOT), Err(DENIED), "nobody may");
    assert_eq!(access(8, ROOT), Err(Some(Errno::Invalid)));
    assert_eq!(one.lookup_as(node, "f", user).map(drop), Err(Some(Errno::NotDirectory)));

    // The group of the file is among those that the client lists.
    let owner = file::SetOwner { node, user: u32::MAX, group: 9, who: ROOT };
    one.ask().set_owner(&owner).unwrap();
    let groups: Vec<u8> = [3_u32, 9].iter().flat_map(|group| group.to_le_bytes()).collect();
    let in_groups = |flags, count| {
        one.lend(&groups, |groups| open(flags, Who { groups, groups_count: count, ..user }))
    };
    assert_eq!(in_groups(OPEN_READ, 1), Err(DENIED));
    assert!(in_groups(OPEN_READ, 2).is_ok());
    assert_eq!(in_groups(OPEN_WRITE, 2), Err(DENIED));
    assert_eq!(in_groups(OPEN_READ, 3), Err(Some(Errno::Fault)));
}

#[test]
fn who_makes_a_file_may_write_it_whatever_its_mode() {
    let lab = Lab::mounted(&["disk"]);
    let (one, other) = (lab.client(), lab.client());
    let root = one.root();
    one.ask().set_mode(&file::SetMode { node: root, mode: 0o777, who: ROOT }).unwrap();
    let user = Who::new(5, 5);
    let node = one.create_as(root, "f", 0, user).unwrap().node;
    let open = file::Open { node, flags: OPEN_WRITE, who: user };
    assert_eq!(one.ask().open(&open).map_err(refusal), Err(DENIED));
    let made = file::OpenMade { node, flags: OPEN_WRITE };
    let file = one.ask().open_made(&made).unwrap();
    assert_eq!(one.write(file, 0, b"x"), Ok(1));
    other.lookup(other.root(), "f").unwrap();
    let denied = other.ask().open_made(&made).map_err(refusal);
    assert_eq!(denied, Err(Some(Errno::NotPermitted)), "another client");
    one.ask().release(&file::Release { node, count: 1 }).unwrap();
    one.lookup(root, "f").unwrap();
    let denied = one.ask().open_made(&made).map_err(refusal);
    assert_eq!(denied, Err(Some(Errno::NotPermitted)), "it had let go of it");
}

#[test]
fn what_a_user_writes_is_not_executed_as_its_owner() {
    let lab = Lab::mounted(&["disk"]);
    let one = lab.client();
    let node = one.create(one.root(), "f");
    let set = file::SetMode { node, mode: 0o6777, who: ROOT };
    let mode = || one.ask().stat(&file::Stat { node }).unwrap().mode & 0o7777;
    one.ask().set_mode(&set).unwrap();
    let file = one.open(node, OPEN_WRITE).unwrap();
    one.write(file, 0, b"x").unwrap();
    assert_eq!(mode(), 0o6777, "the superuser");
    let open = file::Open { node, flags: OPEN_WRITE, who: Who::new(5, 5) };
    let file = one.ask().open(&open).unwrap();
    assert_eq!(mode(), 0o6777);
    one.write(file, 0, b"x").unwrap();
    assert_eq!(mode(), 0o777);
    one.ask().set_mode(&set).unwrap();
    one.ask().truncate(&file::Truncate { node, bytes: 0, who: Who::new(5, 5) }).unwrap();
    assert_eq!(mode(), 0o777);
}
