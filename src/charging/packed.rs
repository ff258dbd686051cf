//! Short spellings of what sessions and journals repeat, in MessagePack, which they once were written in and are read in
//! for good (now, see `compact`): UUIDs as sixteen bytes, the names of well-known triggers as numbers. Whatever has no
//! short spelling keeps its own. Both spellings are read, so text written before stays readable.

use std::fmt;

use super::text::Text;
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use uuid::Uuid;

/// `triggerType` names by number. The numbers are stored: names are added at the end, and none is ever removed.
pub(super) const TRIGGERS: [&str; 32] = [
    "QUOTA_THRESHOLD",
    "QHT",
    "FINAL",
    "QUOTA_EXHAUSTED",
    "VALIDITY_TIME",
    "OTHER_QUOTA_TYPE",
    "FORCED_REAUTHORISATION",
    "UNUSED_QUOTA_TIMER",
    "UNIT_COUNT_INACTIVITY_TIMER",
    "ABNORMAL_RELEASE",
    "QOS_CHANGE",
    "VOLUME_LIMIT",
    "TIME_LIMIT",
    "EVENT_LIMIT",
    "PLMN_CHANGE",
    "USER_LOCATION_CHANGE",
    "RAT_CHANGE",
    "SESSION_AMBR_CHANGE",
    "UE_TIMEZONE_CHANGE",
    "TARIFF_TIME_CHANGE",
    "MAX_NUMBER_OF_CHANGES_IN_CHARGING_CONDITIONS",
    "MANAGEMENT_INTERVENTION",
    "CHANGE_OF_UE_PRESENCE_IN_PRESENCE_REPORTING_AREA",
    "CHANGE_OF_3GPP_PS_DATA_OFF_STATUS",
    "SERVING_NODE_CHANGE",
    "REMOVAL_OF_UPF",
    "ADDITION_OF_UPF",
    "START_OF_SERVICE_DATA_FLOW",
    "GFBR_GUARANTEED_STATUS_CHANGE",
    "HANDOVER_START",
    "HANDOVER_COMPLETE",
    "HANDOVER_CANCEL",
];

/// Text that often is a UUID: names of network functions.
pub mod name {
    use super::{Deserializer, Packed, Serializer, Text, Uuid, de};

    pub fn serialize<S: Serializer>(text: &Option<Text>, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(text) = text else { return serializer.serialize_none() };
        let uuid = Uuid::try_parse(text).ok();
        // Upper case and other spellings of a UUID are kept as they are.
        let same = |uuid: &Uuid| *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == **text;
        match uuid.filter(same) {
            Some(uuid) if !serializer.is_human_readable() => serializer.serialize_bytes(uuid.as_bytes()),
            Some(_) | None => serializer.serialize_str(text),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text>, D::Error> {
        match deserializer.deserialize_any(Packed::Absent)? {
            Packed::Absent => Ok(None),
            Packed::Text(text) => Ok(Some(text)),
            Packed::Uuid(uuid) => Ok(Some(uuid.to_string().into())),
            Packed::Number(_) => Err(de::Error::custom("a number is no name")),
        }
    }
}

/// The name of a trigger.
pub mod trigger {
    use super::{Deserializer, Packed, Serializer, TRIGGERS, Text, de};

    pub fn serialize<S: Serializer>(name: &Option<Text>, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(name) = name else { return serializer.serialize_none() };
        let number = TRIGGERS.iter().position(|known| *known == &**name).and_then(|at| u8::try_from(at).ok());
        match number {
            Some(number) if !serializer.is_human_readable() => serializer.serialize_u8(number),
            Some(_) | None => serializer.serialize_str(name),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text>, D::Error> {
        match deserializer.deserialize_any(Packed::Absent)? {
            Packed::Absent => Ok(None),
            Packed::Text(text) => Ok(Some(text)),
            Packed::Number(number) => {
                let name = usize::try_from(number).ok().and_then(|at| TRIGGERS.get(at));
                let name = name.ok_or_else(|| de::Error::custom("a trigger of a newer version"))?;
                Ok(Some((*name).into()))
            }
            Packed::Uuid(_) => Err(de::Error::custom("a UUID is no trigger")),
        }
    }
}

/// What was read in place of a text.
enum Packed {
    Absent,
    Text(Text),
    Uuid(Uuid),
    Number(u64),
}

impl<'de> Visitor<'de> for Packed {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing, a text or its short spelling")
    }

    fn visit_none<E: de::Error>(self) -> Result<Self, E> {
        Ok(Self::Absent)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self, E> {
        Ok(Self::Absent)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self, E> {
        Ok(Self::Text(text.into()))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self, E> {
        Uuid::from_slice(bytes).map(Self::Uuid).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self, E> {
        Ok(Self::Number(number))
    }
}
