// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use dvs_secret::{ClusterSecret, Key, Purpose};
use rcgen::{
    date_time_ymd, BasicConstraints, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{verify_server_name, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName as Subject, Error as TlsError,
    RootCertStore, ServerConfig, SignatureScheme,
};
use std::fmt;
use std::sync::Arc;

mod administrator;
mod role;

pub use administrator::{client, Administrator};
use role::{OnlyRoles, Role};

/// A PKCS #8 document of an Ed25519 key (RFC 8410, 7) up to the key.
const ED25519_HEAD: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Vouches for the nodes of one cluster, and for its administrators.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    roots: Arc<RootCertStore>,
    cluster: String,
    reset: Key,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of the cluster with this name, which all derive who know the secret.
    ///
    /// # Errors
    /// When the key or its certificate cannot be made.
    pub fn derived(secret: &ClusterSecret, cluster: &str) -> Result<Self> {
        let seed = secret.key(Purpose::Authority, cluster.as_bytes());
        let document = [&ED25519_HEAD[..], &seed[..]].concat();
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(document),
            &PKCS_ED25519,
        )?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("dvs authority of {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        for_ever(&mut params);
        let mut roots = RootCertStore::empty();
        let certificate = params.self_signed(&key)?.der().clone();
        roots.add(certificate.clone())?;
        let issuer = Issuer::new(params, key);
        // No name of a cluster has a NUL in it.
        let reset = secret.key(Purpose::Authority, format!("{cluster}\0reset").as_bytes());
        Ok(Self { issuer, certificate, roots: roots.into(), cluster: cluster.to_owned(), reset })
    }

    /// A new identity for node `own`, to prove to node `peer` who it is. `spoken` is what they speak inside of TLS, and its version.
    ///
    /// # Errors
    /// When there is no randomness for a key, or its certificate cannot be made.
    pub fn identity(&self, own: u32, peer: u32, spoken: &'static [u8]) -> Result<Identity> {
        let proof = self.proof(Some(own), spoken)?;
        let peer = self.server_name(peer)?;
        Ok(Identity { proof, peer, reset: self.reset.clone() })
    }

    /// A new identity for node `own`, to prove to any node of the cluster who it is.
    ///
    /// # Errors
    /// The same.
    pub fn open_identity(&self, own: u32, spoken: &'static [u8]) -> Result<OpenIdentity> {
        Ok(OpenIdentity { proof: self.proof(Some(own), spoken)?, any: self.only(&[Role::Node])? })
    }

    /// TLS for the API of node `own`, or of one that has no id yet: to nodes of the cluster and to its administrators. `spoken` is
    /// what is spoken inside of it.
    ///
    /// # Errors
    /// The same.
    pub fn api_server(&self, own: Option<u32>, spoken: &'static [u8]) -> Result<ServerConfig> {
        let verifier = self.only(&[Role::Node, Role::Administrator])?;
        self.proof(own, spoken)?.server(verifier)
    }

    /// By which name a node is known.
    ///
    /// # Errors
    /// When the name of the cluster cannot be part of one.
    pub fn server_name(&self, node: u32) -> Result<ServerName<'static>> {
        let name = self.name(node);
        ServerName::try_from(name.clone()).with_context(|| format!("{name} is no name for a node"))
    }

    /// Lets in who has one of these roles.
    fn only(&self, roles: &[Role]) -> Result<Arc<dyn ClientCertVerifier>> {
        let names: Result<Vec<_>> =
            roles.iter().map(|role| role.server_name(&self.cluster)).collect();
        Ok(Arc::new(OnlyRoles { chain: chain(&self.roots)?, names: names? }))
    }

    fn proof(&self, own: Option<u32>, spoken: &'static [u8]) -> Result<Proof> {
        let key = KeyPair::generate_for(&PKCS_ED25519).context("making a key")?;
        // Whom it is compared with is told the names in this order.
        let role = Role::Node.name(&self.cluster);
        let names: Vec<_> = own.map(|own| self.name(own)).into_iter().chain([role]).collect();
        let mut params = CertificateParams::new(names)?;
        let who = own.map_or_else(|| "a node".to_owned(), |own| format!("node {own}"));
        params.distinguished_name = named(&format!("{who} of {}", self.cluster));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for_ever(&mut params);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Proof { certificate: certificate.der().clone(), key, roots: self.roots.clone(), spoken })
    }

    /// What a node's certificate says.
    fn name(&self, node: u32) -> String {
        format!("node-{node}.{}.dvs", self.cluster)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn for_ever(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
}

/// What a node proves itself with.
struct Proof {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    roots: Arc<RootCertStore>,
    spoken: &'static [u8],
}

impl Proof {
    /// The server is verified to be the one whose name it is called by.
    fn client(&self) -> Result<ClientConfig> {
        let verifier =
            WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider()).build()?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(vec![self.certificate.clone()], self.key())?;
        config.alpn_protocols = vec![self.spoken.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn server(&self, verifier: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.clone()], self.key())?;
        config.alpn_protocols = vec![self.spoken.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

/// What a proxy proves itself with, and whom it expects.
pub struct Identity {
    proof: Proof,
    peer: ServerName<'static>,
    reset: Key,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Identity {
    /// By which name the peer is known.
    pub fn peer(&self) -> ServerName<'static> {
        self.peer.clone()
    }

    /// By which one who has lost a connection proves it to the other end. All proxies of a cluster know it; it does no more than end
    /// connections.
    pub fn reset_key(&self) -> &Key {
        &self.reset
    }

    /// TLS for the end that connects.
    ///
    /// # Errors
    /// When the library refuses what it is given.
    pub fn client(&self) -> Result<ClientConfig> {
        self.proof.client()
    }

    /// TLS for the end that is connected to.
    ///
    /// # Errors
    /// When the library refuses what it is given.
    pub fn server(&self) -> Result<ServerConfig> {
        let chain = chain(&self.proof.roots)?;
        self.proof.server(Arc::new(OnlyPeer { chain, peer: self.peer.clone() }))
    }
}

/// What a node proves itself with to any other one.
pub struct OpenIdentity {
    proof: Proof,
    any: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for OpenIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenIdentity")
    }
}

impl OpenIdentity {
    /// TLS for the end that connects. It calls a node by its [name](Authority::server_name), which is verified.
    ///
    /// # Errors
    /// When the library refuses what it is given.
    pub fn client(&self) -> Result<ClientConfig> {
        self.proof.client()
    }

    /// TLS for the end that is connected to, by any node of the cluster.
    ///
    /// # Errors
    /// When the library refuses what it is given.
    pub fn server(&self) -> Result<ServerConfig> {
        self.proof.server(Arc::clone(&self.any))
    }
}

/// Verifies that a client's certificate is of the authority.
fn chain(roots: &Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>> {
    Ok(WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build()?)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Verifies that who connects is the peer: what the library does for the other direction by itself.
#[derive(Debug)]
struct OnlyPeer {
    chain: Arc<dyn ClientCertVerifier>,
    peer: ServerName<'static>,
}

impl ClientCertVerifier for OnlyPeer {
    fn root_hint_subjects(&self) -> &[Subject] {
        // There is one authority; strangers need not hear its name.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.peer)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Why there is no TLS with the peer, for people.
pub fn explain(error: &TlsError) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate};
    match error {
        TlsError::InvalidCertificate(Certificate::NotValidForNameContext {
            expected,
            presented,
        }) => {
            let presented: Vec<_> =
                presented.iter().map(|name| name.trim_start_matches("DnsName(").trim_matches(['"', ')'])).collect();
            format!("the peer is not {}: it proves to be {}", expected.to_str(), presented.join(", "))
        }
        TlsError::InvalidCertificate(
            Certificate::UnknownIssuer | Certificate::BadSignature,
        ) => "the peer's certificate is not of this cluster's authority: it has another cluster token, or is of a cluster with another name"
            .to_owned(),
        TlsError::AlertReceived(Alert::UnknownCA | Alert::DecryptError) => "the peer refuses this node's certificate: it has another \
             cluster token, or is of a cluster with another name"
            .to_owned(),
        TlsError::AlertReceived(Alert::BadCertificate | Alert::CertificateUnknown) => {
            "the peer refuses this node's certificate: it expects another node here".to_owned()
        }
        TlsError::InvalidCertificate(Certificate::ApplicationVerificationFailure) => {
            "the peer's certificate is of this cluster, but is not for this".to_owned()
        }
        TlsError::InvalidCertificate(
            Certificate::Expired | Certificate::ExpiredContext { .. },
        ) => "the peer's certificate has ended, or this machine's clock is off".to_owned(),
        TlsError::InvalidCertificate(
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. },
        ) => "the peer's certificate does not hold yet, or this machine's clock is off".to_owned(),
        TlsError::NoApplicationProtocol | TlsError::AlertReceived(Alert::NoApplicationProtocol) => {
            "the peer speaks something else here, or another version of it".to_owned()
        }
        TlsError::NoCertificatesPresented => {
            "the peer shows no certificate: it is no node of this cluster".to_owned()
        }
        other => format!("TLS with the peer failed: {other}"),
    }
}

#[cfg(test)]
mod tests;
