// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an administrator proves itself with to the API of nodes.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rcgen::{
    date_time_ymd, CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ED25519,
};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use super::role::Role;
use super::{named, provider, Authority, ED25519_HEAD};

/// How much earlier than now a certificate begins to hold, since the clocks of nodes may be behind.
const EARLIER: Duration = Duration::from_secs(24 * 3600);

/// Access for somebody: unlike that of nodes it ends by itself, since it lies in a file. DER throughout.
#[derive(Clone)]
pub struct Administrator {
    /// The certificate of the authority, which tells nodes of the cluster from others.
    pub authority: Vec<u8>,
    /// The certificate of the administrator.
    pub certificate: Vec<u8>,
    /// Its key, as PKCS #8.
    pub key: Vec<u8>,
    /// From when on the certificate holds.
    pub begins: SystemTime,
    /// When it ends.
    pub expires: SystemTime,
}

impl std::fmt::Debug for Administrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Administrator").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Authority {
    /// Access for `name`, as people call them, for `valid` from `now` on.
    ///
    /// # Errors
    /// When there is no randomness for a key, or its certificate cannot be made.
    pub fn administrator(
        &self,
        name: &str,
        now: SystemTime,
        valid: Duration,
    ) -> Result<Administrator> {
        // A certificate counts seconds.
        let seconds =
            now.duration_since(UNIX_EPOCH).context("this machine's clock is before 1970")?;
        let now = Duration::from_secs(seconds.as_secs());
        let (begins, expires) = (now.saturating_sub(EARLIER), now + valid);
        // Not as the library makes one: it adds the public key (RFC 5958), which other programs that are to use it cannot read.
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).context("making a key")?;
        let document = [&ED25519_HEAD[..], &seed[..]].concat();
        let own = PrivatePkcs8KeyDer::from(document.clone());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&own, &PKCS_ED25519)?;
        let mut params = CertificateParams::new(vec![Role::Administrator.name(&self.cluster)])?;
        params.distinguished_name = named(&format!("administrator {name} of {}", self.cluster));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(1970, 1, 1) + begins;
        params.not_after = date_time_ymd(1970, 1, 1) + expires;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Administrator {
            authority: self.certificate.to_vec(),
            certificate: certificate.der().to_vec(),
            key: document,
            begins: UNIX_EPOCH + begins,
            expires: UNIX_EPOCH + expires,
        })
    }
}

/// TLS from an administrator to any node of the cluster, which is called by the name that comes with it.
///
/// # Errors
/// When these are no certificates and no key, in DER, or the cluster's name can be no part of one.
pub fn client(
    cluster: &str,
    authority: &[u8],
    certificate: &[u8],
    key: &[u8],
    spoken: &'static [u8],
) -> Result<(ClientConfig, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.to_vec())).context("the authority's certificate")?;
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(vec![CertificateDer::from(certificate.to_vec())], key)
        .context("the administrator's certificate and key")?;
    config.alpn_protocols = vec![spoken.to_vec()];
    config.resumption = Resumption::disabled();
    // Nodes have no names but that one.
    config.enable_sni = false;
    Ok((config, Role::Node.server_name(cluster)?))
}
