//! Members as they come: read once, without an error for a wrong type, so that one answer can name everything that is
//! missing or wrong.
//!
//! Only what is no JSON, a member named twice, or more than the limits below stops the reading itself.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Elements of one array, and members of one object that this program does not read: far above what any network
/// function sends, and low enough that comparing each with each costs nothing worth naming.
pub const ELEMENTS_MAX: usize = 256;

/// Elements that most arrays have at most. Elements are large, and room for more would be touched for nothing.
const ELEMENTS_USUAL: usize = 2;

/// One member of an object, or one element of an array. `null` counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Member<T> {
    #[default]
    Absent,
    Wrong(Fault),
    Is(T),
}

/// Why a member is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another JSON type; the text says which one is right.
    Type(&'static str),
    /// The right type, out of its range.
    Range(&'static str),
    /// More elements than [`ELEMENTS_MAX`].
    TooMany,
}

/// Members by name that are kept as they came.
pub type Others<'de> = Vec<(Cow<'de, str>, &'de RawValue)>;

/// What a JSON value becomes. Each method is asked when a value of its type is found; by default all are wrong.
pub trait Value<'de>: Sized {
    /// The JSON type that is right, as a reader of the answer would call it.
    const EXPECTED: &'static str;

    fn text(_: Cow<'de, str>) -> Result<Self, Fault> {
        Err(Fault::Type(Self::EXPECTED))
    }

    fn boolean(_: bool) -> Result<Self, Fault> {
        Err(Fault::Type(Self::EXPECTED))
    }

    fn unsigned(_: u64) -> Result<Self, Fault> {
        Err(Fault::Type(Self::EXPECTED))
    }

    fn negative(_: i64) -> Result<Self, Fault> {
        Err(Fault::Type(Self::EXPECTED))
    }

    /// Too large for an integer, or with a fraction or an exponent.
    fn float(_: f64) -> Result<Self, Fault> {
        Err(Fault::Type(Self::EXPECTED))
    }

    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Result<Self, Fault>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Err(Fault::Type(Self::EXPECTED)))
    }

    fn array<A: SeqAccess<'de>>(mut seq: A) -> Result<Result<Self, Fault>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(Fault::Type(Self::EXPECTED)))
    }
}

impl<'de, T: Value<'de>> Deserialize<'de> for Member<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor(PhantomData))
    }
}

struct MemberVisitor<T>(PhantomData<T>);

impl<T> From<Result<T, Fault>> for Member<T> {
    fn from(read: Result<T, Fault>) -> Self {
        read.map_or_else(Self::Wrong, Self::Is)
    }
}

impl<'de, T: Value<'de>> Visitor<'de> for MemberVisitor<T> {
    type Value = Member<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Member::Absent)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(T::boolean(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(T::unsigned(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(value).map_or_else(|_| T::negative(value), T::unsigned).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(T::float(value).into())
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(T::text(Cow::Borrowed(value)).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(T::text(Cow::Owned(value.to_owned())).into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Ok(T::object(map)?.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Ok(T::array(seq)?.into())
    }
}

impl<'de> Value<'de> for Cow<'de, str> {
    const EXPECTED: &'static str = "a string";

    fn text(text: Cow<'de, str>) -> Result<Self, Fault> {
        Ok(text)
    }
}

impl<'de> Value<'de> for bool {
    const EXPECTED: &'static str = "true or false";

    fn boolean(value: bool) -> Result<Self, Fault> {
        Ok(value)
    }
}

/// Larger than any integer JSON numbers of this protocol can be, but written as one.
fn is_huge_integer(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() >= 9_007_199_254_740_992.0
}

macro_rules! integer {
    ($type:ty, $range:literal) => {
        impl<'de> Value<'de> for $type {
            const EXPECTED: &'static str = "an integer";

            fn unsigned(value: u64) -> Result<Self, Fault> {
                value.try_into().map_err(|_| Fault::Range($range))
            }

            fn negative(value: i64) -> Result<Self, Fault> {
                value.try_into().map_err(|_| Fault::Range($range))
            }

            fn float(value: f64) -> Result<Self, Fault> {
                Err(if is_huge_integer(value) { Fault::Range($range) } else { Fault::Type(Self::EXPECTED) })
            }
        }
    };
}
integer!(u32, "0 to 4294967295");
integer!(u64, "0 to 18446744073709551615");
integer!(i64, "-9223372036854775808 to 9223372036854775807");

impl<'de, T: Value<'de>> Value<'de> for Vec<Member<T>> {
    const EXPECTED: &'static str = "an array";

    fn array<A: SeqAccess<'de>>(mut seq: A) -> Result<Result<Self, Fault>, A::Error> {
        let mut elements = Self::with_capacity(ELEMENTS_USUAL);
        while let Some(element) = seq.next_element()? {
            if elements.len() == ELEMENTS_MAX {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Err(Fault::TooMany));
            }
            elements.push(element);
        }
        Ok(Ok(elements))
    }
}

/// A member's name, borrowed from the body where it has no escapes.
pub struct Name<'de>(pub Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

/// Keeps a member that this program does not read.
pub fn keep<'de, A: MapAccess<'de>>(
    others: &mut Others<'de>,
    name: Cow<'de, str>,
    map: &mut A,
) -> Result<(), A::Error> {
    if others.len() == ELEMENTS_MAX {
        return Err(de::Error::custom("an object has more members than any of this protocol"));
    }
    if others.iter().any(|(known, _)| *known == name) {
        return Err(de::Error::custom("a member is named twice"));
    }
    others.push((name, map.next_value()?));
    Ok(())
}

/// Declares an object: its members by their JSON names (and the misspellings that real senders use), all others kept.
macro_rules! object {
    ($(#[$doc:meta])* $object:ident { $($field:ident: $type:ty = $name:literal $(or $alias:literal)*,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $object<'de> {
            $(pub $field: $crate::http::nchf::wire::member::Member<$type>,)+
            pub others: $crate::http::nchf::wire::member::Others<'de>,
        }

        impl<'de> $crate::http::nchf::wire::member::Value<'de> for $object<'de> {
            const EXPECTED: &'static str = "an object";

            fn object<A: serde::de::MapAccess<'de>>(
                mut map: A,
            ) -> Result<Result<Self, $crate::http::nchf::wire::member::Fault>, A::Error> {
                use $crate::http::nchf::wire::member::{Member, Name, keep};

                let mut object = Self::default();
                while let Some(Name(name)) = map.next_key()? {
                    match &*name {
                        $($name $(| $alias)* => {
                            if object.$field != Member::Absent {
                                return Err(serde::de::Error::custom(concat!($name, " is named twice")));
                            }
                            object.$field = map.next_value()?;
                        })+
                        _ => keep(&mut object.others, name, &mut map)?,
                    }
                }
                Ok(Ok(object))
            }
        }

        impl PartialEq for $object<'_> {
            fn eq(&self, other: &Self) -> bool {
                $(self.$field == other.$field)&&+
                    && self.others.len() == other.others.len()
                    && self.others.iter().zip(&other.others).all(|(a, b)| a.0 == b.0 && a.1.get() == b.1.get())
            }
        }
    };
}
pub(super) use object;

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a, T: Value<'a>>(json: &'a str) -> Member<T> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_member_is_read_or_says_what_is_wrong_with_it() {
        assert_eq!(read::<u32>("4294967295"), Member::Is(u32::MAX));
        for (json, fault) in [
            ("4294967296", Fault::Range("0 to 4294967295")),
            ("-1", Fault::Range("0 to 4294967295")),
            ("1e30", Fault::Range("0 to 4294967295")),
            ("1.0", Fault::Type("an integer")),
            ("\"10\"", Fault::Type("an integer")),
            ("true", Fault::Type("an integer")),
            ("{\"a\":[1]}", Fault::Type("an integer")),
            ("[[]]", Fault::Type("an integer")),
        ] {
            assert_eq!(read::<u32>(json), Member::Wrong(fault), "{json}");
        }
        assert_eq!(read::<u64>("18446744073709551615"), Member::Is(u64::MAX));
        assert_eq!(read::<u64>("18446744073709551616"), Member::Wrong(Fault::Range("0 to 18446744073709551615")));
        assert_eq!(read::<bool>("null"), Member::Absent);
        assert_eq!(read::<Cow<'_, str>>(r#""a\u0041""#), Member::Is("aA".into()));
        assert_eq!(read::<Vec<Member<bool>>>("[true,3]"), {
            Member::Is(vec![Member::Is(true), Member::Wrong(Fault::Type("true or false"))])
        });
    }

    #[test]
    fn an_array_has_a_limit() {
        let json = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert!(matches!(read::<Vec<Member<u32>>>(&json(ELEMENTS_MAX)), Member::Is(_)));
        assert_eq!(read::<Vec<Member<u32>>>(&json(ELEMENTS_MAX + 1)), Member::Wrong(Fault::TooMany));
    }
}
