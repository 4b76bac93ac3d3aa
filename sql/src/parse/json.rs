//! JSON lines, read in one pass: members that no column wants are checked and skipped.

use std::{borrow::Cow, fmt};

use model::table::Column;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Parser, Value};

/// Between the names of a path.
pub(crate) const DOT: char = '.';

pub(crate) struct Json {
    wanted: Wanted,
    /// The columns whose place within objects was found in this line; a member named by the whole path yields to it.
    within: Vec<bool>,
}

/// What is wanted of an object, by the names of its members.
#[derive(Default)]
struct Wanted {
    members: Vec<(String, Member)>,
}

#[derive(Default)]
struct Member {
    /// The column that it is.
    column: Option<usize>,
    /// What is wanted of it when it is an object.
    inside: Wanted,
    /// The column that has this name as its whole path, where the path has several names.
    dotted: Option<usize>,
}

impl Wanted {
    fn member(&mut self, name: &str) -> &mut Member {
        let place = self.members.iter().position(|(known, _)| known == name);
        let place = place.unwrap_or_else(|| {
            self.members.push((name.to_string(), Member::default()));
            self.members.len() - 1
        });
        &mut self.members[place].1
    }

    fn add(&mut self, path: &[&str], column: usize) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        if rest.is_empty() {
            self.member(first).column = Some(column);
        } else {
            self.member(first).inside.add(rest, column);
            self.member(&path.join(".")).dotted = Some(column);
        }
    }

    fn find(&self, name: &str) -> Option<&Member> {
        self.members
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, member)| member)
    }

    /// Calls `each` with all columns within.
    fn columns(&self, each: &mut impl FnMut(usize)) {
        for (_, member) in &self.members {
            member
                .column
                .into_iter()
                .chain(member.dotted)
                .for_each(&mut *each);
            member.inside.columns(each);
        }
    }
}

impl Json {
    pub(crate) fn new(columns: &[Column], looked_at: &[bool]) -> Self {
        let mut wanted = Wanted::default();
        for (place, column) in columns.iter().enumerate().filter(|(place, _)| looked_at[*place]) {
            let path: Vec<&str> = column.name.split(DOT).collect();
            wanted.add(&path, place);
        }
        Self {
            wanted,
            within: vec![false; columns.len()],
        }
    }
}

impl Parser for Json {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        self.within.fill(false);
        let object = Object {
            wanted: &self.wanted,
            row,
            within: &mut self.within,
        };
        let mut json = serde_json::Deserializer::from_slice(line);
        let read = json.deserialize_map(object).and_then(|()| json.end());
        read.map_err(|error| format!("no JSON object: {error}"))
    }
}

/// Reads an object into the row.
struct Object<'w, 'r, 'a> {
    wanted: &'w Wanted,
    row: &'r mut [Value<'a>],
    within: &'r mut [bool],
}

impl<'a> Visitor<'a> for Object<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut members: M) -> Result<(), M::Error> {
        while let Some(Name(name)) = members.next_key()? {
            let Some(member) = self.wanted.find(&name) else {
                members.next_value::<Checked>()?;
                continue;
            };
            let read = Inside {
                member,
                row: &mut *self.row,
                within: &mut *self.within,
            };
            let value = members.next_value_seed(read)?;
            if let Some(column) = member.column {
                self.row[column] = value;
            } else if let Some(column) = member.dotted.filter(|&column| !self.within[column]) {
                self.row[column] = value;
            }
        }
        Ok(())
    }
}

/// A value that nobody wants. It is read as if somebody did: whether a line is broken must not depend on what is asked.
struct Checked;

impl<'a> Deserialize<'a> for Checked {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'a> Visitor<'a> for Checked {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E: Error>(self, _value: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: Error>(self, _value: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, _value: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, _value: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(self, _text: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut items: S) -> Result<Self, S::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<M: MapAccess<'a>>(self, mut members: M) -> Result<Self, M::Error> {
        while members.next_entry::<Name<'a>, Self>()?.is_some() {}
        Ok(self)
    }
}

/// The name of a member, without a copy where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'a> Deserialize<'a> for Name<'a> {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'a> Visitor<'a> for Text {
            type Value = Name<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Name<'a>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name<'a>, E> {
                Ok(Name(Cow::Owned(text.to_string())))
            }
        }
        from.deserialize_str(Text)
    }
}

/// Reads a wanted value: as text, and where it is an object also what is wanted of it.
struct Inside<'w, 'r, 'a> {
    member: &'w Member,
    row: &'r mut [Value<'a>],
    within: &'r mut [bool],
}

impl<'a> DeserializeSeed<'a> for Inside<'_, '_, 'a> {
    type Value = Value<'a>;

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<Value<'a>, D::Error> {
        from.deserialize_any(self)
    }
}

fn owned<'a>(text: impl ToString) -> Value<'a> {
    Some(Cow::Owned(text.to_string().into_bytes()))
}

impl<'a> Visitor<'a> for Inside<'_, '_, 'a> {
    type Value = Value<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'a>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value<'a>, E> {
        let text: &[u8] = if value { b"true" } else { b"false" };
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value<'a>, E> {
        Ok(owned(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value<'a>, E> {
        Ok(owned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value<'a>, E> {
        Ok(serde_json::Number::from_f64(value).and_then(owned))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Value<'a>, E> {
        Ok(Some(Cow::Borrowed(text.as_bytes())))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value<'a>, E> {
        Ok(owned(text))
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut items: S) -> Result<Value<'a>, S::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element::<serde_json::Value>()? {
            all.push(item);
        }
        Ok(owned(serde_json::Value::Array(all)))
    }

    fn visit_map<M: MapAccess<'a>>(self, mut members: M) -> Result<Value<'a>, M::Error> {
        self.member.inside.columns(&mut |column| {
            self.row[column] = None;
            self.within[column] = true;
        });
        let as_text = self.member.column.is_some() || self.member.dotted.is_some();
        if !as_text {
            let object = Object {
                wanted: &self.member.inside,
                row: self.row,
                within: self.within,
            };
            object.visit_map(members)?;
            return Ok(None);
        }
        // Rare: an object where a text is wanted too.
        let mut whole = serde_json::Map::new();
        while let Some((name, value)) = members.next_entry::<String, serde_json::Value>()? {
            whole.insert(name, value);
        }
        put_within(&self.member.inside, &whole, self.row);
        Ok(owned(serde_json::Value::Object(whole)))
    }
}

/// Puts what is wanted of an object that was read as a whole.
fn put_within(wanted: &Wanted, object: &serde_json::Map<String, serde_json::Value>, row: &mut [Value<'_>]) {
    for (name, member) in &wanted.members {
        let value = object.get(name);
        if let (Some(column), Some(value)) = (member.column, value) {
            row[column] = match value {
                serde_json::Value::Null => None,
                serde_json::Value::String(text) => owned(text),
                other => owned(other),
            };
        }
        if let Some(serde_json::Value::Object(inner)) = value {
            put_within(&member.inside, inner, row);
        }
    }
}
