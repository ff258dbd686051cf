//! Who may use the operator's side: everybody on a loopback address, elsewhere whoever has the token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::ProblemDetails;

/// The bearer token, where one is configured.
#[derive(Clone)]
pub struct Token(Option<Arc<str>>);

impl Token {
    pub fn new(token: Option<&str>) -> Self {
        Self(token.map(Into::into))
    }

    fn admits(&self, request: &Request) -> bool {
        let Some(token) = &self.0 else { return true };
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        given.is_some_and(|(_, given)| same(token.as_bytes(), given.trim().as_bytes()))
    }
}

/// Compares without an early exit, so that the time it takes tells nothing about how much of a guess was right.
fn same(one: &[u8], other: &[u8]) -> bool {
    let different = one.iter().zip(other).fold(0u8, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && different == 0
}

/// Asks for the token on every path but those of the health checks.
pub async fn required(State(token): State<Token>, request: Request, next: Next) -> Response {
    let is_health = matches!(request.uri().path(), "/livez" | "/readyz");
    if is_health || token.admits(&request) {
        return next.run(request).await;
    }
    let problem = ProblemDetails::plain(StatusCode::UNAUTHORIZED).with_detail("the operator's token is needed");
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"nchf\""));
    response
}
