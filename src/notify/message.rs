//! What is sent, and how its answer is read (TS 32.291 6.1.5).

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Request, Response, StatusCode, Version};
use serde::{Deserialize, Serialize};

use super::breaker::Verdict;
use super::outcome::{Failure, Outcome};
use super::target::Target;
use crate::charging::ids::RatingGroup;
use crate::charging::time::Span;

/// TS 32.291 `ChargingNotifyRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// The consumer shall report usage of these rating groups and ask for quota anew. None means all of the session's,
    /// but some consumers take it for none, so that naming them is better.
    Reauthorize(Vec<RatingGroup>),
    /// The consumer shall end the charging session.
    Abort,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    notification_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reauthorization_details: Vec<Detail>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    rating_group: RatingGroup,
}

impl Notification {
    /// The body, each rating group named once.
    pub fn render(&self) -> Bytes {
        let body = match self {
            Self::Abort => Body { notification_type: "ABORT_CHARGING", reauthorization_details: Vec::new() },
            Self::Reauthorize(rating_groups) => {
                let mut named: Vec<Detail> = Vec::with_capacity(rating_groups.len());
                for rating_group in rating_groups {
                    if named.iter().all(|detail| detail.rating_group != *rating_group) {
                        named.push(Detail { rating_group: *rating_group });
                    }
                }
                Body { notification_type: "REAUTHORIZATION", reauthorization_details: named }
            }
        };
        serde_json::to_vec(&body).expect("texts and numbers have a form in JSON").into()
    }
}

/// TS 29.500 5.2.3.2.3: what kind of callback this is, so that proxies on the way need not look inside.
const CALLBACK: &str = "Nchf_ConvergedCharging_Notify; apiversion=3";

pub(super) fn request(target: &Target, body: &Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::post(target.uri.clone())
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, application/problem+json")
        .header(USER_AGENT, "CHF")
        .body(Full::new(body.clone()))
        .expect("a parsed URI and fixed headers make a request");
    request.headers_mut().insert("3gpp-sbi-callback", CALLBACK.parse().expect("a fixed header value"));
    request
}

/// What an answer means.
pub(super) enum Reply {
    Outcome(Outcome),
    Redirected { location: Option<Box<str>>, permanent: bool },
}

/// The cause of an error: that of a `ProblemDetails`, or of the one inside a `ChargingNotifyResponse`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Explanation {
    cause: Option<String>,
    invocation_result: Option<InvocationResult>,
}

#[derive(Deserialize)]
struct InvocationResult {
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    cause: Option<String>,
}

impl Explanation {
    fn read(body: &[u8]) -> Option<String> {
        let explanation: Self = serde_json::from_slice(body).ok()?;
        explanation.cause.or_else(|| explanation.invocation_result?.error?.cause)
    }
}

impl Reply {
    /// Reads as much of the answer as matters.
    pub(super) async fn read(response: Response<Incoming>, octets_max: usize) -> Result<Self, Failure> {
        let (head, body) = response.into_parts();
        let failed = || Self::Outcome(failed(head.status, &head.headers));
        Ok(match head.status {
            // Others than 200 and 204 are nobody's habit, but a success all the same.
            status if status.is_success() => {
                whole(body, octets_max).await?;
                Self::Outcome(Outcome::Delivered)
            }
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
                let location = head.headers.get(LOCATION).and_then(|value| value.to_str().ok());
                let permanent = head.status == StatusCode::PERMANENT_REDIRECT;
                Self::Redirected { location: location.map(Into::into), permanent }
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::Outcome(Outcome::Gone),
            StatusCode::BAD_REQUEST => match Explanation::read(&whole(body, octets_max).await?).as_deref() {
                Some("RESOURCE_CONTEXT_NOT_FOUND") => Self::Outcome(Outcome::Gone),
                Some("RE_AUTHORIZATION_FAILED") => Self::Outcome(Outcome::Kept),
                _ => failed(),
            },
            _ => failed(),
        })
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Redirected { .. } => Verdict::Alive,
            Self::Outcome(outcome) => match outcome {
                Outcome::Delivered | Outcome::Gone | Outcome::Kept | Outcome::Moved { .. } => Verdict::Alive,
                Outcome::Failed { reason, .. } if reason.is_of_target() => Verdict::InTrouble,
                Outcome::Failed { .. } => Verdict::Alive,
                Outcome::Refused(_) | Outcome::Postponed { .. } => Verdict::Unknown,
            },
        }
    }
}

fn failed(status: StatusCode, headers: &HeaderMap) -> Outcome {
    Outcome::Failed { reason: Failure::Status(status.as_u16()), retry_after: retry_after(headers) }
}

/// Longest pause that a target may ask for.
const RETRY_AFTER_MAX_SECS: u32 = 3600;

/// In seconds; a date is not for machines that are minutes apart.
fn retry_after(headers: &HeaderMap) -> Option<Span> {
    let secs: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Span::from_secs(u32::try_from(secs).unwrap_or(u32::MAX).min(RETRY_AFTER_MAX_SECS)))
}

async fn whole(body: Incoming, octets_max: usize) -> Result<Bytes, Failure> {
    let collected = Limited::new(body, octets_max).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() { Failure::AnswerTooLong } else { Failure::Lost }
    })
}
