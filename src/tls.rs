//! TLS towards others: whom to trust, and what to show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore};

/// A client certificate, as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, followed by its chain.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Identity {
    /// `None` unless both are there.
    pub fn of(certificate: &Option<PathBuf>, key: &Option<PathBuf>) -> Option<Self> {
        let (certificate, key) = certificate.clone().zip(key.clone())?;
        Some(Self { certificate, key })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {reason}")]
    Pem { path: PathBuf, reason: pem::Error },
    #[error("{path}: no usable certificate in this file")]
    NoCertificate { path: PathBuf },
    #[error("certificate {certificate} with key {key}: {reason}")]
    Unusable { certificate: PathBuf, key: PathBuf, reason: rustls::Error },
    #[error("TLS: {0}")]
    Versions(rustls::Error),
    #[error("no certificate can name the host {host}")]
    Unnamed { host: String },
}

/// Where systems keep the authorities that they trust, the first that is there being it.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Trusts the authorities of the file `ca`, or the system's, and offers `protocols` and nothing else, where there are
/// any.
///
/// # Errors
///
/// A file that cannot be read, or holds nothing of use.
pub fn connector(
    ca: Option<&Path>,
    identity: Option<&Identity>,
    protocols: &[&[u8]],
) -> Result<TlsConnector, TlsError> {
    let roots = match ca {
        Some(path) => configured(path)?,
        None => system(),
    };
    // The provider is named, so that a second one in the dependency tree changes nothing.
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let pem = |reason| TlsError::Pem { path: key.clone(), reason };
            let private = PrivateKeyDer::from_pem_file(key).map_err(pem)?;
            let unusable = |reason| TlsError::Unusable { certificate: certificate.clone(), key: key.clone(), reason };
            builder.with_client_auth_cert(certificates(certificate)?, private).map_err(unusable)?
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// An authority that cannot be used is an operator's mistake; to skip it would refuse its peers without a word.
fn configured(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|_| TlsError::NoCertificate { path: path.to_owned() })?;
    }
    Ok(roots)
}

/// Without a bundle nobody is trusted, and connections fail and say so.
fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    if let Some(found) = SYSTEM_BUNDLES.iter().find_map(|path| certificates(Path::new(path)).ok()) {
        roots.add_parsable_certificates(found);
    }
    roots
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<_, _>>())
        .map_err(|reason| TlsError::Pem { path: path.to_owned(), reason })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

/// Why a handshake failed, if TLS was the cause. The library's own words name hosts, so they are not repeated.
/// `authorities` is the setting that names whom we trust.
pub fn failure(error: &std::io::Error, authorities: Authorities) -> Option<&'static str> {
    let error = tls_error(error)?;
    Some(match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => authorities.unknown_issuer(),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate names another host"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
            _ => "the certificate is not acceptable",
        },
        rustls::Error::AlertReceived(_) => "the peer refused the handshake",
        rustls::Error::InvalidMessage(_) => "the peer does not speak TLS",
        _ => "the handshake failed",
    })
}

/// Why a connection does not speak HTTP/2 through TLS.
#[derive(Debug)]
pub enum NoHttp2 {
    /// The peer speaks other protocols, or does not say which.
    NotAgreed,
    Handshake(std::io::Error),
}

/// Shakes hands over a socket, and sees to it that HTTP/2 was agreed on. `connector` offers it.
pub async fn over<S>(connector: &TlsConnector, name: ServerName<'static>, socket: S) -> Result<TlsStream<S>, NoHttp2>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const NO_PROTOCOL: rustls::Error = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    match connector.connect(name, socket).await {
        Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => Ok(stream),
        Ok(_) => Err(NoHttp2::NotAgreed),
        Err(error) if tls_error(&error) == Some(&NO_PROTOCOL) => Err(NoHttp2::NotAgreed),
        Err(error) => Err(NoHttp2::Handshake(error)),
    }
}

/// The library's error behind one of a connection.
fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Which setting says whom to trust.
#[derive(Clone, Copy, Debug)]
pub enum Authorities {
    Notify,
    Store,
    Bench,
}

impl Authorities {
    const fn unknown_issuer(self) -> &'static str {
        match self {
            Self::Notify => "the certificate's issuer is not among those of notify.ca",
            Self::Store => "the certificate's issuer is not among those of store.ca",
            Self::Bench => "the certificate's issuer is not among those of --ca",
        }
    }
}
