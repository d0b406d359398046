// SPDX-License-Identifier: MIT OR Apache-2.0
//! What MoL's disks and files cost: devices of its disk server beside NBD, on the same node and on the other one, with and without
//! replicas; and files of its file server beside bare copies between the nodes. Figures 6 and 7 and Table I of the papers.
//!
//! Everything that is served is a file in memory, as in the papers, and all ways are taken by turns in several rounds.

use anyhow::{bail, Context, Result};
use dvs_qemu::machine::Memory;
use mol_bench::{Place, Server, Work};

use super::mol::figures::{Case, Figures, Goal, Measured, Shape};
use super::mol::{self, Bed, Nodes, Way};
use super::{plot, Output};
use crate::source::Origin;
use crate::step::Session;

/// Arguments of `cargo xtask bench storage`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fewer repetitions, and two sizes of requests: figures to look at, not to quote
    #[arg(long)]
    quick: bool,
    /// Only these ways
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WAY,…")]
    only: Vec<Way>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Each node has a few files of [`FILE`] bytes in memory, and itself.
const MEMORY: Memory = Memory { mib: 512 };
/// Bytes of every device: more than is moved.
const DEVICE: &str = "32M";
/// The same as NBD's program wants its file to be made, and in KiB for the image of a file system.
const FILE_BYTES: u64 = 32 << 20;
const IMAGE_KIB: u64 = FILE_BYTES >> 10;
/// The slots of the servers.
const VDD_LOCAL: u32 = 8;
const VDD_REMOTE: u32 = 9;
const FS_IMAGE: u32 = 10;
const FS_VDD: u32 = 11;
const VDD_OF_FS: u32 = 12;
/// The group whose device has replicas.
const GROUP: &str = "disks";
/// What nbd-server is run by: its libraries are beside it.
const NBD: &str = "/usr/libexec/dvs/nbd/ld-linux-x86-64.so.2 --library-path /usr/libexec/dvs/nbd /usr/libexec/dvs/nbd/nbd";
const NBD_PORT: u16 = 10809;
/// The program that moves bytes is on this node, and on the one where a local primary is.
const NEAR: usize = 0;
const FAR: usize = 1;

/// The ways of this benchmark: with those of one group, one kind of request.
const DISKS: [Way; 6] = [
    Way::VddLocal,
    Way::NbdLocal,
    Way::VddRemote,
    Way::NbdRemote,
    Way::ReplicasLocal,
    Way::ReplicasRemote,
];
const FILES: [Way; 3] = [Way::FsImage, Way::FsVdd, Way::Copy];

/// The requests by which disks are compared, and those by which files are.
const SMALL: Shape = Shape { bytes: 1 << 20, block: 4 << 10, depth: 1 };
const COMPARED: Shape = Shape { bytes: 4 << 20, block: 64 << 10, depth: 1 };
/// As many bytes as the second file of Table I has, which is more than the file server is let keep.
const FILE: Shape = Shape { bytes: 10 << 20, block: 1 << 20, depth: 1 };
/// What the file server may keep in memory, in MiB, so that it reads its disk.
const CACHE_MIB: u32 = 4;

/// What is moved by disks.
fn disk_shapes(quick: bool) -> Vec<Shape> {
    let more = [
        Shape { bytes: 2 << 20, block: 16 << 10, depth: 1 },
        Shape { bytes: 8 << 20, block: 256 << 10, depth: 1 },
        Shape { depth: 4, ..COMPARED },
    ];
    let always = [SMALL, COMPARED];
    always.into_iter().chain(more.into_iter().filter(|_| !quick)).collect()
}

/// What is moved by files.
fn file_shapes(quick: bool) -> Vec<Shape> {
    let more = Shape { block: 64 << 10, ..FILE };
    std::iter::once(FILE).chain((!quick).then_some(more)).collect()
}

/// What ways are to be better than, and by how much.
fn goals() -> Vec<Goal> {
    use {Way as W, Work::Read, Work::Write};
    let disks = |name, way, other, work, shape, goal| Goal { name, way, other, work, shape, goal };
    vec![
        disks("vdd-local-read", W::VddLocal, W::NbdLocal, Read, COMPARED, 2.5),
        disks("vdd-local-write", W::VddLocal, W::NbdLocal, Write, COMPARED, 2.5),
        disks("vdd-local-read-4k", W::VddLocal, W::NbdLocal, Read, SMALL, 2.5),
        disks("vdd-local-write-4k", W::VddLocal, W::NbdLocal, Write, SMALL, 2.5),
        disks("vdd-remote-read", W::VddRemote, W::NbdRemote, Read, COMPARED, 1.0),
        disks("vdd-remote-write", W::VddRemote, W::NbdRemote, Write, COMPARED, 1.0),
        disks("vdd-remote-read-4k", W::VddRemote, W::NbdRemote, Read, SMALL, 1.0),
        disks("vdd-remote-write-4k", W::VddRemote, W::NbdRemote, Write, SMALL, 1.0),
        disks("replicas-local-write", W::ReplicasLocal, W::VddLocal, Write, COMPARED, 0.5),
        disks("replicas-remote-write", W::ReplicasRemote, W::VddRemote, Write, COMPARED, 0.5),
        disks("fs-image-read", W::FsImage, W::Copy, Read, FILE, 0.6),
        disks("fs-image-write", W::FsImage, W::Copy, Write, FILE, 0.6),
        disks("fs-vdd-read", W::FsVdd, W::Copy, Read, FILE, 0.6),
        disks("fs-vdd-write", W::FsVdd, W::Copy, Write, FILE, 0.6),
    ]
}

/// A way whose servers run: where the program is that moves bytes, and where the bytes are.
struct Ready {
    way: Way,
    node: usize,
    place: Place,
}

/// Measures, prints and draws. Whether something is fast is not asked.
pub(super) fn run(arguments: &Arguments, session: &Session, origin: &Origin) -> Result<()> {
    let ways = mol::chosen(&arguments.only, &[&DISKS[..], &FILES].concat())?;
    let bed = Bed::build(session, origin, MEMORY, "bench-storage")?;
    let mut step = session.begin("bench storage", "starting two nodes")?;
    let mut nodes = bed.start()?;
    let mut measured = Measured::default();
    let mut ready = Vec::new();
    for way in ways {
        step.now(&format!("starting the servers of {way}"));
        match prepare(&mut nodes, way) {
            Ok((node, place)) => ready.push(Ready { way, node, place }),
            Err(error) => drop(measured.missing.insert(way, format!("{error:#}"))),
        }
    }
    let rounds = if arguments.quick { 3 } else { 5 };
    for round in 1..=rounds {
        for (ways, shapes) in
            [(&DISKS[..], disk_shapes(arguments.quick)), (&FILES[..], file_shapes(arguments.quick))]
        {
            for shape in shapes {
                for one in ready.iter().filter(|one| ways.contains(&one.way)) {
                    let way = one.way;
                    step.now(&format!("round {round} of {rounds}: {way}, {} bytes", shape.block));
                    if measured.missing.contains_key(&way) {
                        continue;
                    }
                    if let Err(error) = sample(&mut nodes, one, shape, round, &mut measured) {
                        measured.missing.insert(way, format!("{error:#}"));
                    }
                }
            }
        }
    }
    drop(nodes);
    for (way, why) in &measured.missing {
        step.remark(&format!("{way} was not measured: {why}"));
    }
    let figures = Figures::new(bed.accelerator(), measured, &goals());
    step.finish(&format!("{} measurements", figures.measurements.len()));
    let by_block = ("bytes of a request", (|shape| shape.block.into()) as fn(Shape) -> u64);
    let disks = |title, work| {
        figures.throughput(title, by_block, move |one| {
            DISKS.contains(&one.way) && one.work == work && one.shape.depth == 1
        })
    };
    let plots = plot::save(
        &session.workspace.target.join("bench"),
        [
            ("storage-read.svg", disks("Reading devices", Work::Read)),
            ("storage-write.svg", disks("Writing devices", Work::Write)),
        ],
    )?;
    super::print(arguments.output, &figures, mol::text, &plots)
}

/// Writes what nobody has written before, and reads it.
fn sample(
    nodes: &mut Nodes,
    ready: &Ready,
    shape: Shape,
    round: u64,
    measured: &mut Measured,
) -> Result<()> {
    let Ready { way, node, place } = ready;
    let shaped = (u64::from(shape.block) << 16) | (u64::from(shape.depth) << 8);
    let seed = (round << 48) | shaped | *way as u64;
    for work in [Work::Write, Work::Read] {
        let nanoseconds = nodes.transfer(*node, place, shape.transfer(work, seed))?;
        let case = Case { shape, way: *way, work };
        // The first time, files are made and connections found.
        if round > 1 {
            measured.samples.entry(case).or_default().push(nanoseconds as f64);
        }
    }
    Ok(())
}

/// Starts the servers of a way.
fn prepare(nodes: &mut Nodes, way: Way) -> Result<(usize, Place)> {
    match way {
        Way::VddLocal => vdd(nodes, NEAR, VDD_LOCAL),
        Way::VddRemote => vdd(nodes, FAR, VDD_REMOTE),
        Way::NbdLocal => nbd(nodes, NEAR),
        Way::NbdRemote => nbd(nodes, FAR),
        Way::ReplicasLocal => replicas(nodes, FAR),
        Way::ReplicasRemote => replicas(nodes, NEAR),
        Way::FsImage => fs_on_image(nodes),
        Way::FsVdd => fs_on_vdd(nodes),
        Way::Copy => Ok((NEAR, nodes.lend(FAR, FILE.bytes)?)),
        Way::WebA | Way::WebB | Way::WebC | Way::WebD | Way::WebE | Way::WebF => {
            bail!("starting the servers of {way}: that is done by `bench web`")
        }
    }
}

/// A disk server without replicas.
fn vdd(nodes: &mut Nodes, node: usize, slot: u32) -> Result<(usize, Place)> {
    let device = format!("file:/run/vdd-{slot}.img,create={DEVICE}");
    nodes.serve(node, &format!("mol-vdd --dvk {{dvk}} serve --slot {slot} --device {device}"))?;
    Ok((NEAR, Place::Disk(nodes.find(node, slot)?)))
}

/// The distribution's server on a node, and Linux's client on the near one. Linux keeps nothing of it in memory.
fn nbd(nodes: &mut Nodes, node: usize) -> Result<(usize, Place)> {
    let file = Place::Path { path: "/run/nbd.img".into(), direct: false };
    nodes.fill(node, &file, FILE_BYTES, 0)?;
    nodes.serve(node, &format!("{NBD}-server -d -C /dev/null {NBD_PORT} /run/nbd.img"))?;
    let (host, device) = match node {
        NEAR => ("127.0.0.1".to_owned(), "/dev/nbd0"),
        _ => (format!("{}%eth0", nodes.address(node)?), "/dev/nbd1"),
    };
    let connect = format!("{NBD}-client -N '' {host} {NBD_PORT} {device}");
    nodes.insist(|nodes| nodes.run(NEAR, &connect)).context("connecting Linux to nbd-server")?;
    Ok((NEAR, Place::Path { path: device.into(), direct: true }))
}

/// A device with a replica on each node, of which the far one has the primary. The client of both ways is on `node`.
fn replicas(nodes: &mut Nodes, node: usize) -> Result<(usize, Place)> {
    let place = Place::Disk(Server::Group(GROUP.to_owned()));
    if !nodes.serves(&format!("--group {GROUP} ")) {
        let device = format!("file:/run/replica.img,create={DEVICE}");
        let serve = format!("mol-vdd --dvk {{dvk}} serve --group {GROUP} --device {device}");
        nodes.serve(FAR, &format!("{serve} --replica 1 --begin"))?;
        nodes.await_in_step(GROUP, 1)?;
        nodes.serve(NEAR, &format!("{serve} --replica 2"))?;
    }
    nodes.await_in_step(GROUP, 2)?;
    Ok((node, place))
}

/// A file server that has an image file.
fn fs_on_image(nodes: &mut Nodes) -> Result<(usize, Place)> {
    let path = "/run/fs.img";
    nodes.run(FAR, &format!("mol-fs make {path} --size {IMAGE_KIB} --block 4096"))?;
    fs(nodes, FS_IMAGE, path)
}

/// A file server that has a device of a disk server.
fn fs_on_vdd(nodes: &mut Nodes) -> Result<(usize, Place)> {
    vdd(nodes, FAR, VDD_OF_FS)?;
    fs(nodes, FS_VDD, &format!("vdd:{VDD_OF_FS}/0"))
}

fn fs(nodes: &mut Nodes, slot: u32, disk: &str) -> Result<(usize, Place)> {
    let disk = format!("--disk bench={disk} --mount bench --make-missing --cache {CACHE_MIB}");
    nodes.serve(FAR, &format!("mol-fs serve --dvk {{dvk}} --slot {slot} {disk}"))?;
    Ok((NEAR, Place::File { server: nodes.find(FAR, slot)?, path: "/file".into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::collections::BTreeSet;

    #[test]
    fn every_way_is_of_one_kind() {
        let all: Vec<_> = DISKS.iter().chain(&FILES).copied().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for way in Way::value_variants() {
            assert_eq!(all.contains(way), !way.name().starts_with("web-"), "{way}");
        }
    }

    #[test]
    fn goals_are_of_what_is_measured_even_in_a_hurry() {
        for quick in [false, true] {
            for Goal { name, way, other, shape, .. } in goals() {
                let shapes = match FILES.contains(&way) {
                    true => file_shapes(quick),
                    false => disk_shapes(quick),
                };
                assert!(shapes.contains(&shape), "{name}");
                assert_eq!(FILES.contains(&way), FILES.contains(&other), "{name}");
            }
        }
        assert_eq!(
            goals().iter().map(|goal| goal.name).collect::<BTreeSet<_>>().len(),
            goals().len()
        );
    }

    #[test]
    fn what_is_moved_fits() {
        let shapes = disk_shapes(false).into_iter().chain(file_shapes(false));
        for shape in shapes {
            assert!(shape.bytes < FILE_BYTES && shape.bytes % u64::from(shape.block) == 0);
        }
        assert!(FILE.bytes > u64::from(CACHE_MIB) << 20, "the file server reads its disk");
    }
}
