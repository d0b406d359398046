// SPDX-License-Identifier: MIT OR Apache-2.0
//! Distributed Containers that are made of an image, run a program of it, and have a network of their own.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use dvs_api::{Container, Image};
use serde_json::json;

use super::bed::Bed;
use super::dc::{await_places, create, delete, dvsctl, exec, runs_on, show};
use super::mismatch::{expect, Mismatch};
use super::program::Ended;
use crate::digest::sha256;

/// What a server in a container sends to everybody.
const AMOUNT: &str = "65536";
/// The port at which it is reached from outside.
const PORT: &str = "8080";
/// The management address of every node: each has a network to the host of its own.
const MANAGEMENT: &str = "10.0.2.15";
/// The program in the image.
const PROBE: &str = "/bin/probe";
/// The node has it for what ends and starts containers.
const BUSYBOX: &str = "/usr/libexec/dvs/busybox";
const PROGRAM: &str = "dvs-runtime-conformance";

/// A container of an image runs its program on all nodes, which reach each other by its network, and nobody else reaches them but by the
/// port that is published; it is changed while it runs, and remade when it has ended.
pub(super) fn make_containers(bed: &mut Bed) -> Result<(), Mismatch> {
    let archive =
        archive(bed).map_err(|error| Mismatch::new("packing an image", "it can be", error))?;
    let archive = archive.display().to_string();
    let words = ["image", "import", &archive, "--name", "shop", "-o", "json"];
    let imported = run(bed, 0, &words)?;
    let image: Image = parsed("importing an image", &imported)?;
    let kept = image.keepers.iter().all(|keeper| image.nodes.contains(keeper));
    expect(kept && image.keepers.len() == 2, "importing an image", "two nodes keep it", &imported)?;
    let ports = format!("{PORT}:5000");
    let words = [
        "--image",
        "shop",
        "--network=10.7.0.0/24",
        "--publish",
        &ports,
        "--",
        PROBE,
        "serve",
        "[::]:5000",
        AMOUNT,
    ];
    let id = create(bed, "shop", "all", &words)?.id;

    // From each node to the next one, and from outside to each.
    for node in 0..4 {
        let next = (node + 1) % 4;
        let from = format!("10.7.0.{}:5000", next + 1);
        let fetched = dvsctl(bed, node, &exec("shop", node, &[PROBE, "fetch", &from]))?;
        let step = format!("fetching from the container on node{next} in that on node{node}");
        let came = |ended: &Ended| ended.stdout.starts_with(&format!("{AMOUNT} "));
        expect(came(&fetched), &step, AMOUNT, &fetched)?;
        let at = format!("{MANAGEMENT}:{PORT}");
        let fetched = bed.run_on(node, &[PROGRAM, "fetch", &at], super::dc::LIMIT)?;
        let step = format!("fetching by the published port of node{node}");
        expect(came(&fetched), &step, AMOUNT, &fetched)?;
    }
    // Another container has the same network, and nobody of this one is in it; nor is the node.
    create(bed, "other", "0,1", &["--image", "shop", "--network=10.7.0.0/24"])?;
    let fetched = dvsctl(bed, 0, &exec("other", 0, &[PROBE, "fetch", "10.7.0.2:5000", "--once"]))?;
    expect(!fetched.succeeded(), "fetching from another container", "an error", &fetched)?;
    let words = [PROGRAM, "fetch", "10.7.0.1:5000", "--once"];
    let fetched = bed.run_on(0, &words, super::dc::LIMIT)?;
    expect(!fetched.succeeded(), "fetching from a container on its node", "an error", &fetched)?;
    delete(bed, "other")?;

    // Node 0 passes on what is for node 2; its context has no other endpoint.
    let files =
        ["cgroup.procs", "pids.max"].map(|file| format!("/sys/fs/cgroup/dvs/dc{id}/{file}"));
    let pids = |bed: &Bed| -> Result<String, Mismatch> {
        let words = [BUSYBOX, "cat", &files[0], &files[1]];
        Ok(bed.run_on(2, &words, super::dc::LIMIT)?.stdout)
    };
    let before = pids(bed)?;
    expect(
        before.ends_with("\n128\n"),
        "looking at processes of the container",
        "up to 128",
        &before,
    )?;
    done(bed, &["dc", "set", "shop", "--pids", "50"])?;
    let expected = before.replace("\n128\n", "\n50\n");
    let after = pids(bed)?;
    expect(after == expected, "changing a limit", &expected, after)?;
    let logs = done(bed, &["dc", "logs", "shop", "--node", "2"])?;
    expect(logs == "listening\n", "reading the log of node2's container", "listening", logs)?;

    // What ends is made anew, or not.
    let init = before.lines().next().unwrap_or_default().to_owned();
    bed.run_on(2, &[BUSYBOX, "kill", "-9", &init], super::dc::LIMIT)?;
    await_places(bed, "shop", "running anew on node 2", |shop| {
        runs_on(shop) == [0, 1, 2, 3]
            && pids(bed).is_ok_and(|now| !now.is_empty() && !now.lines().any(|pid| pid == init))
    })?;
    done(
        bed,
        &["dc", "set", "shop", "--restart", "never", "--", PROBE, "fetch", "10.7.0.9:1", "--once"],
    )?;
    let ended =
        |shop: &Container| shop.places.iter().all(|place| place.detail == "it ended with status 1");
    await_places(bed, "shop", "ended on all nodes", ended)?;
    let listed = done(bed, &["events"])?;
    expect(
        listed.contains("container shop: it ended with status 1"),
        "looking at events",
        "its end",
        listed,
    )?;
    let text = show(bed, "shop")?;
    expect(text.revision == 2, "counting changes", "2", format!("{}", text.revision))?;

    // Nothing of it is left, nor of its image.
    delete(bed, "shop")?;
    done(bed, &["image", "remove", "shop"])?;
    for node in 0..4 {
        let step = format!("looking for what is left of the image on node{node}");
        let script =
            "i=0; while ls /run/dvs/archives /run/dvs/images | grep -q '[0-9a-f]\\{30\\}'; do \
                      i=$((i+1)); [ $i -lt 60 ] || exit 1; sleep 1; done; echo gone";
        let words = [BUSYBOX, "sh", "-c", script];
        let left = bed.run_on(node, &words, super::dc::LIMIT)?;
        expect(left.stdout == "gone\n", &step, "gone", &left)?;
    }
    Ok(())
}

fn run(bed: &Bed, node: usize, words: &[&str]) -> Result<Ended, Mismatch> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    dvsctl(bed, node, &words)
}

/// What a command says that must succeed, asked of node 0.
fn done(bed: &Bed, words: &[&str]) -> Result<String, Mismatch> {
    let ended = run(bed, 0, words)?;
    expect(ended.succeeded(), &words.join(" "), "it succeeds", &ended)?;
    Ok(ended.stdout)
}

fn parsed<T: serde::de::DeserializeOwned>(step: &str, ended: &Ended) -> Result<T, Mismatch> {
    serde_json::from_str(&ended.stdout)
        .map_err(|error| Mismatch::new(step, "JSON", format!("{error}: {ended}")))
}

/// An archive as `docker save` makes it, of one layer with one program.
fn archive(bed: &Bed) -> std::io::Result<PathBuf> {
    let program = fs::read(bed.program(PROGRAM))?;
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["bin/", "tmp/"] {
        let mut header = header(0, if directory == "tmp/" { 0o1777 } else { 0o755 });
        header.set_entry_type(tar::EntryType::Directory);
        layer.append_data(&mut header, directory, std::io::empty())?;
    }
    append(&mut layer, "bin/probe", &program, 0o755)?;
    let layer = layer.into_inner()?;
    let digest = sha256(&layer);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["SHOP=open"], "WorkingDir": "/tmp"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [], "Layers": ["layer.tar"]}]);
    let mut image = tar::Builder::new(Vec::new());
    append(&mut image, "manifest.json", manifest.to_string().as_bytes(), 0o644)?;
    append(&mut image, "config.json", config.to_string().as_bytes(), 0o644)?;
    append(&mut image, "layer.tar", &layer, 0o644)?;
    let path = Path::new(bed.logs()).join("shop.tar");
    fs::File::create(&path)?.write_all(&image.into_inner()?)?;
    Ok(path)
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    bytes: &[u8],
    mode: u32,
) -> std::io::Result<()> {
    archive.append_data(&mut header(bytes.len() as u64, mode), path, bytes)
}

fn header(bytes: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
