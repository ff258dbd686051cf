//! Why a consumer cannot be reached through TLS.

use super::outcome::Failure;
use crate::tls::{self, Authorities};

pub(super) fn failure(error: &std::io::Error) -> Failure {
    if tls::is_no_protocol(error) {
        return Failure::NotHttp2;
    }
    tls::failure(error, Authorities::Notify).map_or(Failure::Lost, Failure::Tls)
}
