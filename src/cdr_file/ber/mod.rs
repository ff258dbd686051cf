//! Records in the basic encoding rules, by the ASN.1 of TS 32.298 V18.8.0: a `CHFRecord`.
//!
//! `chf.records` is the whole mapping, as data in a notation that it explains; the code here follows it, [`tlv`] writes
//! octets, [`leaf`] knows the types without parts. It is no general ASN.1 compiler: it can write what that file needs.
//!
//! Nothing that a consumer sent makes a record fail. What has the wrong type or an unknown value is left out of its
//! block. A member of the record that no field takes anything from — what the charging function adds (`charged`,
//! `currency`, `accountId`, `id`), services newer than the ASN.1, blocks whose mandatory parts are missing — is carried
//! whole in `recordExtensions`: one management extension, whose information is an OCTET STRING with a JSON object of
//! those members. So the JSON record holds the same, and a block's octets do not exceed its JSON text.

mod leaf;
mod table;
mod tlv;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::{Record, json};
use table::{Entry, Field, Kind, Path, Shape, Table, Type};
use tlv::Content;

/// The octets of a `CHFRecord`.
pub fn encode(record: &Record) -> Vec<u8> {
    let tree = json::tree(record);
    let Type::Fields { fields, .. } = TABLE.named("ChargingRecord") else { unreachable!("a record has fields") };
    let Written { mut octets, taken } = write(fields, &tree, &tree).expect("a record states all that must be there");
    let is_taken =
        |name: &str| taken.iter().any(|taken| taken.field.sources.iter().any(|path| path.steps.first() == Some(&name)));
    let place = taken.iter().find(|taken| taken.field.tag > RECORD_EXTENSIONS).map_or(octets.len(), |taken| taken.from);
    let mut extensions = Vec::new();
    if let Value::Object(members) = &tree {
        let rest = members.iter().filter(|(name, value)| !is_taken(name) && !value.is_null());
        extension(&rest.map(|(name, value)| (name.as_str(), value)).collect())
            .write_tagged(RECORD_EXTENSIONS, &mut extensions);
    }
    octets.splice(place..place, extensions);
    let mut record = Vec::with_capacity(octets.len() + 8);
    Content::constructed(tlv::SET, octets).write_tagged(CHARGING_FUNCTION_RECORD, &mut record);
    record
}

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(include_str!("chf.records")));

const CHARGING_FUNCTION_RECORD: u32 = 200;
const RECORD_EXTENSIONS: u32 = 12;

/// 2.25.126351586266173721533507198598592142933: an identifier made of a UUID (X.667), which needs no registration.
const EXTENSION: [u8; 20] = [
    0x69, 0x81, 0xbe, 0x8e, 0xb7, 0x8a, 0xef, 0xd1, 0xe2, 0xb0, 0xff, 0x9a, 0xa5, 0xcb, 0xed, 0xf0, 0xe3, 0xf4, 0xbc,
    0x55,
];

/// `ManagementExtensions` of one member (X.721). Its information is of an open type, so the tag goes around a complete
/// value.
fn extension(members: &BTreeMap<&str, &Value>) -> Content {
    const INFORMATION: u32 = 2;
    let json = serde_json::to_vec(members).expect("a tree of JSON has a text");
    let mut information = Vec::new();
    Content::primitive(tlv::OCTET_STRING, json).write(&mut information);
    let mut octets = Vec::new();
    Content::primitive(tlv::OBJECT_IDENTIFIER, EXTENSION.to_vec()).write(&mut octets);
    Content::choice(information).write_tagged(INFORMATION, &mut octets);
    let mut all = Vec::new();
    Content::constructed(tlv::SEQUENCE, octets).write(&mut all);
    Content::constructed(tlv::SET, all)
}

/// `None` where nothing of the value fits.
fn content(kind: &Kind, value: &Value, record: &Value) -> Option<Content> {
    match kind {
        Kind::List(item) => {
            let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let contents: Vec<_> = items.iter().filter_map(|one| content(item, one, record)).collect();
            let mut octets = Vec::new();
            contents.iter().for_each(|content| content.write(&mut octets));
            let is_lost = contents.is_empty() && !items.is_empty();
            (!is_lost).then(|| Content::constructed(tlv::SEQUENCE, octets))
        }
        Kind::Leaf(leaf, cut) => leaf.content(cut, only(value)?),
        Kind::Type(at) => match &TABLE.types[*at] {
            Type::Values { universal, entries } => {
                let number = Entry::number(entries, &leaf::text(only(value)?)?)?;
                Some(Content::integer(*universal, number))
            }
            Type::Fields { shape, fields, takes_lists } => {
                let value = if *takes_lists { value } else { only(value)? };
                structure(*shape, fields, value, record)
            }
        },
    }
}

/// The first item of a list, or what is no list.
fn only(value: &Value) -> Option<&Value> {
    value.as_array().map_or(Some(value), |items| items.first())
}

fn structure(shape: Shape, fields: &[Field], value: &Value, record: &Value) -> Option<Content> {
    if shape == Shape::Choice {
        return fields.iter().find_map(|field| {
            let mut octets = Vec::new();
            field_content(field, value, record)?.write_tagged(field.tag, &mut octets);
            Some(Content::choice(octets))
        });
    }
    let Written { octets, taken } = write(fields, value, record)?;
    // An object may well be empty; anything else that yields nothing is of the wrong type.
    let is_understood = value.is_object() || !taken.is_empty();
    let universal = if shape == Shape::Set { tlv::SET } else { tlv::SEQUENCE };
    is_understood.then(|| Content::constructed(universal, octets))
}

struct Written<'f> {
    octets: Vec<u8>,
    taken: Vec<Taken<'f>>,
}

/// A field that is in it, and where it begins.
struct Taken<'f> {
    field: &'f Field,
    from: usize,
}

/// `None` if a field is missing that must be there.
fn write<'f>(fields: &'f [Field], value: &Value, record: &Value) -> Option<Written<'f>> {
    let mut written = Written { octets: Vec::new(), taken: Vec::new() };
    let mut last = None;
    for (at, field) in fields.iter().enumerate() {
        // Lines of one tag stand together, and the first that has something wins.
        if last == Some(field.tag) {
            continue;
        }
        if let Some(content) = field_content(field, value, record) {
            written.taken.push(Taken { field, from: written.octets.len() });
            content.write_tagged(field.tag, &mut written.octets);
            last = Some(field.tag);
        } else if field.is_required && fields.get(at + 1).is_none_or(|next| next.tag != field.tag) {
            return None;
        }
    }
    Some(written)
}

fn field_content(field: &Field, value: &Value, record: &Value) -> Option<Content> {
    let is_there = |name: &&str| value.get(name).is_some_and(|member| !member.is_null());
    if !field.condition.is_empty() && !field.condition.iter().any(is_there) {
        return None;
    }
    let from_source = |path: &Path| {
        let start = if path.starts_from_record { record } else { value };
        let end = follow(start, &path.steps)?;
        content(&field.kind, &end, record)
    };
    let found = field.sources.iter().find_map(from_source);
    found.or_else(|| content(&field.kind, field.default.as_ref()?, record))
}

/// What is at the end of a path; of a list, what is at the end of it in each item.
fn follow<'v>(value: &'v Value, steps: &[&str]) -> Option<Cow<'v, Value>> {
    let Some((step, rest)) = steps.split_first() else { return Some(Cow::Borrowed(value)) };
    match value {
        Value::Array(items) => {
            let ends = items.iter().filter_map(|item| follow(item, steps)).map(Cow::into_owned);
            Some(Cow::Owned(ends.collect())).filter(|ends: &Cow<Value>| ends.as_array() != Some(&Vec::new()))
        }
        Value::Object(members) if *step == "*" => {
            let ends = members.values().filter_map(|member| follow(member, rest)).map(Cow::into_owned);
            Some(Cow::Owned(ends.collect()))
        }
        Value::Object(members) => follow(members.get(*step)?, rest),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
