//! A certificate authority of the tests' own.

use std::path::Path;
use std::sync::Arc;

use nchf::tls::Identity;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// A CA, and certificates of it.
pub struct Authority {
    ca: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // Another name than those that it issues: OpenSSL takes a certificate that bears its issuer's for self-signed.
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { ca: params.self_signed(&key).unwrap(), issuer: rcgen::Issuer::new(params, key) }
    }

    /// Certificate and key for a name or an address, as PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// The authority's certificate as a file.
    pub fn file(&self, directory: &Path) -> std::path::PathBuf {
        let path = directory.join("ca.pem");
        std::fs::write(&path, self.ca.pem()).unwrap();
        path
    }

    pub fn identity(&self, directory: &Path) -> Identity {
        self.identity_of("chf", directory)
    }

    /// A certificate for a name or an address, and its key, as files.
    pub fn identity_of(&self, name: &str, directory: &Path) -> Identity {
        let (certificate_pem, key_pem) = self.issue(name);
        let (certificate, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}-key.pem")));
        std::fs::write(&certificate, certificate_pem).unwrap();
        std::fs::write(&key, key_pem).unwrap();
        Identity { certificate, key }
    }

    /// A server called `name` that offers `alpn`, and lets in whoever has a certificate of `clients`.
    pub fn acceptor(&self, name: &str, alpn: &[&[u8]], clients: Option<&Authority>) -> TlsAcceptor {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(clients.ca.pem().as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificate, key) = self.issue(name);
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}
