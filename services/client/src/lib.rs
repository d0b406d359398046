// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod address;
mod context;
mod folder;
mod stream;
mod transport;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use rustls::ClientConfig;

pub use address::{Address, ParseAddressError, SOCKET};
pub use context::{Context, Error};
pub use folder::{check_name, Folder, FOLDER_VARIABLE};
pub use stream::Stream;

/// What is spoken inside of TLS, as ALPN has it.
pub const SPOKEN: &[u8] = b"http/1.1";

/// What its owner proves to nodes that they may do everything.
#[derive(Clone)]
pub struct Credentials {
    /// TLS from their owner.
    pub config: Arc<ClientConfig>,
    /// By which name nodes of the cluster are known.
    pub name: ServerName<'static>,
    /// The context that they are of, for people.
    pub context: String,
    /// When they begin.
    pub begins: SystemTime,
    /// When they end.
    pub expires: SystemTime,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("context", &self.context).finish_non_exhaustive()
    }
}

/// A way to one node.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    credentials: Option<Credentials>,
}

impl Client {
    /// The way to the node at an address. Without credentials those at an address of TLS cannot be reached.
    pub fn new(address: Address, credentials: Option<Credentials>) -> Self {
        Self { address, credentials }
    }

    /// Where it leads.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Connects; what is spoken then is HTTP. The time is for each address that a name stands for.
    ///
    /// # Errors
    /// [`explain`](Self::explain) says why.
    pub fn connect(&self, patience: Duration) -> io::Result<Stream> {
        Stream::connect(&self.address, self.credentials.as_ref(), patience)
    }

    /// For requests one after the other, under URLs that begin with [`base`](Address::base).
    pub fn agent(&self, patience: Duration) -> ureq::Agent {
        transport::agent(self.clone(), patience)
    }

    /// Whether a connection failed because the two ends do not trust each other.
    pub fn is_of_trust(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
    }

    /// Why a connection failed or ended, for people: without the address, which the caller knows.
    pub fn explain(&self, error: &io::Error) -> String {
        use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as Tls};
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) else {
            return match (&self.address, error.kind()) {
                (Address::Socket(_), io::ErrorKind::NotFound) => {
                    "there is no such socket: dvsd does not run on this machine".to_owned()
                }
                (Address::Tls(_), io::ErrorKind::UnexpectedEof) => {
                    "the connection was closed: the node has just stopped, or what answers there is no node".to_owned()
                }
                _ => error.to_string(),
            };
        };
        let (context, times) = match &self.credentials {
            Some(of) => {
                (of.context.as_str(), format!("from {} to {}", at(of.begins), at(of.expires)))
            }
            None => ("none", String::new()),
        };
        let expired = self.credentials.as_ref().is_some_and(|of| of.expires <= SystemTime::now());
        match tls {
            Tls::AlertReceived(Alert::CertificateExpired) if expired => format!(
                "the certificate of context {context} was valid {times}: make another with `dvsctl context renew {context} \
                 --token-file FILE`"
            ),
            Tls::AlertReceived(Alert::CertificateExpired) => format!(
                "by the node's clock the certificate of context {context} is not valid now, and it is valid {times}: set the \
                 clock of the node, or that of this machine and make the certificate anew with `dvsctl context renew {context}`"
            ),
            Tls::AlertReceived(
                Alert::UnknownCA | Alert::DecryptError | Alert::BadCertificate | Alert::CertificateUnknown,
            ) => format!(
                "the node does not know the authority of context {context}: it is of another cluster, or the cluster has another \
                 cluster token since; see `dvsctl context renew {context}`"
            ),
            Tls::AlertReceived(Alert::AccessDenied) => format!(
                "the certificate of context {context} is of this cluster, but not an administrator's"
            ),
            Tls::AlertReceived(Alert::CertificateRequired) => {
                "the node wants a certificate of an administrator: see `dvsctl context add --help`".to_owned()
            }
            Tls::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => format!(
                "what answers there is not vouched for by the authority of context {context}: it is a node of another cluster, or \
                 the cluster has another cluster token since; see `dvsctl context renew {context}`"
            ),
            Tls::InvalidCertificate(Certificate::NotValidForNameContext { .. }) => {
                "what answers there is vouched for by this cluster's authority, but is no node".to_owned()
            }
            Tls::InvalidMessage(_) => {
                "what answers there does not speak TLS: it is no node, or one without a cluster token, which speaks plain HTTP on \
                 its own machine only"
                    .to_owned()
            }
            other => format!("TLS with the node failed: {other}"),
        }
    }
}

/// A moment, as people in all places read it.
fn at(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
