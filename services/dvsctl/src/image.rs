// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of containers.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dvs_api::Image;
use indicatif::{ProgressBar, ProgressStyle};

use crate::agreed::escaped;
use crate::arguments::{ImageCommand, Output};
use crate::cluster::Cluster;
use crate::dc::amount;
use crate::table::Table;
use crate::{print, Failure};

/// How often it is looked which nodes have an image.
const LOOK: Duration = Duration::from_millis(250);
/// How long the nodes that keep an image may take to get it, per MiB and at least.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_PER_MIB: Duration = Duration::from_secs(1);

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &ImageCommand,
) -> Result<(), Failure> {
    match command {
        ImageCommand::Import { file, name } => {
            let image = import(cluster, file, name.as_deref())?;
            print(output, &image, || {
                let nodes: Vec<_> = image.nodes.iter().map(u32::to_string).collect();
                format!("image {} is on nodes {}\n", image.name, nodes.join(", "))
            })
        }
        ImageCommand::List => {
            let all: Vec<Image> = cluster.any("/v1/images")?;
            print(output, &all, || list(&all))
        }
        ImageCommand::Remove { name } => {
            let image: Image = cluster.agreeing()?.delete(&path(name))?;
            print(output, &image, || match image.containers.as_slice() {
                [] => format!("image {name} is removed\n"),
                some => format!(
                    "image {name} is removed; containers that are made of it keep it: {}\n",
                    some.join(", ")
                ),
            })
        }
    }
}

fn path(name: &str) -> String {
    // A slash would be part of the path.
    format!("/v1/images/{}", escaped(name).replace('/', "%2F"))
}

/// Brings an image into the cluster, and waits until the nodes have it that are to keep it.
pub(crate) fn import(cluster: &Cluster, file: &Path, name: Option<&str>) -> Result<Image, Failure> {
    let failed = |error: io::Error| {
        Failure::Refused(format!("import the image {}: {error}", file.display()))
    };
    let name = match name {
        Some(name) => name.to_owned(),
        None => file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let archive = File::open(file).map_err(failed)?;
    let bytes = archive.metadata().map_err(failed)?.len();
    let (bar, body) = sending(archive, bytes, &name);
    let endpoint = cluster.agreeing()?;
    let sent = endpoint.put_stream(&path(&name), bytes, body);
    bar.finish_and_clear();
    let mut image: Image = sent?;
    let patience = PATIENCE + PATIENCE_PER_MIB * u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    let deadline = Instant::now() + patience;
    while !image.keepers.iter().all(|node| image.nodes.contains(node)) {
        if Instant::now() >= deadline {
            return Err(Failure::Refused(format!(
                "the cluster knows the image {name}, but after {} s only nodes {:?} of {:?} have it; they go on, see `dvsctl image list`",
                patience.as_secs(),
                image.nodes,
                image.keepers
            )));
        }
        sleep(LOOK);
        let all: Vec<Image> = cluster.any("/v1/images")?;
        let found = all.into_iter().find(|known| known.name == name);
        image = found.ok_or_else(|| {
            Failure::Refused(format!("the image {name} was removed while it was imported"))
        })?;
    }
    Ok(image)
}

/// A file that is sent, and the bar that shows how far that has come.
pub(crate) fn sending(file: File, bytes: u64, name: &str) -> (ProgressBar, impl Read) {
    let bar = bar(bytes, format!("sending {name}"));
    let body = Watched { file, bar: bar.clone() };
    (bar, body)
}

/// A bar that shows how many of so many bytes have gone where they are to be, if standard error is a terminal.
pub(crate) fn bar(bytes: u64, message: String) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(message)
}

/// A file whose reading shows.
struct Watched {
    file: File,
    bar: ProgressBar,
}

impl Read for Watched {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(bytes)?;
        self.bar.inc(length as u64);
        Ok(length)
    }
}

fn list(all: &[Image]) -> String {
    let mut table = Table::new(&["NAME", "DIGEST", "SIZE", "ON NODES", "CONTAINERS"]);
    for image in all {
        let nodes: Vec<_> = image.nodes.iter().map(u32::to_string).collect();
        table.row([
            image.name.clone(),
            image.digest.chars().take(12).collect(),
            amount(image.bytes),
            nodes.join(","),
            image.containers.join(","),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_where_images_are_and_what_is_made_of_them() {
        let image = Image {
            name: "web".into(),
            digest: "ab".repeat(32),
            bytes: 20 << 20,
            nodes: vec![0, 3],
            keepers: vec![0, 3],
            containers: vec!["shop".into()],
        };
        let text = list(&[image]);
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["web", "abababababab", "20", "MiB", "0,3", "shop"]);
        assert_eq!(path("a/b c"), "/v1/images/a%2Fb%20c");
    }
}
