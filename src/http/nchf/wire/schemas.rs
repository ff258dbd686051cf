//! The schemas that the published documents show, built from the type descriptions beside this file.
//!
//! At run time only the members that charging decides on are parsed; all others are kept as they came. The documents
//! still name every member, so that a reader of Swagger UI sees and can fill it. More than a thousand members that no
//! code reads would be dead weight as Rust structs, so they are data: `shared.schemas` explains the notation.
//!
//! The files are part of the program, so a mistake in them is a bug: reading them panics and quotes the line, and the
//! first test that builds a document finds it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::iter::Peekable;
use std::sync::LazyLock;

use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{
    AdditionalProperties, AllOf, AnyOf, Array, OneOf, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Deprecated, Object, Ref, RefOr};
use utoipa::{Number, PartialSchema, ToSchema};

/// The services of TS 32.291. Each has its own document, because types of one name differ between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    ConvergedCharging,
    OfflineOnlyCharging,
}

/// Every schema of a service's document, by name.
pub fn schemas(service: Service) -> Vec<(String, RefOr<Schema>)> {
    static CONVERGED: LazyLock<Vec<(String, RefOr<Schema>)>> =
        LazyLock::new(|| read(&[include_str!("shared.schemas"), include_str!("converged.schemas")]));
    static OFFLINE_ONLY: LazyLock<Vec<(String, RefOr<Schema>)>> =
        LazyLock::new(|| read(&[include_str!("shared.schemas"), include_str!("offline_only.schemas")]));
    match service {
        Service::ConvergedCharging => CONVERGED.clone(),
        Service::OfflineOnlyCharging => OFFLINE_ONLY.clone(),
    }
}

/// Makes a type that stands for a schema where utoipa wants a type. It brings all schemas of its service along,
/// because they refer to each other.
macro_rules! message {
    ($service:ident, $name:ident) => {
        #[doc = concat!("The body `", stringify!($name), "` of this service.")]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let (_, schema) = schemas(Service::$service)
                    .into_iter()
                    .find(|(name, _)| name == stringify!($name))
                    .expect("the type descriptions hold every message");
                schema
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }

            fn schemas(all: &mut Vec<(String, RefOr<Schema>)>) {
                all.extend(schemas(Service::$service));
            }
        }
    };
}

/// The bodies of Nchf_ConvergedCharging.
pub mod converged {
    use super::*;

    message!(ConvergedCharging, ChargingDataRequest);
    message!(ConvergedCharging, ChargingDataResponse);
    message!(ConvergedCharging, ChargingNotifyRequest);
    message!(ConvergedCharging, ChargingNotifyResponse);
    message!(ConvergedCharging, ProblemDetails);
    message!(ConvergedCharging, RedirectResponse);
}

/// The bodies of Nchf_OfflineOnlyCharging.
pub mod offline_only {
    use super::*;

    message!(OfflineOnlyCharging, ChargingDataRequest);
    message!(OfflineOnlyCharging, ChargingDataResponse);
    message!(OfflineOnlyCharging, ProblemDetails);
}

fn read(sources: &[&str]) -> Vec<(String, RefOr<Schema>)> {
    let mut types = Vec::new();
    let mut names = BTreeSet::new();
    for source in sources {
        let mut lines = lines(source).into_iter().peekable();
        while let Some(head) = lines.next() {
            let (name, schema) = definition(head, &mut lines);
            assert!(names.insert(name.clone()), "{name} is described twice");
            types.push((name, schema));
        }
    }
    types
}

/// A line that says something, with all of its description.
struct Line<'a> {
    indented: bool,
    text: &'a str,
    description: Option<String>,
}

fn lines(source: &str) -> Vec<Line<'_>> {
    let mut lines: Vec<Line> = Vec::new();
    for line in source.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(text) = line.trim_start().strip_prefix("-- ") {
            let above = lines.last_mut().expect("a description stands below what it describes");
            match &mut above.description {
                Some(description) => *description = format!("{description} {text}"),
                None => above.description = Some(text.to_owned()),
            }
            continue;
        }
        let (text, description) = match line.split_once(" -- ") {
            Some((text, description)) => (text, Some(description.to_owned())),
            None => (line, None),
        };
        lines.push(Line { indented: line.starts_with(' '), text: text.trim(), description });
    }
    lines
}

/// One type: its head, and the indented lines that belong to it.
fn definition<'a>(head: Line<'a>, lines: &mut Peekable<impl Iterator<Item = Line<'a>>>) -> (String, RefOr<Schema>) {
    let mut body = Vec::new();
    while let Some(line) = lines.next_if(|line| line.indented) {
        body.push(line);
    }
    let mut reader = Reader::new(head.text);
    let kind = reader.word();
    let name = reader.word();
    let mut schema = match kind {
        "object" => object(&mut reader, body),
        "values" => open(enumeration(&mut reader, body)),
        "closed" => inline(Schema::Object(enumeration(&mut reader, body))),
        "type" => {
            reader.expect("=");
            reader.alternatives()
        }
        _ => panic!("no type starts like this: {}", head.text),
    };
    reader.expect_end();
    describe(&mut schema, head.description);
    (name.to_owned(), schema)
}

fn object(head: &mut Reader, body: Vec<Line>) -> RefOr<Schema> {
    let parent = head.take("<").then(|| head.word());
    let mut object = Object::with_type(Type::Object);
    head.constraints(&mut object);
    let mut conditions = Vec::new();
    for line in body {
        let mut reader = Reader::new(line.text);
        let name = reader.word();
        if let Some(condition) = condition(name, reader.rest) {
            conditions.push(condition);
            continue;
        }
        let name = match name.strip_suffix('!') {
            Some(name) => {
                object.required.push(name.to_owned());
                name
            }
            None => name,
        };
        let mut member = reader.alternatives();
        reader.expect_end();
        describe(&mut member, line.description);
        let before = object.properties.insert(name.to_owned(), member);
        assert!(before.is_none(), "{name} stands twice under: {}", head.line);
    }
    match conditions.len() {
        0 => {}
        1 => conditions.into_iter().for_each(|(keyword, value)| add_keyword(&mut object, keyword, value)),
        _ => {
            let all = conditions.into_iter().map(|(keyword, value)| json!({keyword: value})).collect();
            add_keyword(&mut object, "allOf", all);
        }
    }
    match parent {
        None => inline(Schema::Object(object)),
        Some(parent) => {
            let mut all = AllOf::new();
            all.items = vec![RefOr::Ref(Ref::from_schema_name(parent)), inline(Schema::Object(object))];
            inline(Schema::AllOf(all))
        }
    }
}

/// A condition on the members of an object: the keyword of JSON Schema that states it, and the keyword's value.
fn condition(kind: &str, members: &str) -> Option<(&'static str, Value)> {
    let present = |member: &str| json!({"required": [member]});
    let members: Vec<&str> = members.split_whitespace().collect();
    match (kind, members.as_slice()) {
        ("one-of", members) => Some(("oneOf", members.iter().map(|member| present(member)).collect())),
        ("any-of", members) => Some(("anyOf", members.iter().map(|member| present(member)).collect())),
        ("both-or-none", [one, other]) => Some(("oneOf", json!([{"not": present(one)}, present(other)]))),
        ("never", [member, "with", other, value]) => {
            let mut other_has_value = present(other);
            other_has_value["properties"] = json!({*other: {"type": "string", "enum": [value]}});
            Some(("anyOf", json!([{"not": other_has_value}, {"not": present(member)}])))
        }
        _ => None,
    }
}

fn enumeration(head: &mut Reader, body: Vec<Line>) -> Object {
    let mut object = Object::with_type(Type::String);
    head.constraints(&mut object);
    let mut values = Vec::new();
    for line in body {
        let mut reader = Reader::new(line.text);
        while !reader.rest.is_empty() {
            let value = if reader.take("\"") { reader.until("\"") } else { reader.word() };
            values.push(Value::from(value));
        }
    }
    object.enum_values = Some(values);
    object
}

/// TS 32.291 leaves most enumerations open: an older receiver has to live with the values of a newer sender.
fn open(values: Object) -> RefOr<Schema> {
    let mut any = AnyOf::new();
    any.items = vec![inline(Schema::Object(values)), inline(Schema::Object(Object::with_type(Type::String)))];
    inline(Schema::AnyOf(any))
}

/// Reads a line from left to right. Blanks before what is asked for are skipped.
struct Reader<'a> {
    line: &'a str,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn new(line: &'a str) -> Reader<'a> {
        Reader { line, rest: line }
    }

    /// A type, or several with `|` (one or more of them fit) or `^` (exactly one of them fits) between them.
    fn alternatives(&mut self) -> RefOr<Schema> {
        if self.rest.trim_start().starts_with('"') {
            return self.literals();
        }
        let mut types = vec![self.single()];
        if self.take("^") {
            types.push(self.single());
            while self.take("^") {
                types.push(self.single());
            }
            let mut one = OneOf::new();
            one.items = types;
            return inline(Schema::OneOf(one));
        }
        while self.take("|") {
            types.push(self.single());
        }
        if types.len() == 1 {
            return types.remove(0);
        }
        let mut any = AnyOf::new();
        any.items = types;
        inline(Schema::AnyOf(any))
    }

    fn literals(&mut self) -> RefOr<Schema> {
        let mut values = Vec::new();
        loop {
            self.expect("\"");
            values.push(Value::from(self.until("\"")));
            if !self.take("|") {
                break;
            }
        }
        let mut object = Object::with_type(Type::String);
        object.enum_values = Some(values);
        inline(Schema::Object(object))
    }

    fn single(&mut self) -> RefOr<Schema> {
        if self.take("[") {
            return self.array();
        }
        if self.take("{") {
            let mut map = Object::with_type(Type::Object);
            map.additional_properties = Some(Box::new(AdditionalProperties::RefOr(self.alternatives())));
            self.expect("}");
            return inline(Schema::Object(map));
        }
        let word = self.word();
        let (base, format) = match word.split_once(':') {
            Some((base, format)) => (base, Some(SchemaFormat::Custom(format.to_owned()))),
            None => (word, None),
        };
        let mut object = Object::with_type(match base {
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            "null" => Type::Null,
            name => return RefOr::Ref(Ref::from_schema_name(name)),
        });
        object.format = format;
        self.constraints(&mut object);
        inline(Schema::Object(object))
    }

    fn array(&mut self) -> RefOr<Schema> {
        let mut array = Array::new(self.alternatives());
        self.expect("]");
        if self.take("+") {
            array.min_items = Some(1);
        } else if self.take("{") {
            let (least, most) = self.range().unwrap_or_else(|| panic!("numbers of items expected: {}", self.line));
            array.min_items = least.map(length).filter(|least| *least > 0);
            array.max_items = most.map(length);
            self.expect("}");
        }
        array.unique_items = self.take("unique");
        if self.take("deprecated") {
            array.deprecated = Some(Deprecated::True);
        }
        inline(Schema::Array(array))
    }

    /// What may stand after a type.
    fn constraints(&mut self, object: &mut Object) {
        let mut patterns = Vec::new();
        loop {
            if self.take("?") {
                let SchemaType::Type(base) = object.schema_type.clone() else {
                    panic!("null is named twice: {}", self.line)
                };
                object.schema_type = SchemaType::from_iter([base, Type::Null]);
            } else if self.take("/") {
                patterns.push(self.pattern());
            } else if self.take("deprecated") {
                object.deprecated = Some(Deprecated::True);
            } else if self.take("default") {
                let value = self.word();
                object.default = Some(serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)));
            } else if let Some((least, most)) = self.range() {
                if object.schema_type == SchemaType::Type(Type::String) {
                    object.min_length = least.map(length);
                    object.max_length = most.map(length);
                } else {
                    object.minimum = least.map(number);
                    object.maximum = most.map(number);
                }
            } else {
                break;
            }
        }
        match patterns.len() {
            0 => {}
            1 => object.pattern = patterns.pop().map(str::to_owned),
            // A schema has room for one pattern; a second one needs a schema of its own.
            _ => add_keyword(object, "allOf", patterns.iter().map(|pattern| json!({"pattern": pattern})).collect()),
        }
    }

    /// A regular expression up to the next slash that no backslash precedes.
    fn pattern(&mut self) -> &'a str {
        let mut end = self.until_index("/");
        while self.rest[..end].ends_with('\\') {
            end += 1 + self.rest[end + 1..].find('/').unwrap_or_else(|| panic!("no end of a pattern: {}", self.line));
        }
        let pattern = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        pattern
    }

    /// `0..255`, where either number may be missing.
    fn range(&mut self) -> Option<(Option<&'a str>, Option<&'a str>)> {
        let before = self.rest;
        let (least, most) = self.word().split_once("..").or_else(|| {
            self.rest = before;
            None
        })?;
        let given = |bound: &'a str| (!bound.is_empty()).then_some(bound);
        Some((given(least), given(most)))
    }

    /// Everything up to a blank or a closing bracket; nothing at the end of the line.
    fn word(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let (word, rest) = rest.split_at(rest.find([' ', ']', '}']).unwrap_or(rest.len()));
        self.rest = rest;
        word
    }

    fn until(&mut self, end: &str) -> &'a str {
        let index = self.until_index(end);
        let found = &self.rest[..index];
        self.rest = &self.rest[index + end.len()..];
        found
    }

    fn until_index(&self, end: &str) -> usize {
        self.rest.find(end).unwrap_or_else(|| panic!("no closing {end}: {}", self.line))
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) {
        assert!(self.take(token), "{token} expected at `{}`: {}", self.rest, self.line);
    }

    fn expect_end(&self) {
        assert!(self.rest.trim_start().is_empty(), "not understood, `{}`: {}", self.rest, self.line);
    }
}

fn length(digits: &str) -> usize {
    digits.parse().unwrap_or_else(|_| panic!("not a length: {digits}"))
}

fn number(digits: &str) -> Number {
    match (digits.parse::<u64>(), digits.parse::<i64>()) {
        (Ok(number), _) => Number::from(number),
        (_, Ok(number)) => Number::from(number),
        _ => panic!("not a whole number: {digits}"),
    }
}

fn inline(schema: Schema) -> RefOr<Schema> {
    RefOr::T(schema)
}

/// utoipa's object has no room for these keywords of JSON Schema. Its extensions are written as members of the schema
/// as they are, so one of them can carry the keyword; the order of several would not be stable.
fn add_keyword(object: &mut Object, keyword: &str, value: Value) {
    assert!(object.extensions.is_none(), "a schema has room for one more keyword, {keyword} would be the second");
    object.extensions = Some(Extensions::from_iter([(keyword, value)]));
}

fn describe(schema: &mut RefOr<Schema>, description: Option<String>) {
    let Some(text) = description else { return };
    match schema {
        RefOr::Ref(reference) => reference.description = text,
        RefOr::T(Schema::Array(schema)) => schema.description = Some(text),
        RefOr::T(Schema::Object(schema)) => schema.description = Some(text),
        RefOr::T(Schema::OneOf(schema)) => schema.description = Some(text),
        RefOr::T(Schema::AllOf(schema)) => schema.description = Some(text),
        RefOr::T(Schema::AnyOf(schema)) => schema.description = Some(text),
        RefOr::T(_) => panic!("no description can be put here: {text}"),
    }
}
