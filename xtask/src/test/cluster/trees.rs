// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tree of files is copied from the host to a file server in a container and back, by `dvsctl fs` and by way of both nodes of the
//! container, and comes back the same. It is also mounted on a node that is none of the container's.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::bed::Bed;
use super::dc::{create, delete, failed, run, start};
use super::disks::await_line_up;
use super::files::await_said;
use super::mismatch::{expect, Mismatch};
use super::program::Ended;
use crate::digest::sha256;

const CONTAINER: &str = "trees";
/// The node with the servers, another one of the container, and one that is none of it.
const SERVING: usize = 1;
const OTHER: usize = 2;
const OUTSIDE: usize = 0;
/// Longer than a copy takes on a busy host.
const LIMIT: Duration = Duration::from_secs(180);
const DISK: &str = "serve --group disks --device memory:10M --replica 1 --begin";
const FILES: &str =
    "serve --group files --disk site=vdd:disks/0 --mount site --make-missing --cache 4";
/// Where it is mounted on a node, and what looks at it there.
const MOUNT: &str = "/run/trees";
const BUSYBOX: &str = "/usr/libexec/dvs/busybox";
/// Several requests to the file server.
const LARGE: usize = (2 << 20) + 1_234;
/// More than are synced together.
const SMALL: usize = 100;

/// What is known of each path of a tree: its type and permissions, and the digest of its content or where it leads.
type Tree = BTreeMap<PathBuf, (u32, String)>;

/// Both ways over both nodes, whole trees and single files, and errors.
pub(super) fn there_and_back(bed: &mut Bed) -> Result<(), Mismatch> {
    create(bed, CONTAINER, &format!("{SERVING},{OTHER}"), &[])?;
    let disk = start(bed, CONTAINER, SERVING, "mol-vdd", DISK)?;
    await_line_up(bed, CONTAINER, SERVING, 1, &[1])?;
    let files = start(bed, CONTAINER, SERVING, "mol-fs", FILES)?;
    await_said(&files, "serving as")?;
    for (node, program) in [(SERVING, "mol-ftp"), (OTHER, "mol-ftp"), (SERVING, "mol-fuse")] {
        let ended = start(bed, CONTAINER, node, program, "--version")?.end();
        let ended = ended.map_err(|error| failed(program, &error))?;
        expect(ended.succeeded(), &format!("feeding {program}"), "it can be run", &ended)?;
    }
    let folder = tempfile::tempdir().map_err(|error| local("a folder for files", error))?;
    let site = folder.path().join("site");
    make(&site).map_err(|error| local("making files", error))?;
    let expected = look(&site).map_err(|error| local("reading files", error))?;

    let source = site.display().to_string();
    for (node, target) in [(None, "near"), (Some(OTHER), "far")] {
        let began = Instant::now();
        let there = format!("{CONTAINER}:/{target}");
        let copied = done(bed, &["cp", "-r", &source, &there], node)?;
        // Asked about nothing else, it takes the node that serves.
        let by = format!("by node {}\n", node.unwrap_or(SERVING));
        expect(copied.stdout.ends_with(&by), "copying a tree to a server", &by, &copied)?;
        let back = folder.path().join(target).display().to_string();
        done(bed, &["cp", "-r", &there, &back], node)?;
        let seconds = began.elapsed().as_secs_f64();
        let found =
            look(Path::new(&back)).map_err(|error| local("reading what came back", error))?;
        expect(
            found == expected,
            "comparing the tree that came back",
            &format!("{expected:?}"),
            format!("{found:?}"),
        )?;
        bed.note(format!(
            "a tree of {} files and {LARGE} bytes went to a file server ({target}) and back in {seconds:.1} s",
            SMALL + 1
        ));
    }

    // Within the container it is the same, on the node that has no server.
    let script =
        "/tmp/mol-ftp get -r --server files /near /tmp/near && sha256sum < /tmp/near/a/large && \
                  /tmp/mol-ftp put -r --server files /tmp/near /again";
    let hashed = run(bed, CONTAINER, OTHER, script)?.end();
    let hashed = hashed.map_err(|error| failed("mol-ftp", &error))?;
    let hash = &expected[Path::new("a/large")].1;
    let as_expected = hashed.succeeded() && hashed.stdout.split(' ').next() == Some(hash);
    expect(as_expected, "copying within the container", hash, &hashed)?;
    let large = folder.path().join("large").display().to_string();
    done(bed, &["cp", &format!("{CONTAINER}:/again/a/large"), &large], Some(OTHER))?;
    let content = fs::read(&large).map_err(|error| local("reading what came back", error))?;
    expect(sha256(&content) == *hash, "comparing a file", hash, sha256(&content))?;

    let listed = done(bed, &["ls", &format!("{CONTAINER}:/again/a"), "-o", "json"], None)?;
    let count = listed.stdout.matches("\"name\":").count();
    expect(count == SMALL + 2, "listing a directory", "all that is in it, and no more", &listed)?;
    done(bed, &["rm", "-r", &format!("{CONTAINER}:/again")], None)?;
    let gone = fs_command(bed, &["cp", &format!("{CONTAINER}:/again/a/large"), &large], None)?;
    let is_told = gone.is_one_clear_error() && gone.stderr.contains("ENOENT");
    expect(is_told, "copying what is not there", "an error that says so", &gone)?;

    mount(bed, &expected)?;

    // More than the disk has room for: the file that was there stays, and nothing is left of the new one.
    let there = format!("{CONTAINER}:/far/a/large");
    let zeros = folder.path().join("zeros");
    let sparse = fs::File::create(&zeros).and_then(|file| file.set_len(20 << 20));
    sparse.map_err(|error| local("making a file", error))?;
    let full = fs_command(bed, &["cp", &zeros.display().to_string(), &there], Some(OTHER))?;
    let is_told = full.is_one_clear_error() && full.stderr.contains("ENOSPC");
    expect(is_told, "copying more than there is room for", "an error that says so", &full)?;
    done(bed, &["cp", &there, &large], None)?;
    let content = fs::read(&large).map_err(|error| local("reading what came back", error))?;
    expect(sha256(&content) == *hash, "comparing the file that was there", hash, sha256(&content))?;
    let listed = done(bed, &["ls", &format!("{CONTAINER}:/far/a"), "-o", "json"], None)?;
    let count = listed.stdout.matches("\"name\":").count();
    expect(count == SMALL + 2, "listing after a failed copy", "nothing new", &listed)?;
    drop((files, disk));
    delete(bed, CONTAINER)
}

/// The tree is mounted on a node outside of the container, read, changed and unmounted.
fn mount(bed: &mut Bed, tree: &Tree) -> Result<(), Mismatch> {
    let shell = |script: &str| bed.run_on(OUTSIDE, &[BUSYBOX, "sh", "-c", script], LIMIT);
    let made = shell(&format!("mkdir {MOUNT} && ls {MOUNT}"))?;
    expect(made.succeeded(), "making a directory to mount on", "it can be made", &made)?;
    let from = format!("{CONTAINER}:/");
    let words = ["dvsctl", "fs", "mount", &from, MOUNT, "--server", "files"];
    let programs = ["--ftp", "/tmp/mol-ftp", "--fuse", "/tmp/mol-fuse"];
    let mut mounted = bed.start_on(OUTSIDE, &[&words[..], &programs].concat(), LIMIT)?;
    let line = mounted.line()?;
    let ready = format!("{from} is mounted on {MOUNT}, by node {SERVING}");
    expect(line == ready, "dvsctl fs mount", &ready, line)?;
    let began = Instant::now();
    let hashed = shell(&format!("sha256sum < {MOUNT}/near/a/large && readlink {MOUNT}/near/link"))?;
    let hash = &tree[Path::new("a/large")].1;
    let expected = format!("{hash}  -\na/large\n");
    expect(hashed.stdout == expected, "reading what is mounted", &expected, &hashed)?;
    let seconds = began.elapsed().as_secs_f64();
    let changed = shell(&format!(
        "cd {MOUNT} && mkdir new && cp near/a/large new/copy && mv new/copy new/moved && rm near/link && sync"
    ))?;
    expect(changed.succeeded(), "changing what is mounted", "it can be changed", &changed)?;
    let ended = shell("kill -INT $(pidof dvsctl)")?;
    expect(ended.succeeded(), "ending the mount", "it is told to end", &ended)?;
    let ended = mounted.end()?;
    expect(ended.succeeded(), "ending the mount", "dvsctl succeeds", &ended)?;
    let left = shell(&format!("ls -A {MOUNT}; rmdir {MOUNT}"))?;
    expect(left.succeeded() && left.stdout.is_empty(), "looking where it was", "nothing", &left)?;
    let listed = done(bed, &["ls", &format!("{CONTAINER}:/new"), "-o", "json"], None)?;
    let is_there = listed.stdout.contains("\"moved\"") && !listed.stdout.contains("\"copy\"");
    expect(is_there, "listing what was made through the mount", "moved", &listed)?;
    let script = "/tmp/mol-ftp get --server files /new/moved | sha256sum";
    let hashed = run(bed, CONTAINER, OTHER, script)?.end();
    let hashed = hashed.map_err(|error| failed("mol-ftp", &error))?;
    expect(
        hashed.stdout.split(' ').next() == Some(hash),
        "comparing what was copied through the mount",
        hash,
        &hashed,
    )?;
    bed.note(format!("{LARGE} bytes were read through dvsctl fs mount in {seconds:.1} s"));
    Ok(())
}

/// `dvsctl fs` with the file server of the container, by way of a node that is none of its nodes.
fn fs_command(bed: &Bed, words: &[&str], node: Option<usize>) -> Result<Ended, Mismatch> {
    let node = node.map(|node| node.to_string());
    let mut all = vec!["fs"];
    all.extend(words);
    all.extend(["--server", "files", "--ftp", "/tmp/mol-ftp"]);
    all.extend(node.iter().flat_map(|node| ["--node", node.as_str()]));
    let ended = bed.start_dvsctl(OUTSIDE, &all, LIMIT)?.end();
    ended.map_err(|error| failed("dvsctl fs", &error))
}

/// The same, which has to succeed.
fn done(bed: &Bed, words: &[&str], node: Option<usize>) -> Result<Ended, Mismatch> {
    let ended = fs_command(bed, words, node)?;
    let step = format!("dvsctl fs {}", words.join(" "));
    expect(ended.succeeded(), &step, "it succeeds", &ended)?;
    Ok(ended)
}

fn local(step: &str, error: io::Error) -> Mismatch {
    Mismatch::new(step, "it can be done", error)
}

fn make(top: &Path) -> io::Result<()> {
    fs::create_dir_all(top.join("a/empty"))?;
    // Nothing that repeats itself after a block or a piece.
    let large: Vec<u8> =
        (0..LARGE as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) as u8).collect();
    fs::write(top.join("a/large"), large)?;
    for number in 0..SMALL {
        fs::write(top.join(format!("a/small-{number}")), vec![number as u8; number * 37])?;
    }
    fs::write(top.join("script"), "#!/bin/sh\n")?;
    fs::set_permissions(top.join("script"), Permissions::from_mode(0o751))?;
    symlink("a/large", top.join("link"))
}

/// All that is in a folder.
fn look(top: &Path) -> io::Result<Tree> {
    let (mut tree, mut rest) = (Tree::new(), vec![PathBuf::new()]);
    while let Some(below) = rest.pop() {
        let path = top.join(&below);
        let metadata = fs::symlink_metadata(&path)?;
        let content = if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                rest.push(below.join(entry?.file_name()));
            }
            String::new()
        } else if metadata.is_symlink() {
            fs::read_link(&path)?.display().to_string()
        } else {
            sha256(&fs::read(&path)?)
        };
        tree.insert(below, (metadata.mode(), content));
    }
    Ok(tree)
}
