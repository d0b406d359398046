// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the command of a container has written.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use dvs_api::ContainerPhase;

use super::{find, path, progress};
use crate::arguments::{DcLogsArguments, Output};
use crate::cluster::{Cluster, Endpoint};
use crate::{print, Failure};

/// How often it is looked for more.
const LOOK: Duration = Duration::from_millis(500);

/// The log of one node.
struct Source {
    node: u32,
    endpoint: Endpoint,
    /// How many bytes of it were read.
    position: u64,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
}

pub(super) fn run(
    cluster: &Cluster,
    output: Output,
    arguments: &DcLogsArguments,
) -> Result<(), Failure> {
    let DcLogsArguments { name, node, follow } = arguments;
    let container = find(cluster, name)?;
    let has_one = |phase| {
        matches!(phase, ContainerPhase::Running | ContainerPhase::Ended | ContainerPhase::Failed)
    };
    let nodes: Vec<u32> = match node {
        Some(node) => vec![*node],
        None => {
            let places = container.places.iter().filter(|place| has_one(place.phase));
            places.map(|place| place.node).collect()
        }
    };
    if nodes.is_empty() {
        let now = progress(&container.places);
        return Err(Failure::Refused(format!("container {name} has run on no node yet: {now}")));
    }
    let mut sources = Vec::new();
    for node in nodes {
        sources.push(Source { node, endpoint: cluster.node(node)?, position: 0, rest: Vec::new() });
    }
    let many = sources.len() > 1;
    loop {
        for source in &mut sources {
            let lines = source.read(&format!("{}/log", path(name)), *follow)?;
            write(output, source.node, many, &lines)?;
        }
        if !follow {
            return Ok(());
        }
        sleep(LOOK);
    }
}

impl Source {
    /// The lines that are new; with `follow`, only whole ones.
    fn read(&mut self, path: &str, follow: bool) -> Result<Vec<Vec<u8>>, Failure> {
        let (begins, bytes) = self.endpoint.log(&format!("{path}?from={}", self.position))?;
        self.position = begins + bytes.len() as u64;
        self.rest.extend(bytes);
        Ok(lines(&mut self.rest, follow))
    }
}

fn lines(rest: &mut Vec<u8>, whole: bool) -> Vec<Vec<u8>> {
    let end = match (whole, rest.iter().rposition(|byte| *byte == b'\n')) {
        (false, _) => rest.len(),
        (true, Some(at)) => at + 1,
        (true, None) => 0,
    };
    let done: Vec<u8> = rest.drain(..end).collect();
    done.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[derive(serde::Serialize)]
struct Line {
    node: u32,
    text: String,
}

fn write(output: Output, node: u32, many: bool, lines: &[Vec<u8>]) -> Result<(), Failure> {
    for line in lines {
        match output {
            Output::Table | Output::Wide => {
                let mut stdout = io::stdout().lock();
                if many {
                    write!(stdout, "{node}: ")?;
                }
                stdout.write_all(line)?;
                if many && !line.ends_with(b"\n") {
                    stdout.write_all(b"\n")?;
                }
                stdout.flush()?;
            }
            Output::Json | Output::Yaml => {
                let text = String::from_utf8_lossy(line).trim_end_matches('\n').to_owned();
                print(output, &Line { node, text }, String::new)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_where_more_may_come() {
        let mut rest = b"one\ntwo\nthr".to_vec();
        assert_eq!(lines(&mut rest, true), [b"one\n", b"two\n"]);
        assert_eq!(rest, b"thr");
        assert_eq!(lines(&mut rest, true), Vec::<Vec<u8>>::new());
        assert_eq!(lines(&mut rest, false), [b"thr"]);
        assert!(rest.is_empty());
    }
}
