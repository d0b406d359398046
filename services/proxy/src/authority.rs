// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who vouches for the proxies of a cluster, and how TLS makes sure of the peer.
//!
//! The cluster's authority is a key that every node derives from the join token, so that whoever knows the token can prove to be
//! a node, and nobody else can. A proxy makes a new key when it starts, which never leaves its memory, and a certificate for it that
//! names its node. Both ends verify that the other one's certificate is the authority's and names the node at the other end.
//!
//! No clock has a say in it, because the clock of a node without one that keeps time starts anywhere. Certificates hold for all
//! times (RFC 5280, 4.1.2.5, gives 9999-12-31 as the end for what has none), which they can since their keys live no longer than a
//! process, and are never resumed. What ends them all is another join token.

use crate::protection::Ends;
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

/// What is spoken inside of TLS, and its version. A later version offers this one as well.
pub const SPOKEN: &[u8] = b"dvs-link/2";

/// A PKCS #8 document of an Ed25519 key (RFC 8410, 7) up to the key.
const ED25519_HEAD: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Vouches for the proxies of one cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
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
        roots.add(params.self_signed(&key)?.der().clone())?;
        let issuer = Issuer::new(params, key);
        // No name of a cluster has a NUL in it.
        let reset = secret.key(Purpose::Authority, format!("{cluster}\0reset").as_bytes());
        Ok(Self { issuer, roots: roots.into(), cluster: cluster.to_owned(), reset })
    }

    /// A new identity for a node, to prove to another one who it is.
    ///
    /// # Errors
    /// When there is no randomness for a key, or its certificate cannot be made.
    pub fn identity(&self, ends: Ends) -> Result<Identity> {
        let key = KeyPair::generate_for(&PKCS_ED25519).context("making a key")?;
        let mut params = CertificateParams::new(vec![self.name(ends.own)])?;
        params.distinguished_name = named(&format!("node {} of {}", ends.own, self.cluster));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for_ever(&mut params);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate: certificate.der().clone(),
            key,
            peer: ServerName::try_from(self.name(ends.peer))?,
            roots: self.roots.clone(),
            reset: self.reset.clone(),
        })
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

/// What a proxy proves itself with, and whom it expects.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    peer: ServerName<'static>,
    roots: Arc<RootCertStore>,
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
    pub(crate) fn reset_key(&self) -> &Key {
        &self.reset
    }

    /// TLS for the end that connects.
    ///
    /// # Errors
    /// When the library refuses what it is given.
    pub fn client(&self) -> Result<ClientConfig> {
        let verifier =
            WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider()).build()?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(vec![self.certificate.clone()], self.key())?;
        config.alpn_protocols = vec![SPOKEN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// TLS for the end that is connected to.
    ///
    /// # Errors
    /// When the library refuses what it is given.
    pub fn server(&self) -> Result<ServerConfig> {
        let chain =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider()).build()?;
        let verifier = Arc::new(OnlyPeer { chain, peer: self.peer.clone() });
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.clone()], self.key())?;
        config.alpn_protocols = vec![SPOKEN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
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
        ) => "the peer's certificate is not of this cluster's authority: it has another join token, or is of a cluster with another name"
            .to_owned(),
        TlsError::AlertReceived(Alert::UnknownCA | Alert::DecryptError) => "the peer refuses this node's certificate: it has another \
             join token, or is of a cluster with another name"
            .to_owned(),
        TlsError::AlertReceived(Alert::BadCertificate | Alert::CertificateUnknown) => {
            "the peer refuses this node's certificate: it expects another node here".to_owned()
        }
        TlsError::NoApplicationProtocol | TlsError::AlertReceived(Alert::NoApplicationProtocol) => {
            "the peer is no dvs-proxy, or one of another version".to_owned()
        }
        TlsError::NoCertificatesPresented => {
            "the peer shows no certificate: it is no dvs-proxy of this cluster".to_owned()
        }
        other => format!("TLS with the peer failed: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConnection, ServerConnection};

    fn authority(token: &str, cluster: &str) -> Authority {
        Authority::derived(&ClusterSecret::new(&token.parse().unwrap()), cluster).unwrap()
    }

    const TOKEN: &str = "sixteen letters or more";

    /// What each end says of a handshake between them.
    fn shake(client: &Identity, server: &Identity) -> [Result<(), String>; 2] {
        let config = Arc::new(client.client().unwrap());
        let mut client = ClientConnection::new(config, client.peer()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server.server().unwrap())).unwrap();
        let mut ends = [Ok(()), Ok(())];
        for _ in 0..10 {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut bytes.as_slice()).unwrap();
            if let Err(error) = server.process_new_packets() {
                ends[1] = Err(explain(&error));
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut bytes.as_slice()).unwrap();
            if let Err(error) = client.process_new_packets() {
                ends[0] = Err(explain(&error));
            }
        }
        assert!(ends.iter().any(Result::is_err) || !client.is_handshaking());
        ends
    }

    fn identity(token: &str, cluster: &str, own: u32, peer: u32) -> Identity {
        authority(token, cluster).identity(Ends { own, peer }).unwrap()
    }

    #[test]
    fn nodes_of_a_cluster_prove_themselves_to_each_other() {
        let (one, two) = (identity(TOKEN, "lab", 1, 2), identity(TOKEN, "lab", 2, 1));
        assert_eq!(shake(&one, &two), [Ok(()), Ok(())]);
        assert_eq!(shake(&two, &one), [Ok(()), Ok(())]);
    }

    #[test]
    fn both_ends_say_why_they_do_not_trust_each_other() {
        let one = identity(TOKEN, "lab", 1, 2);
        for (stranger, why) in [
            (identity("seventeen letters or so", "lab", 2, 1), "another join token"),
            (identity(TOKEN, "bal", 2, 1), "another join token"),
            (identity(TOKEN, "lab", 3, 1), "node"),
        ] {
            for (client, server) in [(&one, &stranger), (&stranger, &one)] {
                let ends = shake(client, server);
                for end in ends {
                    let said = end.unwrap_err();
                    assert!(said.contains(why), "{said}");
                }
            }
        }
    }

    #[test]
    fn who_is_another_node_is_named() {
        let said = shake(&identity(TOKEN, "lab", 1, 2), &identity(TOKEN, "lab", 3, 1));
        let said = said[0].clone().unwrap_err();
        assert!(
            said.contains("not node-2.lab.dvs") && said.contains("be node-3.lab.dvs"),
            "{said}"
        );
        // And so is a node that expects another one, which is told to it.
        let said = shake(&identity(TOKEN, "lab", 1, 2), &identity(TOKEN, "lab", 2, 3));
        assert!(said[1].clone().unwrap_err().contains("node-1.lab.dvs"), "{said:?}");
        assert!(said[0].is_err() || said[1].is_err());
    }
}
