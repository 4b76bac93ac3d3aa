//! `kv(text, key)`: the value behind a key in a text, as in `user=bob`.

use std::{borrow::Cow, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder},
        compute::cast,
        datatypes::DataType,
    },
    common::{ScalarValue, types::logical_string},
    error::Result as Fallible,
    logical_expr::{
        Coercion, ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignatureClass, Volatility,
    },
};
use memchr::memmem::Finder;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Kv {
    signature: Signature,
}

impl Kv {
    pub(super) fn new() -> Self {
        let text = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
        Self {
            signature: Signature::coercible(vec![text(), text()], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Kv {
    fn name(&self) -> &'static str {
        "kv"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Fallible<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, called: ScalarFunctionArgs) -> Fallible<ColumnarValue> {
        let arguments = ColumnarValue::values_to_arrays(&called.args)?;
        let [texts, keys] = &arguments[..] else {
            return datafusion::common::exec_err!(
                "kv takes a text and a key, not {} values",
                arguments.len()
            );
        };
        let texts = cast(texts, &DataType::Utf8View)?;
        let texts = texts.as_string_view();
        let found = match &called.args[1] {
            ColumnarValue::Scalar(key) => match key.try_as_str() {
                Some(Some(key)) => behind_one(texts, key),
                _ => StringViewArray::new_null(texts.len()),
            },
            ColumnarValue::Array(_) => behind_each(texts, cast(keys, &DataType::Utf8View)?.as_string_view()),
        };
        let is_constant = called
            .args
            .iter()
            .all(|one| matches!(one, ColumnarValue::Scalar(_)));
        if is_constant && found.len() == 1 {
            return ScalarValue::try_from_array(&found, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(Arc::new(found) as ArrayRef))
    }
}

/// The values behind one key.
fn behind_one(texts: &StringViewArray, key: &str) -> StringViewArray {
    let finder = Finder::new(key);
    let mut builder = StringViewBuilder::with_capacity(texts.len());
    for text in texts {
        builder.append_option(text.and_then(|text| value(text, &finder)));
    }
    builder.finish()
}

/// The values behind the key of each row.
fn behind_each(texts: &StringViewArray, keys: &StringViewArray) -> StringViewArray {
    let mut builder = StringViewBuilder::with_capacity(texts.len());
    for (text, key) in texts.iter().zip(keys) {
        let found = text
            .zip(key)
            .and_then(|(text, key)| value(text, &Finder::new(key)));
        builder.append_option(found);
    }
    builder.finish()
}

/// The value behind the first place where a key stands as a word of its own with `=` or `:` behind it.
fn value<'t>(text: &'t str, key: &Finder<'_>) -> Option<Cow<'t, str>> {
    let length = key.needle().len();
    if length == 0 {
        return None;
    }
    let of_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) || !byte.is_ascii();
    let begins_word = |at: usize| at == 0 || !of_word(text.as_bytes()[at - 1]);
    key.find_iter(text.as_bytes()).find_map(|at| {
        let behind = text.get(at + length..).filter(|_| begins_word(at))?;
        if let Some(value) = behind.strip_prefix('=') {
            return Some(cut(value));
        }
        let value = behind.strip_prefix(':')?;
        Some(cut(value.strip_prefix(' ').unwrap_or(value)))
    })?
}

/// The value that a text begins with: in quotes, or up to white space, a comma or a semicolon; none where that is nothing.
fn cut(text: &str) -> Option<Cow<'_, str>> {
    if let Some(inside) = text.strip_prefix('"') {
        return unquoted(inside);
    }
    let end = text.find(|c: char| c.is_whitespace() || c == ',' || c == ';');
    let mut value = &text[..end.unwrap_or(text.len())];
    // A bracket that was opened before the key is not a part of it.
    for (open, closing) in [('(', ')'), ('[', ']'), ('{', '}')] {
        if !value.contains(open) {
            value = value.trim_end_matches(closing);
        }
    }
    (!value.is_empty()).then_some(Cow::Borrowed(value))
}

/// What stands before the closing quote; a backslash takes what is behind it as it is.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let end = text.find(['"', '\\'])?;
    if text[end..].starts_with('"') {
        return Some(Cow::Borrowed(&text[..end]));
    }
    let (mut value, mut rest) = (String::new(), text.chars());
    loop {
        match rest.next()? {
            '"' => return Some(Cow::Owned(value)),
            '\\' => value.push(rest.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_behind_their_keys() {
        for (text, key, expected) in [
            ("user=0 logged in", "user", Some("0")),
            ("ruser= rhost=a user=bob", "user", Some("bob")),
            ("ruser= rhost=a", "ruser", None),
            ("ruser= rhost=218.188.2.4 ", "rhost", Some("218.188.2.4")),
            ("a=1,b=2;c=3", "a", Some("1")),
            ("a=1,b=2;c=3", "b", Some("2")),
            ("(id=[7])", "id", Some("[7]")),
            ("done (took=12ms)", "took", Some("12ms")),
            ("msg=\"a \\\"b\\\" c\" x=1", "msg", Some("a \"b\" c")),
            ("msg=\"\"", "msg", Some("")),
            ("msg=\"open", "msg", None),
            (
                "client: 192.0.2.0, server: example.test, request: \"GET /p0 HTTP/1.1\"",
                "server",
                Some("example.test"),
            ),
            (
                "client: 192.0.2.0, request: \"GET /p0 HTTP/1.1\"",
                "request",
                Some("GET /p0 HTTP/1.1"),
            ),
            ("user  = x", "user", None),
            ("superuser=1 user.name=2 user=3", "user", Some("3")),
            ("größe=5 e=6", "e", Some("6")),
            ("a", "a", None),
            ("a=", "a", None),
            ("=1", "", None),
        ] {
            let found = value(text, &Finder::new(key));
            assert_eq!(found.as_deref(), expected, "{key} in {text}");
        }
    }
}
