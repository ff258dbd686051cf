//! JSON in other spellings.

use nchf::http::nchf::fingerprint::hash_json;
use serde_json::value::RawValue;

/// The same content with its members in the opposite order and other spaces; `None` for what is no JSON, or nested
/// deeper than any request may be.
pub fn respelled(json: &[u8]) -> Option<String> {
    let json: &RawValue = serde_json::from_slice(json).ok()?;
    hash_json(json.get()).ok()?;
    let mut speller = Speller { rest: json.get() };
    Some(speller.value())
}

struct Speller<'j> {
    /// Valid, so that everything that opens is closed.
    rest: &'j str,
}

impl<'j> Speller<'j> {
    fn value(&mut self) -> String {
        match self.peek() {
            '{' => {
                let members = self.items('}', |speller| {
                    let name = speller.token().to_owned();
                    speller.peek();
                    speller.rest = &speller.rest[1..];
                    format!("{name}\n:  {}", speller.value())
                });
                format!("{{\t{} }}", members.into_iter().rev().collect::<Vec<_>>().join(" ,\r\n"))
            }
            '[' => format!("[ {}]", self.items(']', Self::value).join(",\t")),
            _ => self.token().to_owned(),
        }
    }

    fn items(&mut self, end: char, mut item: impl FnMut(&mut Self) -> String) -> Vec<String> {
        let mut items = Vec::new();
        self.rest = &self.rest[1..];
        while self.peek() != end {
            items.push(item(self));
            if self.peek() == ',' {
                self.rest = &self.rest[1..];
            }
        }
        self.rest = &self.rest[1..];
        items
    }

    fn peek(&mut self) -> char {
        self.rest = self.rest.trim_start();
        self.rest.chars().next().unwrap()
    }

    /// A string, a number or a literal.
    fn token(&mut self) -> &'j str {
        let is_text = self.peek() == '"';
        let mut is_escaped = false;
        let ends = |(at, byte): (usize, u8)| {
            if !is_text {
                return matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r').then_some(at);
            }
            let is_end = byte == b'"' && !is_escaped && at > 0;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end.then_some(at + 1)
        };
        let end = self.rest.bytes().enumerate().find_map(ends).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }
}
