//! From the core's answer to the body that goes out. Pure: the same answer gives the same bytes, whichever instance
//! renders it, so a replay is the same to the byte.

use std::sync::LazyLock;

use axum::http::StatusCode;
use serde_json::value::{RawValue, to_raw_value};

use super::wire::response::{
    ChargingDataResponse, FinalUnitIndication, GrantedUnit, InvocationResult, MultipleUnitInformation,
    PduSessionChargingInformation, RedirectServer, Trigger,
};
use crate::charging::decision::{Answer, GroupResult, Outcome, Rejection};
use crate::charging::session::{ChargingSession, Service};
use crate::charging::tariff::FinalUnit;
use crate::charging::time::Timestamp;
use crate::charging::units::UnitKind;
use crate::config::Charging;
use crate::http::problem::ProblemDetails;

/// TS 32.291 6.1.8: lists of filters instead of one.
const FEATURE_FILTER_RULE_LIST: u64 = 1 << 7;

/// The body of a 201 or 200.
pub fn charging_data_response(answer: &Answer, session: &ChargingSession, charging: &Charging) -> Vec<u8> {
    let is_create = answer.outcome == Outcome::Created;
    let has_pdu_session = || session.blocks.iter().any(|(name, _)| &**name == "pDUSessionChargingInformation");
    let timer = charging.unit_count_inactivity_timer_secs.filter(|_| is_create && has_pdu_session());
    let response = ChargingDataResponse {
        invocation_time_stamp: date_time(answer.at),
        invocation_sequence_number: answer.number,
        invocation_result: InvocationResult { failure_handling: charging.failure_handling.as_str() },
        session_failover: "FAILOVER_SUPPORTED",
        supported_features: answer
            .features
            .filter(|_| session.service == Service::Converged)
            .map(|features| format!("{features:X}")),
        multiple_unit_information: answer.results.iter().filter_map(|result| information(result, session)).collect(),
        pdu_session_charging_information: timer
            .map(|secs| PduSessionChargingInformation { unit_count_inactivity_timer: secs }),
    };
    let mut body = Vec::with_capacity(1024);
    serde_json::to_writer(&mut body, &response).expect("texts and numbers always serialize");
    body
}

fn information<'a>(result: &'a GroupResult, session: &'a ChargingSession) -> Option<MultipleUnitInformation<'a>> {
    let quota = session.quotas.get(usize::from(result.quota))?;
    let threshold = |kind| result.threshold.filter(|_| granted_kind(result) == Some(kind));
    Some(MultipleUnitInformation {
        result_code: result.code.as_str(),
        rating_group: quota.key.rating_group.0,
        granted_unit: result.granted.map(|units| GrantedUnit::new(units, result.tariff_change.map(date_time))),
        triggers: triggers(result),
        validity_time: result.validity_secs,
        quota_holding_time: result.holding_secs,
        final_unit_indication: result.final_unit.as_ref().map(|action| final_unit(action, session.features)),
        time_quota_threshold: threshold(UnitKind::Seconds),
        volume_quota_threshold: threshold(UnitKind::Octets),
        unit_quota_threshold: threshold(UnitKind::Events),
        upf_id: quota.key.upf.as_deref(),
        mb_upf_id: quota.key.mb_upf.as_deref(),
    })
}

fn granted_kind(result: &GroupResult) -> Option<UnitKind> {
    let granted = result.granted?;
    [UnitKind::Seconds, UnitKind::Octets, UnitKind::Events].into_iter().find(|kind| granted.of(*kind).is_some())
}

/// Each value of a grant with the trigger that makes the consumer act on it: some act on nothing else. These lists are
/// half of an answer, so they are written once and for all.
fn triggers(result: &GroupResult) -> Option<&'static RawValue> {
    static LISTS: LazyLock<[Box<RawValue>; 8]> = LazyLock::new(|| std::array::from_fn(list_of_triggers));

    result.granted?;
    let with = [result.threshold.is_some(), result.validity_secs.is_some(), result.holding_secs.is_some()];
    Some(&LISTS[with.iter().fold(0, |number, is_there| number << 1 | usize::from(*is_there))])
}

/// The bits of the number say what a grant comes with: a threshold, a validity time, a holding time.
fn list_of_triggers(number: usize) -> Box<RawValue> {
    let names = [(0b100, "QUOTA_THRESHOLD"), (0b010, "VALIDITY_TIME"), (0b001, "QHT")];
    let names = names.into_iter().filter(|(bit, _)| number & bit != 0).map(|(_, name)| name);
    let now = |trigger_type| Trigger { trigger_type, trigger_category: "IMMEDIATE_REPORT" };
    let list: Vec<Trigger> = std::iter::once("QUOTA_EXHAUSTED").chain(names).map(now).collect();
    to_raw_value(&list).expect("texts always serialize")
}

fn final_unit(action: &FinalUnit, features: u64) -> FinalUnitIndication<'_> {
    let only = |final_unit_action| FinalUnitIndication {
        final_unit_action,
        restriction_filter_rule: None,
        restriction_filter_rule_list: &[],
        filter_id: None,
        filter_id_list: &[],
        redirect_server: None,
    };
    match action {
        FinalUnit::Terminate => only("TERMINATE"),
        FinalUnit::Redirect { address_type, address } => FinalUnitIndication {
            redirect_server: Some(RedirectServer {
                redirect_address_type: address_type,
                redirect_server_address: address,
            }),
            ..only("REDIRECT")
        },
        FinalUnit::RestrictAccess { filter_rules, filter_ids } if features & FEATURE_FILTER_RULE_LIST != 0 => {
            FinalUnitIndication {
                restriction_filter_rule_list: filter_rules,
                filter_id_list: filter_ids,
                ..only("RESTRICT_ACCESS")
            }
        }
        FinalUnit::RestrictAccess { filter_rules, filter_ids } => FinalUnitIndication {
            restriction_filter_rule: filter_rules.first().map(|rule| &**rule),
            filter_id: filter_ids.first().map(|id| &**id),
            ..only("RESTRICT_ACCESS")
        },
    }
}

/// RFC 3339 in UTC, with milliseconds.
pub fn date_time(at: Timestamp) -> String {
    at.rfc3339()
}

/// The problem that a rejection is to the consumer (TS 32.291 6.1.7.3 and TS 29.500 5.2.7.2).
pub fn rejection(rejection: Rejection) -> ProblemDetails {
    let bad_request = |cause| ProblemDetails::new(StatusCode::BAD_REQUEST, cause);
    let forbidden = |cause| ProblemDetails::new(StatusCode::FORBIDDEN, cause);
    match rejection {
        Rejection::UserUnknown => ProblemDetails::new(StatusCode::NOT_FOUND, "USER_UNKNOWN"),
        Rejection::EndUserRequestDenied => forbidden("END_USER_REQUEST_DENIED"),
        Rejection::ChargingNotApplicable => forbidden("CHARGING_NOT_APPLICABLE"),
        Rejection::QuotaLimitReached => forbidden("QUOTA_LIMIT_REACHED"),
        Rejection::SubscriberChanged => forbidden("MODIFICATION_NOT_ALLOWED")
            .with_param("/subscriberIdentifier", "the session belongs to another subscriber"),
        Rejection::NothingToCharge => {
            bad_request("CHARGING_FAILED").with_detail("the event names neither units nor a service")
        }
        Rejection::NoAccount => bad_request("CHARGING_FAILED").with_detail("the subscriber's account does not exist"),
        Rejection::UnknownSession => ProblemDetails::new(StatusCode::NOT_FOUND, "CONTEXT_NOT_FOUND"),
        Rejection::NumberReused => bad_request("MANDATORY_IE_INCORRECT")
            .with_param("/invocationSequenceNumber", "another request of this session had it, with other content"),
        Rejection::NumberForgotten => bad_request("MANDATORY_IE_INCORRECT")
            .with_param("/invocationSequenceNumber", "its request was charged long ago and is not charged again"),
        Rejection::IdempotencyKeyReused => bad_request("UNSPECIFIED_MSG_FAILURE")
            .with_detail("another request had this idempotency key and other content"),
        Rejection::TooManyQuotas => bad_request("UNSPECIFIED_MSG_FAILURE")
            .with_param("/multipleUnitUsage", "the session has as many quotas as it may"),
    }
}
