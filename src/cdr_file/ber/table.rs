//! The notation of `chf.records`, read. The file is part of the program, so a mistake in it is a bug: reading it panics
//! and quotes the line, and the first test that encodes a record finds it.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::SplitWhitespace;

use serde_json::Value;

use super::leaf::{Cut, Leaf};
use super::tlv;

pub struct Table {
    pub types: Vec<Type>,
    by_name: HashMap<&'static str, usize>,
}

pub enum Type {
    Fields {
        shape: Shape,
        fields: Vec<Field>,
        /// Every field is made of the value as a whole, so that it may be a list.
        takes_lists: bool,
    },
    Values {
        universal: u8,
        entries: Vec<Entry>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Set,
    Sequence,
    Choice,
}

pub struct Field {
    pub tag: u32,
    pub is_required: bool,
    pub kind: Kind,
    pub sources: Vec<Path>,
    /// One of these members of the type's value must be there; empty when nothing is asked.
    pub condition: Vec<&'static str>,
    pub default: Option<Value>,
}

#[derive(Clone)]
pub enum Kind {
    Type(usize),
    List(Box<Kind>),
    Leaf(Leaf, Cut),
}

pub struct Path {
    pub starts_from_record: bool,
    /// Members; `*` is all of them. None is the value itself.
    pub steps: Vec<&'static str>,
}

#[derive(Clone, Copy)]
pub struct Entry {
    text: &'static str,
    is_beginning: bool,
    number: i128,
}

impl Table {
    pub fn read(source: &'static str) -> Self {
        let lines = source.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut blocks: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in lines {
            match blocks.last_mut() {
                Some((_, body)) if line.starts_with(' ') => body.push(line),
                _ => blocks.push((line, Vec::new())),
            }
        }
        let name = |head: &&'static str| head.split_whitespace().nth(1).unwrap_or_else(|| panic!("no name: {head}"));
        let by_name: HashMap<&str, usize> = blocks.iter().enumerate().map(|(at, (head, _))| (name(head), at)).collect();
        assert_eq!(by_name.len(), blocks.len(), "a type is described twice");
        let mut types: Vec<Type> = Vec::with_capacity(blocks.len());
        for (head, body) in blocks {
            let read = read_type(head, &body, &by_name, &types);
            types.push(read);
        }
        Self { types, by_name }
    }

    pub fn named(&self, name: &str) -> &Type {
        &self.types[self.by_name[name]]
    }
}

impl Entry {
    /// The number of a text: its own entry's, else that of the first beginning which it has.
    pub fn number(entries: &[Self], text: &str) -> Option<i128> {
        let own = entries.iter().find(|entry| !entry.is_beginning && entry.text == text);
        let or_beginning =
            own.or_else(|| entries.iter().find(|entry| entry.is_beginning && text.starts_with(entry.text)));
        or_beginning.map(|entry| entry.number)
    }
}

fn read_type(
    head: &'static str,
    body: &[&'static str],
    by_name: &HashMap<&'static str, usize>,
    before: &[Type],
) -> Type {
    let mut words = head.split_whitespace();
    let what = words.next();
    let parent = words.nth(1).map(|sign| {
        assert_eq!(sign, "<", "not understood: {head}");
        words.next().unwrap_or_else(|| panic!("a name is missing: {head}"))
    });
    let shape = match what {
        Some("set") => Shape::Set,
        Some("sequence") => Shape::Sequence,
        Some("choice") => Shape::Choice,
        Some("values") => return values(tlv::ENUMERATED, body, parent.map(|name| &before[by_name[name]])),
        Some("codes") => return values(tlv::INTEGER, body, parent.map(|name| &before[by_name[name]])),
        _ => panic!("no type starts like this: {head}"),
    };
    let fields: Vec<Field> = body.iter().map(|line| Line::new(line).field(by_name)).collect();
    let takes_lists = fields.iter().all(|field| field.sources.iter().all(|path| path.steps.is_empty()));
    Type::Fields { shape, fields, takes_lists }
}

fn values(universal: u8, body: &[&'static str], parent: Option<&Type>) -> Type {
    let entry = |word: &'static str| {
        let (text, number) = word.rsplit_once('=').unwrap_or_else(|| panic!("no value and number: {word}"));
        let number = number.parse().unwrap_or_else(|_| panic!("no number: {word}"));
        let (text, is_beginning) = text.strip_suffix('*').map_or((text, false), |text| (text, true));
        Entry { text, is_beginning, number }
    };
    let mut entries: Vec<Entry> = body.iter().flat_map(|line| line.split_whitespace()).map(entry).collect();
    if let Some(Type::Values { entries: inherited, .. }) = parent {
        entries.extend(inherited);
    }
    Type::Values { universal, entries }
}

/// A field's line, read word by word.
struct Line {
    text: &'static str,
    words: Peekable<SplitWhitespace<'static>>,
}

impl Line {
    fn new(text: &'static str) -> Self {
        Self { text, words: text.split_whitespace().peekable() }
    }

    fn field(mut self, by_name: &HashMap<&'static str, usize>) -> Field {
        let tag = self.word();
        let (tag, is_required) = tag.strip_suffix('!').map_or((tag, false), |tag| (tag, true));
        let tag = self.number(tag);
        let name = self.word();
        let kind = self.kind(by_name);
        let sources = if self.take("<") { self.sources() } else { vec![path(name)] };
        let condition = if self.take("if") { self.word().split('|').collect() } else { Vec::new() };
        let default = self
            .take("=")
            .then(|| self.word())
            .map(|text| serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON value: {}", self.text)));
        assert!(self.words.next().is_none(), "not understood to the end: {}", self.text);
        Field { tag, is_required, kind, sources, condition, default }
    }

    fn sources(&mut self) -> Vec<Path> {
        let mut sources = Vec::new();
        while self.words.peek().is_some_and(|word| !["=", "if"].contains(word)) {
            sources.push(path(self.word()));
            self.take("|");
        }
        sources
    }

    fn kind(&mut self, by_name: &HashMap<&'static str, usize>) -> Kind {
        let word = self.word();
        let Some(item) = word.strip_prefix('[') else { return self.single(word, by_name) };
        match item.strip_suffix(']') {
            Some(item) => Kind::List(Box::new(self.single(item, by_name))),
            None => {
                let argument = self.word();
                let argument = argument.strip_suffix(']').unwrap_or_else(|| panic!("no end of a list: {}", self.text));
                let mut inner = Self { text: self.text, words: argument.split_whitespace().peekable() };
                Kind::List(Box::new(inner.single(item, by_name)))
            }
        }
    }

    fn single(&mut self, word: &'static str, by_name: &HashMap<&'static str, usize>) -> Kind {
        let leaf = match word {
            "integer" => {
                let (least, most) = self.range().unwrap_or((i128::from(i64::MIN), i128::from(u64::MAX)));
                Leaf::Integer(least, most)
            }
            "real" => Leaf::Real,
            "boolean" if self.take("is") => Leaf::BooleanIs(self.word()),
            "boolean" => Leaf::Boolean,
            "flag" => Leaf::Flag,
            "utf8" => Leaf::Utf8,
            "graphic" => Leaf::Graphic,
            "ia5" => match self.range() {
                Some((least, most)) => Leaf::Ia5(least, most),
                None => self.length().map_or(Leaf::Ia5(0, usize::MAX), |most| Leaf::Ia5(1, most)),
            },
            "utf8-json" => Leaf::Utf8Json,
            "json" => Leaf::Json,
            "octets" => Leaf::Octets,
            "hex" => Leaf::Hex(self.length()),
            "tbcd" => Leaf::Tbcd,
            "address" => Leaf::Address,
            "time" => Leaf::Time,
            "zone" => Leaf::Zone,
            "plmn" => Leaf::Plmn,
            "tmgi" => Leaf::Tmgi,
            "ip" if self.take("4") => Leaf::Ip4,
            "ip" if self.take("6") => Leaf::Ip6,
            "prefix" => Leaf::Prefix,
            name => return Kind::Type(*by_name.get(name).unwrap_or_else(|| panic!("no kind {name}: {}", self.text))),
        };
        let mut cut = Cut::default();
        loop {
            if self.take("after") {
                cut.after = Some(self.word());
            } else if self.take("from") {
                cut.from = Some(self.word());
            } else if self.take("without") {
                cut.without = self.word().split('|').collect();
            } else if self.take("until") {
                cut.until = Some(self.word());
            } else {
                return Kind::Leaf(leaf, cut);
            }
        }
    }

    fn range<T: std::str::FromStr>(&mut self) -> Option<(T, T)> {
        let (least, most) = self.words.peek()?.split_once("..").filter(|(least, _)| !least.is_empty())?;
        self.words.next();
        Some((self.number(least), self.number(most)))
    }

    fn length(&mut self) -> Option<usize> {
        let length = self.words.peek()?.parse().ok()?;
        self.words.next();
        Some(length)
    }

    fn number<T: std::str::FromStr>(&self, digits: &str) -> T {
        digits.parse().unwrap_or_else(|_| panic!("{digits} is no number: {}", self.text))
    }

    fn word(&mut self) -> &'static str {
        self.words.next().unwrap_or_else(|| panic!("something is missing: {}", self.text))
    }

    fn take(&mut self, word: &str) -> bool {
        self.words.next_if(|next| *next == word).is_some()
    }
}

fn path(text: &'static str) -> Path {
    let rest = text.strip_prefix('/');
    let steps = if text == "." { Vec::new() } else { rest.unwrap_or(text).split('.').collect() };
    Path { starts_from_record: rest.is_some(), steps }
}
