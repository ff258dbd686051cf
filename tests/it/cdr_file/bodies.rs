//! Requests with every member that the interface knows, each with a value of its own, made from the schemas.

use std::collections::BTreeMap;

use nchf::http::nchf::wire::schemas::{Service, schemas};
use serde_json::{Map, Value, json};

pub struct Filler {
    schemas: BTreeMap<String, Value>,
    /// Which of several values or alternatives is taken.
    turn: usize,
    /// Grows with every value by a step that leaves little to chance, so that no two are alike where there is room.
    count: u64,
}

impl Filler {
    pub fn new(turn: usize) -> Self {
        let schemas = schemas(Service::ConvergedCharging).into_iter();
        let schemas = schemas.map(|(name, schema)| (name, serde_json::to_value(schema).unwrap())).collect();
        Self { schemas, turn, count: 1_000_000 }
    }

    /// A Create that opens a session and asks for no quota.
    pub fn request(&mut self) -> Value {
        let mut body = self.named("ChargingDataRequest");
        body["subscriberIdentifier"] = json!("imsi-001010000000001");
        body["invocationSequenceNumber"] = json!(1);
        body["notifyUri"] = json!("http://127.0.0.1:9/notify");
        body["supportedFeatures"] = json!("0");
        body["retransmissionIndicator"] = json!(false);
        body["pDUSessionChargingInformation"]["pduSessionInformation"]["pduSessionID"] = json!(self.turn % 256);
        let members = body.as_object_mut().unwrap();
        members.remove("oneTimeEvent");
        members.remove("oneTimeEventType");
        for (at, usage) in members["multipleUnitUsage"].as_array_mut().unwrap().iter_mut().enumerate() {
            usage.as_object_mut().unwrap().remove("requestedUnit");
            usage["ratingGroup"] = json!(50 + at);
        }
        body
    }

    fn next(&mut self) -> u64 {
        self.count += 7919;
        self.count
    }

    fn named(&mut self, name: &str) -> Value {
        let n = self.next();
        let small = n % 1000;
        match name {
            "DateTime" | "TS29122_DateTime" => {
                let zone = ["Z", "+05:30", "-09:45"][self.turn % 3];
                json!(format!(
                    "2026-{:02}-{:02}T{:02}:{:02}:{:02}{zone}",
                    1 + n % 12,
                    1 + n % 28,
                    n % 24,
                    n % 60,
                    n / 64 % 60
                ))
            }
            "TimeZone" => json!(["+05:30", "-08:00+1", "+01:00"][self.turn % 3]),
            "Mcc" | "TS28623_Mcc" => json!(format!("{small:03}")),
            "Mnc" | "TS28623_Mnc" if n.is_multiple_of(2) => json!(format!("{:02}", n % 100)),
            "Mnc" | "TS28623_Mnc" => json!(format!("{small:03}")),
            "Ipv4Addr" => json!(format!("10.{}.{}.{}", n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff)),
            "Ipv6Addr" => json!(format!("2001:db8::{:x}:{:x}", n >> 16, n & 0xffff)),
            "Ipv6Prefix" => json!(format!("2001:db8:{:x}:{:x}::/64", n >> 16, n & 0xffff)),
            "NfInstanceId" => json!(format!("00000000-0000-4000-8000-{n:012}")),
            "Supi" => json!([format!("imsi-00101{n:010}"), format!("nai-{n}@example.com")][self.turn % 2]),
            "Gpsi" => json!([format!("msisdn-32{n:011}"), format!("extid-{n}@example.com")][self.turn % 2]),
            "Pei" => {
                let mac = format!("mac-00-00-5E-{:02X}-{:02X}-{:02X}", n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff);
                json!([format!("imei-{n:015}"), format!("imeisv-{n:016}"), mac][self.turn % 3])
            }
            "E164" => json!(format!("32{n:011}")),
            "Fqdn" => json!(format!("host{n}.example.com")),
            "Uri" => json!([format!("http://example.com/{n}"), format!("sip:{n}@example.com")][self.turn % 2]),
            "BitRate" | "BitRateRm" => json!(format!("{n} Mbps")),
            "SmfChargingId" => json!(format!("{n}.smf-00000000-0000-4000-8000-{n:012}")),
            "ENbId" => json!(format!("MacroeNB-{:05x}", n & 0xfffff)),
            "NgeNbId" => json!(format!("MacroNGeNB-{:05x}", n & 0xfffff)),
            "GroupId" => json!(format!("{n:08x}-001-01-0A0B")),
            "ExternalGroupId" => json!(format!("extgroupid-{n}@example.com")),
            "Tac" | "TS28623_Tac" if self.turn.is_multiple_of(2) => json!(format!("{:06x}", n & 0xff_ffff)),
            "Tac" | "TS28623_Tac" => json!(format!("{:04x}", n & 0xffff)),
            "Dnn" => json!(format!("dnn{n}.mnc001.mcc001.gprs")),
            _ => {
                let schema = self.schemas[name].clone();
                self.value(&schema)
            }
        }
    }

    fn value(&mut self, schema: &Value) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.named(reference.rsplit('/').next().unwrap());
        }
        if let Some(all) = schema["allOf"].as_array().filter(|all| all.iter().any(|one| one.get("$ref").is_some())) {
            let mut merged = Map::new();
            for part in all {
                if let Value::Object(members) = self.value(part) {
                    merged.extend(members);
                }
            }
            return Value::Object(merged);
        }
        for alternatives in ["anyOf", "oneOf"] {
            let is_type = |one: &Value| ["$ref", "enum", "type"].iter().any(|key| one.get(key).is_some());
            if let Some(types) = schema[alternatives].as_array().filter(|types| types.iter().all(is_type)) {
                let chosen =
                    types.iter().find(|one| one.get("enum").is_some()).unwrap_or(&types[self.turn % types.len()]);
                return self.value(&chosen.clone());
            }
        }
        if let Some(values) = schema["enum"].as_array() {
            let n = self.next() as usize;
            return values[(2 * self.turn + n % 2) % values.len()].clone();
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds[0].as_str(),
            kind => kind.as_str(),
        };
        match kind {
            Some("array") => {
                let most = schema["maxItems"].as_u64().unwrap_or(2).clamp(1, 2);
                let least = schema["minItems"].as_u64().unwrap_or(1);
                (0..most.max(least)).map(|_| self.value(&schema["items"])).collect()
            }
            Some("object") => {
                if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
                    return json!({ "1": self.value(values), "2": self.value(values) });
                }
                let members = schema["properties"].as_object().cloned().unwrap_or_default();
                members.iter().map(|(name, member)| (name.clone(), self.value(member))).collect()
            }
            Some("string") => self.text(schema),
            Some("integer") => {
                let n = self.next();
                let least = schema["minimum"].as_i64().unwrap_or(0);
                let room = schema["maximum"].as_u64().map_or(u64::MAX, |most| most.saturating_sub(least.max(0) as u64));
                json!(least + (n % room.saturating_add(1).max(1)) as i64)
            }
            Some("number") => json!(self.next() as f64 + 0.25),
            Some("boolean") => json!((self.next() + self.turn as u64).is_multiple_of(2)),
            _ => Value::Null,
        }
    }

    fn text(&mut self, schema: &Value) -> Value {
        let n = self.next();
        let Some(pattern) = schema["pattern"].as_str() else { return json!(format!("text {n}")) };
        // All patterns that are left ask for hexadecimal digits, and for how many.
        let digits = pattern
            .rsplit_once('{')
            .and_then(|(_, count)| count.split(['}', ',']).next().and_then(|count| count.parse::<usize>().ok()));
        let digits = if pattern.contains("{1,4}") { 4 } else { digits.unwrap_or(8) };
        let n = if digits < 8 { n & ((1 << (4 * digits)) - 1) } else { n };
        json!(format!("{n:0digits$x}").to_uppercase())
    }
}

/// Each value in its turn replaced by one of another kind: what a consumer might send by mistake, or on purpose.
pub fn spoil(value: &mut Value, coins: &mut u64) {
    let mut toss = || {
        *coins ^= *coins << 13;
        *coins ^= *coins >> 7;
        *coins ^= *coins << 17;
        *coins
    };
    if toss() % 12 == 0 {
        *value = match toss() % 9 {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(u64::MAX),
            4 => json!(1.5e300),
            5 => json!("ünknown\u{0}"),
            6 => json!([value.clone(), 7]),
            7 => json!({ "unknown": value.clone() }),
            _ => json!(""),
        };
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| spoil(item, coins)),
        Value::Object(members) => members.values_mut().for_each(|member| spoil(member, coins)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
