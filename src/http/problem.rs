//! How this program says no: `ProblemDetails` of TS 29.571, sent as `application/problem+json`.
//!
//! Constructors are named after what went wrong and carry status and cause as TS 29.500 5.2.7.2 pairs them, so that a
//! handler cannot mix them up. Two invariants: the HTTP status equals the member `status`, and no text ever repeats what
//! the consumer sent; an `invalidParams` entry names the member by its JSON pointer and says what is expected there.

use std::borrow::Cow;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

type Text = Cow<'static, str>;

/// An error answer. Every member but `status` may be absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDetails {
    /// A URI that names the kind of problem; absent means that status and cause say enough.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub title: Option<Text>,
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = u16)]
    status: StatusCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub detail: Option<Text>,
    /// A URI of this occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub instance: Option<Text>,
    /// The application error a consumer acts on, spelled as the 3GPP tables spell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub cause: Option<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invalid_params: Vec<InvalidParam>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub supported_features: Option<Text>,
    /// Full versions (`1.2.0`) of the API named in the URI, where the version asked for is none of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub supported_api_versions: Vec<Text>,
    /// Sent as a header of its own: `Allow`, `Retry-After`.
    #[serde(skip)]
    header: Option<(HeaderName, HeaderValue)>,
}

/// One member that was missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct InvalidParam {
    /// A JSON pointer into the body: `/multipleUnitUsage/0/ratingGroup`.
    #[schema(value_type = String)]
    pub param: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Text>,
}

impl InvalidParam {
    pub fn new(param: impl Into<Text>, reason: impl Into<Text>) -> Self {
        Self { param: param.into(), reason: Some(reason.into()) }
    }
}

impl ProblemDetails {
    /// A problem without a standard constructor below, such as the charging causes of TS 32.291 6.1.7.3.
    pub fn new(status: StatusCode, cause: impl Into<Text>) -> Self {
        Self { cause: Some(cause.into()), ..Self::plain(status) }
    }

    /// Status and title only: statuses for which TS 29.500 has no cause.
    pub fn plain(status: StatusCode) -> Self {
        Self {
            kind: None,
            title: status.canonical_reason().map(Text::Borrowed),
            status,
            detail: None,
            instance: None,
            cause: None,
            invalid_params: Vec::new(),
            supported_features: None,
            supported_api_versions: Vec::new(),
            header: None,
        }
    }

    /// 400: the body is not the JSON this operation reads.
    pub fn invalid_format(params: Vec<InvalidParam>) -> Self {
        Self { invalid_params: params, ..Self::new(StatusCode::BAD_REQUEST, "INVALID_MSG_FORMAT") }
    }

    /// 400: a mandatory member is absent.
    pub fn missing(params: Vec<InvalidParam>) -> Self {
        Self { invalid_params: params, ..Self::new(StatusCode::BAD_REQUEST, "MANDATORY_IE_MISSING") }
    }

    /// 400: a mandatory member has a value that cannot be meant.
    pub fn incorrect(params: Vec<InvalidParam>) -> Self {
        Self { invalid_params: params, ..Self::new(StatusCode::BAD_REQUEST, "MANDATORY_IE_INCORRECT") }
    }

    /// 400: an optional member has a value that cannot be meant.
    pub fn optional_incorrect(params: Vec<InvalidParam>) -> Self {
        Self { invalid_params: params, ..Self::new(StatusCode::BAD_REQUEST, "OPTIONAL_IE_INCORRECT") }
    }

    /// 400: no such API, or not in this version.
    pub fn invalid_api() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_API")
    }

    /// 404: the API exists, this path in it does not.
    pub fn not_found_resource_uri() -> Self {
        Self::new(StatusCode::NOT_FOUND, "RESOURCE_URI_STRUCTURE_NOT_FOUND")
    }

    /// 405: `allow` lists the methods of the resource, as the header spells them: `GET, PUT`.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::plain(StatusCode::METHOD_NOT_ALLOWED).with_header(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// 408: the body did not arrive in time.
    pub fn body_too_slow() -> Self {
        Self::plain(StatusCode::REQUEST_TIMEOUT).with_detail("the body did not arrive in time")
    }

    /// 413: the body is longer than this server reads.
    pub fn too_large() -> Self {
        Self::plain(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// 415: the body is of a type, or in an encoding, that this operation does not read.
    pub fn unsupported_media_type() -> Self {
        Self::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    }

    /// 500: our fault, and nothing the consumer could change.
    pub fn system_failure() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "SYSTEM_FAILURE")
    }

    /// 503: too much at once; worth trying again after `retry_after_secs`.
    pub fn congestion(retry_after_secs: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "NF_CONGESTION")
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry_after_secs))
    }

    /// 504: the consumer no longer waits for the answer, so the request was not begun.
    pub fn timed_out() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "TIMED_OUT_REQUEST")
    }

    /// The text is ours alone: it never repeats a value of the request.
    pub fn with_detail(mut self, detail: impl Into<Text>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("texts and numbers always serialize");
        let media_type = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, media_type)], body).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(problem: &ProblemDetails) -> String {
        serde_json::to_string(problem).unwrap()
    }

    #[test]
    fn absent_members_are_not_sent() {
        let problem = ProblemDetails::new(StatusCode::FORBIDDEN, "QUOTA_LIMIT_REACHED");
        assert_eq!(json(&problem), r#"{"title":"Forbidden","status":403,"cause":"QUOTA_LIMIT_REACHED"}"#);
    }

    #[test]
    fn invalid_members_are_named_by_pointer() {
        let problem = ProblemDetails::missing(vec![InvalidParam::new("/invocationTimeStamp", "required")]);
        assert_eq!(
            json(&problem),
            r#"{"title":"Bad Request","status":400,"cause":"MANDATORY_IE_MISSING","invalidParams":[{"param":"/invocationTimeStamp","reason":"required"}]}"#
        );
    }

    #[test]
    fn http_status_and_headers_follow_the_problem() {
        let response = ProblemDetails::congestion(1).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");

        let response = ProblemDetails::method_not_allowed("GET, PUT").into_response();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET, PUT");
    }
}
