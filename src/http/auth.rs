//! Who may use the operator's side: everybody on a loopback address, elsewhere whoever has the token.
//!
//! Programs send it as a bearer token. A browser cannot; it asks its user for a name and a password and sends these
//! (RFC 7617): the token is the password, the name is whatever the user likes. What a browser then adds to requests of
//! other sites does no harm: every change needs a JSON body or another method than POST, which no browser sends across
//! sites unasked.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

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
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, given)) = header.and_then(|value| value.split_once(' ')) else { return false };
        if scheme.eq_ignore_ascii_case("bearer") {
            same(token.as_bytes(), given.trim().as_bytes())
        } else if scheme.eq_ignore_ascii_case("basic") {
            password(given.trim()).is_some_and(|given| same(token.as_bytes(), &given))
        } else {
            false
        }
    }
}

/// What follows the name in the credentials of a browser.
fn password(credentials: &str) -> Option<Vec<u8>> {
    let mut decoded = BASE64.decode(credentials).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded.split_off(colon.saturating_add(1)))
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
    for scheme in ["Bearer realm=\"nchf\"", "Basic realm=\"nchf\", charset=\"UTF-8\""] {
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn ask(token: Option<&str>, path: &str, authorization: Option<&str>) -> Response {
        let routes = ["/admin/v1/accounts/1", "/livez", "/readyz"];
        let router = routes.iter().fold(Router::new(), |router, path| router.route(path, get(async || "here")));
        let mut request = Request::builder().uri(path);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let router = router.layer(from_fn_with_state(Token::new(token), required));
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn the_token_opens_as_a_bearer_token_and_as_the_password_of_anybody() {
        // `operator:secret`, `:secret`, `secret`, `operator:wrong` in base64.
        for (authorization, admitted) in [
            (Some("Bearer secret"), true),
            (Some("bearer  secret "), true),
            (Some("Basic b3BlcmF0b3I6c2VjcmV0"), true),
            (Some("Basic OnNlY3JldA=="), true),
            (Some("Basic c2VjcmV0"), false),
            (Some("Basic b3BlcmF0b3I6d3Jvbmc="), false),
            (Some("Basic *"), false),
            (Some("Bearer wrong"), false),
            (Some("Bearer"), false),
            (Some("Digest secret"), false),
            (None, false),
        ] {
            let response = ask(Some("secret"), "/admin/v1/accounts/1", authorization).await;
            let status = if admitted { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            assert_eq!(response.status(), status, "{authorization:?}");
            let schemes = response.headers().get_all(header::WWW_AUTHENTICATE).iter().count();
            assert_eq!(schemes, if admitted { 0 } else { 2 }, "{authorization:?}");
        }
    }

    #[tokio::test]
    async fn health_needs_no_token_and_nothing_does_where_there_is_none() {
        for path in ["/livez", "/readyz"] {
            assert_eq!(ask(Some("secret"), path, None).await.status(), StatusCode::OK);
        }
        assert_eq!(ask(None, "/admin/v1/accounts/1", None).await.status(), StatusCode::OK);
    }
}
