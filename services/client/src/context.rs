// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one cluster is reached with.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::prelude::{Engine, BASE64_STANDARD};
use dvs_authority::Authority;
use dvs_config::{Name, Token};
use dvs_secret::ClusterSecret;
use serde::{Deserialize, Serialize};

use crate::{at, Address, Client, Credentials, SPOKEN};

/// What stands in front of a context's file, for whoever opens it.
const HEAD: &str = "# Made by dvsctl. Keep it to yourself: whoever has the key may do everything with the cluster.\n";

/// Why there is no context, or it cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{attempt} {}: {source}", .path.display())]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why that failed.
        source: io::Error,
    },
    /// Something is wrong with it; for people.
    #[error("{0}")]
    Wrong(String),
}

/// Where the nodes of a cluster are, and what proves to them that its owner is an administrator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Name of the cluster.
    pub cluster: Name,
    /// Where its nodes are, in the order in which they are tried.
    pub endpoints: Vec<String>,
    /// From when on the certificate holds, as RFC 3339 has it.
    begins: String,
    /// When the certificate ends.
    expires: String,
    /// The certificate of the cluster's authority, as PEM.
    authority: String,
    /// The certificate of the owner, as PEM.
    certificate: String,
    /// Its key, as PEM.
    key: String,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Context {
    /// A new context for `owner`, which holds for `valid` from now on. Whoever has it may do everything but make another.
    ///
    /// # Errors
    /// When its certificate cannot be made.
    pub fn new(
        token: &Token,
        cluster: Name,
        endpoints: &[Address],
        owner: &str,
        valid: Duration,
    ) -> Result<Self, Error> {
        let made = Authority::derived(&ClusterSecret::new(token), &cluster.to_string())
            .and_then(|authority| authority.administrator(owner, SystemTime::now(), valid))
            .map_err(|error| {
                Error::Wrong(format!("make a certificate for cluster {cluster}: {error:#}"))
            })?;
        Ok(Self {
            cluster,
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            begins: at(made.begins),
            expires: at(made.expires),
            authority: pem("CERTIFICATE", &made.authority),
            certificate: pem("CERTIFICATE", &made.certificate),
            key: pem("PRIVATE KEY", &made.key),
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    pub(crate) fn to_toml(&self) -> Result<String, String> {
        toml::to_string(self).map(|text| HEAD.to_owned() + &text).map_err(|error| error.to_string())
    }

    /// The certificate of the authority, that of the owner, and its key, as PEM.
    pub fn pem(&self) -> [&str; 3] {
        [&self.authority, &self.certificate, &self.key]
    }

    /// When the certificate ends.
    ///
    /// # Errors
    /// When the file was changed, and there is no such time in it.
    pub fn expires(&self) -> Result<SystemTime, Error> {
        time("expires", &self.expires)
    }

    /// What nodes are shown. `name` is what the context is called.
    ///
    /// # Errors
    /// When the file was changed, and what is in it is none of that.
    pub fn credentials(&self, name: &str) -> Result<Credentials, Error> {
        let der = |what: &str, text: &str| {
            bytes(text).ok_or_else(|| Error::Wrong(format!("context {name}: its {what} is no PEM")))
        };
        let (config, server) = dvs_authority::client(
            &self.cluster.to_string(),
            &der("authority", &self.authority)?,
            &der("certificate", &self.certificate)?,
            &der("key", &self.key)?,
            SPOKEN,
        )
        .map_err(|error| Error::Wrong(format!("context {name}: {error:#}")))?;
        Ok(Credentials {
            config: Arc::new(config),
            name: server,
            context: name.to_owned(),
            begins: time("begins", &self.begins)?,
            expires: self.expires()?,
        })
    }

    /// Ways to all its nodes.
    ///
    /// # Errors
    /// When the file was changed, and what is in it is none of that.
    pub fn clients(&self, name: &str) -> Result<Vec<Client>, Error> {
        let credentials = self.credentials(name)?;
        let client = |text: &String| {
            let address: Address =
                text.parse().map_err(|error| Error::Wrong(format!("context {name}: {error}")))?;
            Ok(Client::new(address, Some(credentials.clone())))
        };
        self.endpoints.iter().map(client).collect()
    }
}

fn time(field: &str, text: &str) -> Result<SystemTime, Error> {
    humantime::parse_rfc3339(text)
        .map_err(|error| Error::Wrong(format!("{field} = `{text}` is no time: {error}")))
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

/// What is within the first two lines that begin with dashes.
fn bytes(pem: &str) -> Option<Vec<u8>> {
    let mut lines = pem.lines().map(str::trim).skip_while(|line| !line.starts_with("-----BEGIN "));
    lines.next()?;
    let text: String = lines.take_while(|line| !line.starts_with("-----END ")).collect();
    BASE64_STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(valid: Duration) -> Context {
        let token = "sixteen letters or more".parse().unwrap();
        let endpoints = ["h:1".parse().unwrap(), "[::1]".parse().unwrap()];
        Context::new(&token, "lab".parse().unwrap(), &endpoints, "somebody", valid).unwrap()
    }

    #[test]
    fn a_context_survives_its_file_and_has_no_token_in_it() {
        let context = context(Duration::from_secs(3600));
        let text = context.to_toml().unwrap();
        assert!(!text.contains("sixteen"), "{text}");
        let read = Context::parse(&text).unwrap();
        assert_eq!(read, context);
        let clients = read.clients("x").unwrap();
        let addresses: Vec<_> = clients.iter().map(|it| it.address().to_string()).collect();
        assert_eq!(addresses, ["https://h:1", "https://[::1]:7700"]);
        let left = read.expires().unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3500), "{left:?}");
        let error = Context::parse(&text.replace("expires", "expries")).unwrap_err();
        assert!(error.contains("expries"), "{error}");
        let changed = Context { key: "-----BEGIN x-----\n!\n".into(), ..context };
        let error = changed.clients("x").unwrap_err().to_string();
        assert_eq!(error, "context x: its key is no PEM");
    }
}
