// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the holder of a certificate may be, besides itself.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName as Subject, Error as TlsError,
    SignatureScheme,
};

/// A role is a name that the certificates of all who have it share. The authority vouches for several, and whoever verifies
/// asks for the one that it means: an administrator is no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Node,
    Administrator,
}

impl Role {
    pub(super) fn name(self, cluster: &str) -> String {
        match self {
            Self::Node => format!("node.{cluster}.dvs"),
            Self::Administrator => format!("admin.{cluster}.dvs"),
        }
    }

    pub(super) fn server_name(self, cluster: &str) -> Result<ServerName<'static>> {
        let name = self.name(cluster);
        ServerName::try_from(name.clone()).with_context(|| format!("{name} is no name of a role"))
    }
}

/// Verifies that who connects has one of some roles.
#[derive(Debug)]
pub(super) struct OnlyRoles {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) names: Vec<ServerName<'static>>,
}

impl ClientCertVerifier for OnlyRoles {
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
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let has = |name| verify_server_name(&certificate, name).is_ok();
        match self.names.iter().any(has) {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
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
