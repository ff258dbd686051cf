//! Why a consumer cannot be reached through TLS.

use tokio_rustls::rustls::{self, AlertDescription};

use super::outcome::Failure;
use crate::tls::{self, Authorities};

pub(super) fn failure(error: &std::io::Error) -> Failure {
    if let Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) = tls::tls_error(error) {
        return Failure::NotHttp2;
    }
    tls::failure(error, Authorities::Notify).map_or(Failure::Lost, Failure::Tls)
}
