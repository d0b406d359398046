// SPDX-License-Identifier: MIT OR Apache-2.0
//! What nodes boot from.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal};
use std::path::Path;

use dvs_api::{BootImageState, BootStatus, DiskFound, InstallRequest, Installed, Node};

use crate::agreed::escaped;
use crate::arguments::{InstallArguments, Output};
use crate::cluster::Cluster;
use crate::table::Table;
use crate::{print, Failure};

/// Makes a disk of a node one that boots it.
pub(crate) fn install(
    cluster: &Cluster,
    output: Output,
    arguments: &InstallArguments,
) -> Result<(), Failure> {
    let InstallArguments { node, disk, image, image_version, wipe } = arguments;
    let endpoint = cluster.node(*node)?;
    let image = image.as_deref().map(open).transpose()?;
    let there: DiskFound = endpoint.get(&format!("/v1/boot/disk?disk={}", escaped(disk)))?;
    if let (Some(found), false) = (&there.found, wipe) {
        let size = there.bytes >> 20;
        let text = format!(
            "{} of node {node}, of {size} MiB, has {found}, which would be lost",
            there.disk
        );
        if !confirmed(&text)? {
            return Err(Failure::Refused(format!("{text}; say --wipe if you mean it")));
        }
    }
    let wipe = *wipe || there.found.is_some();
    if io::stderr().is_terminal() {
        eprintln!("node {node} writes to {}…", there.disk);
    }
    let installed: Installed = match image {
        Some((file, bytes)) => {
            let version = image_version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"));
            let (disk, version) = (escaped(disk), escaped(version));
            let path = format!("/v1/boot/disk?disk={disk}&wipe={wipe}&version={version}");
            endpoint.put_stream(&path, bytes, file)?
        }
        None => {
            let request = InstallRequest { disk: disk.clone(), wipe };
            endpoint.post("/v1/boot/disk", &request)?
        }
    };
    print(output, &installed, || {
        format!("{} boots node {node} from now on, if its firmware chooses it\n", installed.disk)
    })
}

/// An image, and its size in bytes.
fn open(image: &Path) -> Result<(File, u64), Failure> {
    let open = || {
        let file = File::open(image)?;
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    };
    open().map_err(|error: io::Error| {
        Failure::Refused(format!("read the image {}: {error}", image.display()))
    })
}

/// Asks whoever sits there whether what is on a disk may be lost.
pub(crate) fn confirmed(text: &str) -> Result<bool, Failure> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(false);
    }
    eprintln!("{text}\nWrite `wipe` to lose it:");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == "wipe")
}

/// Shows what is in the slots of nodes.
pub(crate) fn images(cluster: &Cluster, output: Output, node: Option<u32>) -> Result<(), Failure> {
    let nodes = match node {
        Some(node) => vec![node],
        None => cluster.any::<Vec<Node>>("/v1/nodes")?.into_iter().map(|node| node.id).collect(),
    };
    let mut had = Vec::new();
    for node in nodes {
        had.push(cluster.node(node)?.get::<BootStatus>("/v1/boot")?);
    }
    print(output, &had, || list(&had))
}

fn list(all: &[BootStatus]) -> String {
    let mut table = Table::new(&["NODE", "IMAGE", "VERSION", "STATE", "BOOT", "CAUSE"]);
    for status in all {
        let node = status.node.map(|node| node.to_string()).unwrap_or_default();
        let Some(disk) = &status.disk else {
            let why = status.why.clone().unwrap_or_default();
            let none = String::new;
            table.row([node, none(), status.version.clone(), "no slots".into(), none(), why]);
            continue;
        };
        for image in &disk.images {
            let state = match image.state {
                BootImageState::Confirmed => "confirmed",
                BootImageState::Trying => "on trial",
                BootImageState::GivenUp => "given up",
                BootImageState::Replaced => "replaced",
            };
            let boot = match (image.runs, image.next) {
                (true, true) => "now and next",
                (true, false) => "now",
                (false, true) => "next",
                (false, false) => "",
            };
            table.row([
                node.clone(),
                image.number.to_string(),
                image.version.clone().unwrap_or_else(|| "unknown".into()),
                state.into(),
                boot.into(),
                image.cause.clone().unwrap_or_default(),
            ]);
        }
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use dvs_api::{BootDisk, BootImage};

    use super::*;

    #[test]
    fn the_list_says_what_runs_and_why_images_were_given_up() {
        let image = |number, state, runs, cause: Option<&str>| BootImage {
            number,
            version: Some("1.0".into()),
            sha256: None,
            state,
            cause: cause.map(str::to_owned),
            runs,
            next: runs,
        };
        let images = vec![
            image(1, BootImageState::Confirmed, true, None),
            image(2, BootImageState::GivenUp, false, Some("it hung")),
        ];
        let disk = Some(BootDisk { device: "/dev/vda1".into(), images });
        let status = BootStatus { node: Some(3), version: "1.0".into(), disk, why: None };
        let none = BootStatus { disk: None, why: Some("from a CD".into()), ..status.clone() };
        let text = list(&[status, none]);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["3", "1", "1.0", "confirmed", "now", "and", "next"]);
        assert_eq!(rows[2], ["3", "2", "1.0", "given", "up", "it", "hung"]);
        assert_eq!(rows[3], ["3", "1.0", "no", "slots", "from", "a", "CD"]);
    }
}
