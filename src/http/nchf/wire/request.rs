//! The members of `ChargingDataRequest` that decide something (TS 32.291 6.1.6.2). All others are kept as they came.

use std::borrow::Cow;

use super::member::{Member, object};

type Text<'de> = Cow<'de, str>;
type List<T> = Vec<Member<T>>;

object! {
    Request {
        invocation_time_stamp: Text<'de> = "invocationTimeStamp",
        invocation_sequence_number: u32 = "invocationSequenceNumber",
        subscriber_identifier: Text<'de> = "subscriberIdentifier",
        retransmission_indicator: bool = "retransmissionIndicator",
        one_time_event: bool = "oneTimeEvent",
        one_time_event_type: Text<'de> = "oneTimeEventType",
        notify_uri: Text<'de> = "notifyUri",
        supported_features: Text<'de> = "supportedFeatures",
        triggers: List<Trigger<'de>> = "triggers",
        multiple_unit_usage: List<MultipleUnitUsage<'de>> = "multipleUnitUsage",
    }
}

object! {
    NfIdentification {
        name: Text<'de> = "nFName",
        ipv4: Text<'de> = "nFIPv4Address",
        ipv6: Text<'de> = "nFIPv6Address",
        fqdn: Text<'de> = "nFFqdn",
        node_functionality: Text<'de> = "nodeFunctionality",
    }
}

object! {
    MultipleUnitUsage {
        rating_group: u32 = "ratingGroup",
        requested_unit: Units<'de> = "requestedUnit",
        used_unit_container: List<UsedUnitContainer<'de>> = "usedUnitContainer" or "UsedUnitContainer",
        upf_id: Text<'de> = "uPFID",
        mb_upf_id: Text<'de> = "mBUPFID",
    }
}

object! {
    Units {
        time: u32 = "time",
        total_volume: u64 = "totalVolume",
        uplink_volume: u64 = "uplinkVolume",
        downlink_volume: u64 = "downlinkVolume",
        service_specific_units: u64 = "serviceSpecificUnits",
    }
}

object! {
    UsedUnitContainer {
        local_sequence_number: i64 = "localSequenceNumber",
        quota_management_indicator: Text<'de> = "quotaManagementIndicator",
        triggers: List<Trigger<'de>> = "triggers",
        trigger_timestamp: Text<'de> = "triggerTimestamp",
        service_id: u32 = "serviceId",
        time: u32 = "time",
        total_volume: u64 = "totalVolume",
        uplink_volume: u64 = "uplinkVolume",
        downlink_volume: u64 = "downlinkVolume",
        service_specific_units: u64 = "serviceSpecificUnits",
    }
}

object! {
    Trigger {
        trigger_type: Text<'de> = "triggerType",
        trigger_category: Text<'de> = "triggerCategory",
    }
}

object! {
    /// When the units of a container were used.
    PduContainerInformation {
        time_of_first_usage: Text<'de> = "timeofFirstUsage",
        time_of_last_usage: Text<'de> = "timeofLastUsage",
    }
}

object! {
    PduSessionChargingInformation {
        pdu_session_information: PduSessionInformation<'de> = "pduSessionInformation",
    }
}

object! {
    PduSessionInformation {
        pdu_session_id: u32 = "pduSessionID",
    }
}
