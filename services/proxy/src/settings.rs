// SPDX-License-Identifier: MIT OR Apache-2.0
//! What PID 1 and `dvsd` left for a proxy: the machine configuration, and which node this is.

use crate::protection::{Keys, Protection};
use anyhow::{bail, Context, Result};
use dvs_api::Status;
use dvs_authority::Authority;
use dvs_config::{Config, Source};
use dvs_secret::ClusterSecret;
use std::fs;
use std::path::Path;

/// What a proxy has to know beside its arguments.
#[derive(Debug)]
pub struct Settings {
    /// How links are protected in this cluster.
    pub protection: Protection,
    /// What the cluster's proxies prove themselves by; `None` where there is no cluster token.
    pub authority: Option<Authority>,
    /// This node's id.
    pub node: u32,
}

impl Settings {
    /// Reads `config.toml` and `status.json` in `directory`.
    ///
    /// # Errors
    /// When they cannot be read, this node is in no cluster yet, or the cluster has no secret.
    pub fn read(directory: &Path) -> Result<Self> {
        let text = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let source = Source::File(directory.join("config.toml"));
        let config = Config::from_sources(&[(source, text("config.toml")?)])
            .context("reading the machine configuration")?;
        let path = directory.join("status.json");
        let status: Status = serde_json::from_str(&text("status.json")?)
            .with_context(|| format!("{} is not as dvsd writes it", path.display()))?;
        let Some(node) = status.node else {
            bail!(
                "{} says that this node is in no cluster yet; start the proxy when it is",
                path.display()
            );
        };
        let cluster = config.cluster.name.as_str().to_owned();
        let secret = config.cluster.token.as_ref().map(ClusterSecret::new);
        let authority = secret
            .as_ref()
            .map(|secret| Authority::derived(secret, &cluster))
            .transpose()
            .context("deriving the cluster's authority from its cluster token")?;
        let protection = match (config.cluster.insecure, secret) {
            (true, _) => Protection::Clear,
            (false, Some(secret)) => Protection::Sealed(Keys::new(secret, cluster)),
            (false, None) => bail!(
                "there is no cluster.token in {} to protect the link with; set one on all nodes, or cluster.insecure = true on all \
                 nodes for a link that anybody on its path can read and change",
                directory.join("config.toml").display()
            ),
        };
        Ok(Self { protection, authority, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvs_api::StatusState;

    fn read(config: &str, node: Option<u32>) -> Result<Settings> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.toml"), config).unwrap();
        let status = Status {
            node,
            name: None,
            cluster: "dvs".into(),
            state: StatusState::Ready,
            detail: String::new(),
            members: 2,
            ready: 2,
            addresses: Vec::new(),
            version: "1".into(),
        };
        fs::write(directory.path().join("status.json"), serde_json::to_vec(&status).unwrap())
            .unwrap();
        Settings::read(directory.path())
    }

    const TOKEN: &str = "[cluster]\ntoken = 'sixteen letters or more'\n";

    #[test]
    fn links_are_protected_unless_the_cluster_is_said_to_be_insecure() {
        let settings = read(TOKEN, Some(3)).unwrap();
        assert!(matches!(settings.protection, Protection::Sealed(_)));
        assert_eq!((settings.node, settings.authority.is_some()), (3, true));
        let insecure = read(&format!("{TOKEN}insecure = true\n"), Some(3)).unwrap();
        assert!(matches!(insecure.protection, Protection::Clear) && insecure.authority.is_some());
        let tokenless = read("[cluster]\ninsecure = true\n", Some(3)).unwrap();
        assert!(matches!(tokenless.protection, Protection::Clear) && tokenless.authority.is_none());
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = format!("{:#}", read("", Some(3)).unwrap_err());
        assert!(error.contains("cluster.token") && error.contains("cluster.insecure"), "{error}");
        let error = format!("{:#}", read(TOKEN, None).unwrap_err());
        assert!(error.contains("no cluster yet"), "{error}");
        let error = format!("{:#}", Settings::read(Path::new("/nowhere")).unwrap_err());
        assert!(error.contains("/nowhere/config.toml"), "{error}");
    }
}
