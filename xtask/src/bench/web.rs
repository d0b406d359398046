// SPDX-License-Identifier: MIT OR Apache-2.0
//! What MoL's web server costs: transfers of files of MoL-FS beside files of a directory, with all servers on one node (Table II of the
//! papers) and on two (Table III). Whoever fetches is on the web server's node. Every file is in memory, as in the papers.

use anyhow::Result;
use dvs_qemu::machine::Memory;
use mol_bench::{Place, Server, Work};

use super::mol::figures::{Case, Figures, Goal, Measured, Shape};
use super::mol::{self, Bed, Nodes, Way};
use super::{plot, Output};
use crate::source::Origin;
use crate::step::Session;

/// Arguments of `cargo xtask bench web`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fewer repetitions, and only the smallest file: figures to look at, not to quote
    #[arg(long)]
    quick: bool,
    /// Only these ways
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WAY,…")]
    only: Vec<Way>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A node has the files three times at most, what is fetched, and itself.
const MEMORY: Memory = Memory { mib: 1536 };
/// The files of the tables, and how often each is fetched in each way: a large one disturbs a median less than a small one does.
const SIZES: [u64; 3] = [10 << 20, 50 << 20, 100 << 20];
const ROUNDS: [u64; 3] = [5, 3, 2];
/// How often the smallest one is fetched when nothing else is.
const QUICK_ROUNDS: u64 = 3;
/// For all of them and what a file system needs besides.
const DISK_MIB: u64 = 176;
/// What is fetched is read so many bytes at a time.
const BLOCK: u32 = 128 << 10;
/// Decides what is in the files.
const SEED: u64 = 2018;
const NEAR: usize = 0;
const FAR: usize = 1;

/// The ways of this benchmark.
const WAYS: [Way; 6] = [Way::WebA, Way::WebB, Way::WebC, Way::WebD, Way::WebE, Way::WebF];

/// The names of what is compared with files of a directory, for each size.
const GOALS: [(Way, [&str; 3], f64); 5] = [
    (Way::WebB, ["web-b-10m", "web-b-50m", "web-b-100m"], 0.95),
    (Way::WebC, ["web-c-10m", "web-c-50m", "web-c-100m"], 0.95),
    (Way::WebD, ["web-d-10m", "web-d-50m", "web-d-100m"], 0.5),
    (Way::WebE, ["web-e-10m", "web-e-50m", "web-e-100m"], 0.5),
    (Way::WebF, ["web-f-10m", "web-f-50m", "web-f-100m"], 0.5),
];

/// What is fetched, and how often.
fn files(quick: bool) -> Vec<(u64, u64)> {
    match quick {
        true => vec![(SIZES[0], QUICK_ROUNDS)],
        false => SIZES.into_iter().zip(ROUNDS).collect(),
    }
}

fn shape(bytes: u64) -> Shape {
    Shape { bytes, block: BLOCK, depth: 1 }
}

fn goals() -> Vec<Goal> {
    let goals = GOALS.iter().flat_map(|(way, names, goal)| {
        names.iter().zip(SIZES).map(|(name, bytes)| Goal {
            name,
            way: *way,
            other: Way::WebA,
            work: Work::Read,
            shape: shape(bytes),
            goal: *goal,
        })
    });
    goals.collect()
}

/// The name of the file with as many bytes.
fn file(bytes: u64) -> String {
    format!("/{}m.bin", bytes >> 20)
}

/// Where the web server of a way listens.
fn port(way: Way) -> u16 {
    8080 + way as u16
}

/// Measures, prints and draws. Whether something is fast is not asked.
pub(super) fn run(arguments: &Arguments, session: &Session, origin: &Origin) -> Result<()> {
    let ways = mol::chosen(&arguments.only, &WAYS)?;
    let bed = Bed::build(session, origin, MEMORY, "bench-web")?;
    let mut step = session.begin("bench web", "starting two nodes")?;
    let mut nodes = bed.start()?;
    let mut measured = Measured::default();
    let files = files(arguments.quick);
    let sizes: Vec<u64> = files.iter().map(|(bytes, _)| *bytes).collect();
    for way in &ways {
        step.now(&format!("starting the servers of {way} and writing its files"));
        if let Err(error) = prepare(&mut nodes, *way, &sizes) {
            measured.missing.insert(*way, format!("{error:#}"));
        }
    }
    let rounds = files.iter().map(|(_, rounds)| *rounds).max().unwrap_or_default();
    for round in 1..=rounds {
        for &(bytes, _) in files.iter().filter(|(_, rounds)| round <= *rounds) {
            for &way in &ways {
                if measured.missing.contains_key(&way) {
                    continue;
                }
                step.now(&format!("round {round} of {rounds}: {way}, {} MiB", bytes >> 20));
                let url = format!("http://127.0.0.1:{}{}", port(way), file(bytes));
                let transfer = shape(bytes).transfer(Work::Read, SEED);
                match nodes.transfer(NEAR, &Place::Web(url), transfer) {
                    Ok(nanoseconds) => {
                        let case = Case { shape: shape(bytes), way, work: Work::Read };
                        measured.samples.entry(case).or_default().push(nanoseconds as f64);
                    }
                    Err(error) => drop(measured.missing.insert(way, format!("{error:#}"))),
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
    let by_size = ("bytes of the file", (|shape| shape.bytes) as fn(Shape) -> u64);
    let plots = plot::save(
        &session.workspace.target.join("bench"),
        [("web.svg", figures.throughput("Files by HTTP", by_size, |_| true))],
    )?;
    super::print(arguments.output, &figures, mol::text, &plots)
}

/// Starts the servers of a way, and writes its files.
fn prepare(nodes: &mut Nodes, way: Way, sizes: &[u64]) -> Result<()> {
    let name = way.name();
    let listen = format!("mol-web serve --dvk {{dvk}} --listen 127.0.0.1:{}", port(way));
    if way == Way::WebA {
        let folder = "/run/web-a";
        for bytes in sizes {
            let path = format!("{folder}{}", file(*bytes)).into();
            nodes.fill(NEAR, &Place::Path { path, direct: false }, *bytes, SEED)?;
        }
        return nodes.serve(NEAR, &format!("{listen} --directory {folder}"));
    }
    // Where the disk server is, if there is one, and the file server.
    let (disk, files) = match way {
        Way::WebB => (None, NEAR),
        Way::WebC => (Some(NEAR), NEAR),
        Way::WebD => (Some(FAR), NEAR),
        Way::WebE => (None, FAR),
        _ => (Some(FAR), FAR),
    };
    let source = match disk {
        Some(node) => {
            // One replica: only devices of groups are found on another node.
            let device = format!("file:/run/{name}.img,create={DISK_MIB}M");
            let group = format!("--group {name} --replica 1 --begin");
            nodes.serve(node, &format!("mol-vdd --dvk {{dvk}} serve {group} --device {device}"))?;
            nodes.await_in_step(name, 1)?;
            format!("vdd:{name}/0")
        }
        None => {
            let path = format!("/run/{name}.img");
            let kib = DISK_MIB << 10;
            nodes.run(files, &format!("mol-fs make {path} --size {kib} --block 4096"))?;
            path
        }
    };
    let disk = format!("--disk bench={source} --mount bench --make-missing");
    nodes.serve(files, &format!("mol-fs serve --dvk {{dvk}} --group {name} {disk}"))?;
    for bytes in sizes {
        let server = Server::Group(name.to_owned());
        // By the program on the file server's node: the network is not what is measured here.
        nodes.fill(files, &Place::File { server, path: file(*bytes) }, *bytes, SEED)?;
    }
    nodes.serve(NEAR, &format!("{listen} --server {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_way_but_the_directory_has_a_goal_for_each_size() {
        let goals = goals();
        assert_eq!(goals.len(), (WAYS.len() - 1) * SIZES.len());
        let names: BTreeSet<_> = goals.iter().map(|goal| goal.name).collect();
        assert_eq!(names.len(), goals.len());
        for goal in &goals {
            let mib = goal.shape.bytes >> 20;
            assert_eq!(goal.name, format!("{}-{mib}m", goal.way));
        }
    }

    #[test]
    fn the_files_fit_and_the_papers_have_them() {
        assert!(SIZES.iter().sum::<u64>() < DISK_MIB << 20);
        for (way, bytes) in WAYS.iter().flat_map(|way| SIZES.map(|bytes| (*way, bytes))) {
            assert!(way.paper(Work::Read, bytes).is_some(), "{way} {bytes}");
            assert_eq!(bytes % u64::from(BLOCK), 0);
        }
        assert!(ROUNDS.is_sorted_by(|more, less| more >= less), "the smallest one in every round");
        assert_eq!(file(SIZES[2]), "/100m.bin");
    }
}
