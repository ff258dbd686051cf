//! Bodies and queries of the operator's API: wrong input is answered with the member's name.

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use crate::http::problem::{InvalidParam, ProblemDetails};

/// A JSON body that has been validated.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Validate> FromRequest<S> for Body<T> {
    type Rejection = ProblemDetails;

    async fn from_request(request: Request, state: &S) -> Result<Self, ProblemDetails> {
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" {
            return Err(ProblemDetails::unsupported_media_type());
        }
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|_| ProblemDetails::invalid_format(Vec::new()))?;
        // An array would be read too, its elements as the members in their order.
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(ProblemDetails::invalid_format(vec![InvalidParam::new("", "expected an object")]));
        }
        let mut json = serde_json::Deserializer::from_slice(&body);
        let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            // The parser's text names types and members of ours, and at most a value of the wrong type.
            let (place, reason) = (pointer(error.path()), error.inner().to_string());
            match missing_member(&reason) {
                Some(name) => ProblemDetails::missing(vec![InvalidParam::new(format!("{place}/{name}"), "required")]),
                None => ProblemDetails::invalid_format(vec![InvalidParam::new(place, reason)]),
            }
        })?;
        json.end().map_err(|_| ProblemDetails::invalid_format(vec![InvalidParam::new("", "more than one value")]))?;
        value.validate().map_err(|errors| {
            let mut params = Vec::new();
            collect("", &errors, &mut params);
            ProblemDetails::incorrect(params)
        })?;
        Ok(Self(value))
    }
}

/// A query string that could be read.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ProblemDetails> {
        let read = Query::<T>::try_from_uri(&parts.uri);
        read.map(|Query(query)| Self(query)).map_err(|error| {
            ProblemDetails::new(StatusCode::BAD_REQUEST, "INVALID_QUERY_PARAM").with_detail(error.body_text())
        })
    }
}

/// serde has no kind of error for it, only this text.
fn missing_member(reason: &str) -> Option<&str> {
    reason.strip_prefix("missing field `")?.split('`').next()
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let part = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", escape(key)),
        Segment::Enum { variant } => format!("/{}", escape(variant)),
        Segment::Unknown => String::new(),
    };
    path.iter().map(part).collect()
}

/// The validator knows fields by their names in Rust; the JSON names are the same in camel case.
fn collect(place: &str, errors: &ValidationErrors, params: &mut Vec<InvalidParam>) {
    for (field, kind) in errors.errors() {
        let place = format!("{place}/{}", camel_case(field));
        match kind {
            ValidationErrorsKind::Struct(inner) => collect(&place, inner, params),
            ValidationErrorsKind::List(inner) => {
                inner.iter().for_each(|(at, inner)| collect(&format!("{place}/{at}"), inner, params));
            }
            ValidationErrorsKind::Field(found) => {
                let reason = found.first().and_then(|error| error.message.clone()).unwrap_or("not acceptable".into());
                params.push(InvalidParam::new(place, reason));
            }
        }
    }
}

fn camel_case(field: &str) -> String {
    let mut words = field.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        name + &head.to_ascii_uppercase() + tail
    })
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
