//! `ChargingDataResponse` as it goes out (TS 32.291 6.1.6.2).

use serde::Serialize;
use serde_json::value::RawValue;

use crate::charging::text::Text;
use crate::charging::units::Units;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChargingDataResponse<'a> {
    pub invocation_time_stamp: String,
    pub invocation_sequence_number: u32,
    pub invocation_result: InvocationResult,
    pub session_failover: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub multiple_unit_information: Vec<MultipleUnitInformation<'a>>,
    #[serde(rename = "pDUSessionChargingInformation", skip_serializing_if = "Option::is_none")]
    pub pdu_session_charging_information: Option<PduSessionChargingInformation>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InvocationResult {
    pub failure_handling: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PduSessionChargingInformation {
    pub unit_count_inactivity_timer: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MultipleUnitInformation<'a> {
    pub result_code: &'static str,
    pub rating_group: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_unit: Option<GrantedUnit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triggers: Option<&'static RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validity_time: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_holding_time: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_unit_indication: Option<FinalUnitIndication<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_quota_threshold: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_quota_threshold: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_quota_threshold: Option<u64>,
    #[serde(rename = "uPFID", skip_serializing_if = "Option::is_none")]
    pub upf_id: Option<&'a str>,
    #[serde(rename = "mBUPFID", skip_serializing_if = "Option::is_none")]
    pub mb_upf_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedUnit {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tariff_time_change: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_volume: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink_volume: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downlink_volume: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_specific_units: Option<u64>,
}

impl GrantedUnit {
    pub fn new(units: Units, tariff_time_change: Option<String>) -> Self {
        let Units { time, total_volume, uplink_volume, downlink_volume, service_specific_units } = units;
        Self { tariff_time_change, time, total_volume, uplink_volume, downlink_volume, service_specific_units }
    }
}

/// A condition on which the consumer shall report at once.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    pub trigger_type: &'static str,
    pub trigger_category: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FinalUnitIndication<'a> {
    pub final_unit_action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restriction_filter_rule: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Text]>::is_empty")]
    pub restriction_filter_rule_list: &'a [Text],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Text]>::is_empty")]
    pub filter_id_list: &'a [Text],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect_server: Option<RedirectServer<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedirectServer<'a> {
    pub redirect_address_type: &'a str,
    pub redirect_server_address: &'a str,
}
