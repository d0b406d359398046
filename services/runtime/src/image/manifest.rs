// SPDX-License-Identifier: MIT OR Apache-2.0
//! The documents of an image (the OCI image specification; and `manifest.json` of older archives). They are others' formats,
//! so keys that are not known are passed over.

use std::collections::BTreeMap;

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

/// What this node can run, in the words of images.
const ARCHITECTURE: &str = "amd64";
const SYSTEM: &str = "linux";

/// What a blob is, where it is and how long it is.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// `index.json`, or an index that it leads to.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    manifests: Vec<Descriptor>,
}

/// The parts of an image.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// One of the images of an archive of the older format: names of files in it.
#[derive(Debug, Deserialize)]
pub(super) struct OldManifest {
    #[serde(rename = "Config")]
    pub(super) config: String,
    #[serde(rename = "Layers")]
    pub(super) layers: Vec<String>,
}

/// How an image is to be run.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    architecture: String,
    os: String,
    #[serde(default)]
    config: Execution,
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct Execution {
    #[serde(rename = "Env")]
    env: Option<Vec<String>>,
    #[serde(rename = "Entrypoint")]
    entrypoint: Option<Vec<String>>,
    #[serde(rename = "Cmd")]
    cmd: Option<Vec<String>>,
    #[serde(rename = "WorkingDir")]
    working_directory: Option<String>,
    #[serde(rename = "User")]
    user: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// What an image says of the processes that run in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Its directory.
    pub directory: Option<String>,
    /// Whose name or number it runs as.
    pub user: Option<String>,
}

impl Descriptor {
    /// The digest in hexadecimal.
    pub(super) fn sha256(&self) -> Result<&str> {
        sha256_of(&self.digest)
    }
}

/// The hexadecimal part of a digest, which becomes the name of a file.
fn sha256_of(digest: &str) -> Result<&str> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    hex.with_context(|| format!("reading the image: {digest:?} is no SHA-256 digest"))
}

impl Index {
    /// The image for this node.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub(super) fn choose(&self) -> Result<&Descriptor> {
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_none_or(|platform| {
                platform.architecture == ARCHITECTURE && platform.os == SYSTEM
            })
        };
        let mut fitting = self.manifests.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => bail!(
                "reading the image: the archive holds several for {SYSTEM}/{ARCHITECTURE}; pack one"
            ),
            (None, _) => {
                bail!("reading the image: the archive holds none for {SYSTEM}/{ARCHITECTURE}")
            }
        }
    }
}

impl Config {
    /// The digests of the uncompressed layers, for an image of so many layers that this node can run.
    ///
    /// # Errors
    /// When it is another one.
    pub(super) fn layers(&self, count: usize) -> Result<Vec<&str>> {
        ensure!(
            self.architecture == ARCHITECTURE && self.os == SYSTEM,
            "reading the image: it is for {}/{}, and this node is {SYSTEM}/{ARCHITECTURE}",
            self.os,
            self.architecture
        );
        let digests = &self.rootfs.diff_ids;
        ensure!(
            digests.len() == count,
            "reading the image: it has {count} layers and digests of {}",
            digests.len()
        );
        digests.iter().map(|digest| sha256_of(digest)).collect()
    }

    /// What it says of processes.
    ///
    /// # Errors
    /// When a variable has no value.
    pub(super) fn defaults(&self) -> Result<Defaults> {
        let Execution { env, entrypoint, cmd, working_directory, user } = &self.config;
        let mut environment = BTreeMap::new();
        for variable in env.iter().flatten() {
            let (name, value) = variable.split_once('=').with_context(|| {
                format!("reading the image: the variable {variable:?} has no value")
            })?;
            environment.insert(name.to_owned(), value.to_owned());
        }
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(Defaults {
            command: entrypoint.iter().chain(cmd).flatten().cloned().collect(),
            environment,
            directory: given(working_directory),
            user: given(user),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[Option<(&str, &str)>]) -> Index {
        let manifest = |platform: &Option<(&str, &str)>| match platform {
            Some((os, architecture)) => format!(
                r#"{{"digest": "sha256:0", "size": 1, "platform": {{"os": "{os}", "architecture": "{architecture}"}}}}"#
            ),
            None => r#"{"digest": "sha256:1", "size": 1}"#.to_owned(),
        };
        let manifests: Vec<_> = platforms.iter().map(manifest).collect();
        serde_json::from_str(&format!("{{\"manifests\": [{}]}}", manifests.join(","))).unwrap()
    }

    #[test]
    fn the_image_for_this_node_is_chosen() {
        let ours = Some(("linux", "amd64"));
        let others = [Some(("linux", "arm64")), Some(("unknown", "unknown"))];
        assert!(index(&[others[0], ours, others[1]]).choose().is_ok());
        assert!(index(&[None]).choose().is_ok());
        assert!(index(&others).choose().is_err());
        assert!(index(&[]).choose().is_err());
        assert!(index(&[None, ours]).choose().is_err());
    }

    #[test]
    fn a_digest_can_be_the_name_of_a_file() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(sha256_of(&format!("sha256:{hex}")).unwrap(), hex);
        for bad in [
            "sha256:../../etc/passwd",
            "sha512:00",
            &hex,
            &format!("sha256:{}", hex.to_uppercase()),
        ] {
            assert!(sha256_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_an_image_says_of_processes() {
        let text = r#"{"architecture": "amd64", "os": "linux", "more": 1,
            "config": {"Env": ["A=b=c", "D="], "Entrypoint": ["/run"], "Cmd": ["-v"], "WorkingDir": ""},
            "rootfs": {"type": "layers", "diff_ids": []}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let defaults = config.defaults().unwrap();
        assert_eq!(defaults.command, ["/run", "-v"]);
        assert_eq!(defaults.environment["A"], "b=c");
        assert_eq!(defaults.environment["D"], "");
        assert_eq!(defaults.directory, None);
        assert!(config.layers(0).unwrap().is_empty());
        assert!(config.layers(1).is_err());
        let other: Config = serde_json::from_str(&text.replace("amd64", "riscv64")).unwrap();
        assert!(other.layers(0).unwrap_err().to_string().contains("riscv64"));
    }
}
