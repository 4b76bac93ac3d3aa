//! Access logs of Apache and nginx: `%h %l %u %t "%r" %>s %b`, then `"%{Referer}i" "%{User-agent}i"` (combined), then a
//! request time in seconds. See <https://httpd.apache.org/docs/2.4/logs.html#accesslog>.

use memchr::{memchr, memrchr};
use model::table::ColumnType;

pub(crate) use self::scan::scan;
use super::{Parser, Value, put};

mod marks;
mod scan;

pub(crate) const COLUMNS: [(&str, ColumnType); 12] = [
    ("host", ColumnType::Text),
    ("ident", ColumnType::Text),
    ("user", ColumnType::Text),
    ("time", ColumnType::Timestamp),
    ("method", ColumnType::Text),
    ("path", ColumnType::Text),
    ("protocol", ColumnType::Text),
    ("status", ColumnType::Integer),
    ("bytes", ColumnType::Integer),
    ("referer", ColumnType::Text),
    ("user_agent", ColumnType::Text),
    ("request_time", ColumnType::Float),
];

pub(super) struct Access;

/// The part up to the next blank, and what is behind it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b' ', text)?;
    Some((&text[..end], &text[end + 1..]))
}

/// What stands between quotes, escapes left as they are, and what is behind the closing one.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let [b'"', rest @ ..] = text else { return None };
    let mut from = 0;
    loop {
        let at = from + memchr(b'"', &rest[from..])?;
        let escapes = rest[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
        if escapes % 2 == 0 {
            return Some((&rest[..at], &rest[at + 1..]));
        }
        from = at + 1;
    }
}

/// A hyphen stands for nothing.
fn put_given<'a>(row: &mut [Value<'a>], column: usize, value: &'a [u8]) {
    if value != b"-" {
        put(row, column, value);
    }
}

/// Whether it is the address or the full name of a host, which no identity is.
fn is_address(word: &[u8]) -> bool {
    word.iter().any(|byte| matches!(byte, b'.' | b':'))
}

impl Parser for Access {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        let missing = |what: &str| format!("{what} is missing");
        let (host, mut rest) = word(line).ok_or_else(|| missing("the host"))?;
        // The addresses of X-Forwarded-For: the first is that of the client.
        let mut listed = host;
        while listed.ends_with(b",") {
            (listed, rest) = word(rest).ok_or_else(|| missing("the identity"))?;
        }
        put(row, 0, host.split(|&byte| byte == b',').next().unwrap_or(host));
        let (ident, rest) = word(rest).ok_or_else(|| missing("the identity"))?;
        if is_address(ident) {
            return Err("two hosts or addresses stand before the identity: see the formats access_vhost and access_forwarded".into());
        }
        put_given(row, 1, ident);
        // Names of users may contain blanks: the time begins at the first bracket behind one.
        let bracket = memchr(b'[', rest).filter(|&at| at > 0 && rest[at - 1] == b' ');
        let bracket = bracket.ok_or_else(|| missing("the time in brackets"))?;
        put_given(row, 2, &rest[..bracket - 1]);
        let rest = &rest[bracket + 1..];
        let end = memchr(b']', rest).ok_or_else(|| missing("the end of the time"))?;
        put(row, 3, &rest[..end]);
        let rest = rest[end + 1..]
            .strip_prefix(b" ")
            .ok_or_else(|| missing("the request"))?;
        let (request, rest) = quoted(rest).ok_or_else(|| missing("the request in quotes"))?;
        put_request(row, request);
        let rest = rest.strip_prefix(b" ").ok_or_else(|| missing("the status"))?;
        let (status, rest) = word(rest).ok_or_else(|| missing("the size"))?;
        put_given(row, 7, status);
        let (bytes, mut rest) = word(rest).unwrap_or((rest, b""));
        put_given(row, 8, bytes);
        if rest.first() == Some(&b'"') {
            let (referer, behind) = quoted(rest).ok_or_else(|| missing("the end of the referer"))?;
            put_given(row, 9, referer);
            let behind = behind
                .strip_prefix(b" ")
                .ok_or_else(|| missing("the user agent"))?;
            let (agent, behind) = quoted(behind).ok_or_else(|| missing("the user agent in quotes"))?;
            put_given(row, 10, agent);
            rest = behind.strip_prefix(b" ").unwrap_or(behind);
        }
        let (time, _) = word(rest).unwrap_or((rest, b""));
        if !time.is_empty() && time.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
            put(row, 11, time);
        }
        Ok(())
    }
}

/// A request that is no `METHOD PATH PROTOCOL` is all path, as it was sent.
fn put_request<'a>(row: &mut [Value<'a>], request: &'a [u8]) {
    let (method, path, protocol) = request_parts(request);
    if let Some(method) = method {
        put(row, 4, method);
        put(row, 5, path);
    } else {
        put_given(row, 5, path);
    }
    if let Some(protocol) = protocol {
        put(row, 6, protocol);
    }
}

/// Method, path and protocol.
fn request_parts(request: &[u8]) -> (Option<&[u8]>, &[u8], Option<&[u8]>) {
    let method = word(request)
        .filter(|(method, _)| !method.is_empty() && method.iter().all(|byte| byte.is_ascii_alphabetic()));
    let Some((method, rest)) = method else {
        return (None, request, None);
    };
    match memrchr(b' ', rest).filter(|&at| rest[at + 1..].starts_with(b"HTTP/")) {
        Some(at) => (Some(method), &rest[..at], Some(&rest[at + 1..])),
        None => (Some(method), rest, None),
    }
}
