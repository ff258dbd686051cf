//! Pages of lists: bounded, continued by an opaque cursor.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::problem::ProblemDetails;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Continues the list; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// Items of a page, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub limit: Option<u16>,
}

const LIMIT_MAX: u16 = 500;
const LIMIT_DEFAULT: u16 = 100;

impl PageQuery {
    pub fn limit(&self) -> Result<usize, ProblemDetails> {
        match self.limit.unwrap_or(LIMIT_DEFAULT) {
            limit @ 1..=LIMIT_MAX => Ok(usize::from(limit)),
            _ => Err(invalid("limit", "1 to 500")),
        }
    }

    /// The parts that a cursor was made of.
    pub fn parts<const N: usize>(&self) -> Result<Option<[String; N]>, ProblemDetails> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let parts: Vec<String> = cursor.splitn(N, '.').map(ToOwned::to_owned).collect();
        parts.try_into().map(Some).map_err(|_| invalid_cursor())
    }
}

/// A query parameter that cannot be used.
pub fn invalid(name: &'static str, reason: &'static str) -> ProblemDetails {
    ProblemDetails::new(StatusCode::BAD_REQUEST, "INVALID_QUERY_PARAM").with_param(name, reason)
}

pub fn invalid_cursor() -> ProblemDetails {
    invalid("cursor", "not a cursor of this list")
}
