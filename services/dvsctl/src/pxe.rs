// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl pxe`: machines that nodes boot over the network.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use dvs_api::{NetbootMachine, NetbootRequest, NetbootService, NetbootStatus};

use crate::arguments::{EnableArguments, Output, PxeCommand};
use crate::cluster::{Cluster, Endpoint, Error};
use crate::table::Table;
use crate::{duration, print, told, Failure};

const PATH: &str = "/v1/netboot";

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &PxeCommand,
) -> Result<ExitCode, Failure> {
    match command {
        PxeCommand::Enable(arguments) => enable(cluster, output, arguments)?,
        PxeCommand::Disable { node } => {
            let status: NetbootStatus = one(cluster, *node)?.delete(PATH)?;
            print(output, &status, || format!("{} boots no machines\n", name(status.node)))?;
        }
        PxeCommand::Status { node } => return self::status(cluster, output, *node),
    }
    Ok(ExitCode::SUCCESS)
}

/// The node that is meant; without an id, the first that answers, which may be in no cluster yet.
fn one(cluster: &Cluster, node: Option<u32>) -> Result<Endpoint, Error> {
    match node {
        Some(node) => cluster.node(node),
        None => cluster.first(|endpoint| {
            endpoint.get::<dvs_api::Version>("/v1/version").map(|_| endpoint.clone())
        }),
    }
}

fn name(node: Option<u32>) -> String {
    node.map_or("a node without an id".to_owned(), |node| format!("node {node}"))
}

fn enable(cluster: &Cluster, output: Output, arguments: &EnableArguments) -> Result<(), Failure> {
    let EnableArguments { node, interface, address, addresses, append, image } = arguments;
    if let (Some(own), Some(addresses)) = (address, addresses) {
        let checked = addresses.check_beside(*own);
        checked.map_err(|why| Failure::Refused(format!("--addresses: {why}")))?;
    }
    let endpoint = one(cluster, *node)?;
    if let Some(image) = image {
        let failed = |error: io::Error| {
            Failure::Refused(format!("read the image {}: {error}", image.display()))
        };
        let file = File::open(image).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if io::stderr().is_terminal() {
            eprintln!("handing {} over…", image.display());
        }
        let _: NetbootStatus = endpoint.put_stream("/v1/netboot/image", bytes, file)?;
    }
    let request = NetbootRequest {
        interface: interface.to_string(),
        address: address.map(|address| address.to_string()),
        addresses: addresses.map(|addresses| addresses.to_string()),
        append: append.as_ref().map(|append| append.secret().to_owned()),
    };
    let status: NetbootStatus = endpoint.post(PATH, &request)?;
    print(output, &status, || {
        let Some(NetbootService { interface, address, image, .. }) = &status.serves else {
            return String::new();
        };
        format!(
            "{} boots machines on {interface} from {address}, with {} of {}\n",
            name(status.node),
            image.release,
            image.origin
        )
    })
}

fn status(cluster: &Cluster, output: Output, node: Option<u32>) -> Result<ExitCode, Failure> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for endpoint in cluster.meant(node)? {
        match endpoint.get::<NetbootStatus>(PATH) {
            Ok(status) => found.push(status),
            Err(error) => errors.push(error),
        }
    }
    // A node may be reached by several ways; one without an id is known by nothing else.
    found.sort_by_key(|status| status.node.unwrap_or(u32::MAX));
    found.dedup_by(|one, other| one.node.is_some() && one.node == other.node);
    told(output, &found, &errors, || list(&found))
}

fn list(all: &[NetbootStatus]) -> String {
    let headings =
        ["NODE", "INTERFACE", "ADDRESS", "GIVES AWAY", "IMAGE", "FROM", "BOOTED", "TROUBLE"];
    let mut table = Table::new(&headings);
    for status in all {
        let node = status.node.map(|node| node.to_string()).unwrap_or_default();
        let wanted = status.wanted.as_ref();
        let away = match wanted {
            Some(wanted) => wanted.addresses.clone().unwrap_or_else(|| "nothing".into()),
            None => String::new(),
        };
        let (interface, address, image, origin) = match (&status.serves, wanted) {
            (Some(NetbootService { interface, address, image, .. }), _) => {
                let (release, origin) = (image.release.clone(), image.origin.clone());
                (interface.clone(), address.clone(), release, origin)
            }
            (None, Some(wanted)) => {
                let address = wanted.address.clone().unwrap_or_default();
                (wanted.interface.clone(), address, String::new(), String::new())
            }
            (None, None) => ("none".into(), String::new(), String::new(), String::new()),
        };
        let mut trouble = status.trouble.clone().unwrap_or_default();
        if status.serves.as_ref().is_some_and(|serves| !serves.bios) {
            trouble = "machines whose BIOS has no iPXE are not served".into();
        }
        let booted = status.booted.to_string();
        table.row([node, interface, address, away, image, origin, booted, trouble]);
    }
    let mut machines = Table::new(&["MACHINE", "ADDRESS", "BY NODE", "BOOTED"]);
    let mut any = false;
    for status in all {
        for NetbootMachine { mac, address, ago_s, .. } in &status.machines {
            any = true;
            let mac = mac.clone().unwrap_or_else(|| "unknown".into());
            let node = status.node.map(|node| node.to_string()).unwrap_or_default();
            machines.row([mac, address.clone(), node, format!("{} ago", duration(*ago_s))]);
        }
    }
    match any {
        true => format!("{table}\n{machines}"),
        false => table.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use dvs_api::NetbootImage;

    use super::*;

    #[test]
    fn the_list_tells_who_serves_what_and_whom() {
        let image = NetbootImage { release: "1.0+a".into(), bytes: 9, origin: "/dev/sr0".into() };
        let wanted = NetbootRequest {
            interface: "eth*".into(),
            address: None,
            addresses: Some("10.0.0.5-10.0.0.9".into()),
            append: None,
        };
        let serves = NetbootService {
            interface: "eth0".into(),
            address: "10.0.0.1/24".into(),
            image,
            bios: true,
        };
        let machine = NetbootMachine {
            mac: Some("02:00:00:00:00:07".into()),
            address: "10.0.0.7".into(),
            file: "initramfs".into(),
            ago_s: 65,
        };
        let works = NetbootStatus {
            node: Some(0),
            wanted: Some(wanted.clone()),
            serves: Some(serves),
            trouble: None,
            booted: 3,
            machines: vec![machine],
        };
        let fails = NetbootStatus {
            node: Some(1),
            wanted: Some(wanted),
            trouble: Some("no cable".into()),
            ..NetbootStatus::default()
        };
        let idle = NetbootStatus { node: Some(2), ..NetbootStatus::default() };
        let text = list(&[works, fails, idle]);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = ["0", "eth0", "10.0.0.1/24", "10.0.0.5-10.0.0.9", "1.0+a", "/dev/sr0", "3"];
        assert_eq!(rows[1], expected);
        assert_eq!(rows[2], ["1", "eth*", "10.0.0.5-10.0.0.9", "0", "no", "cable"]);
        assert_eq!(rows[3], ["2", "none", "0"]);
        assert_eq!(rows[6], ["02:00:00:00:00:07", "10.0.0.7", "0", "1m05s", "ago"]);
    }
}
