// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl config`: the machine configuration of nodes.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use dvs_api::MachineConfig;
use dvs_config::{Config, Source};
use serde::Serialize;

use crate::arguments::{ConfigCommand, Output};
use crate::cluster::Cluster;
use crate::{print, Failure};

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &ConfigCommand,
) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Show { node } => {
            let config: MachineConfig = match node {
                Some(node) => cluster.node(*node)?.get("/v1/config")?,
                None => cluster.any("/v1/config")?,
            };
            print(output, &config, || match config.has_token {
                true => format!("# cluster.token is set, and not shown\n{}", config.toml),
                false => config.toml.clone(),
            })?;
            Ok(ExitCode::SUCCESS)
        }
        ConfigCommand::Validate { file } => validate(output, file),
    }
}

#[derive(Serialize)]
struct Validity {
    file: String,
    valid: bool,
    error: Option<String>,
}

/// Whether a file is a machine configuration.
pub(crate) fn validate(output: Output, file: &Path) -> Result<ExitCode, Failure> {
    let text = match file == Path::new("-") {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    };
    let name = file.display().to_string();
    let text = text.map_err(|error| Failure::Refused(format!("read {name}: {error}")))?;
    let checked = Config::from_sources(&[(Source::File(file.to_owned()), text)]);
    let error = checked.err().map(|error| error.to_string());
    if let (Output::Table | Output::Wide, Some(error)) = (output, &error) {
        return Err(Failure::Refused(error.clone()));
    }
    let validity = Validity { file: name, valid: error.is_none(), error };
    print(output, &validity, || format!("{} is a machine configuration\n", validity.file))?;
    Ok(if validity.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
