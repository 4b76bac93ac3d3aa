//! The fast way through an access log: where the quotes of a line stand tells all of its parts.
//!
//! Only lines that are just as servers write them go this way, and they come out as [`super::Access`] would have them; any
//! other line is given to it.

use memchr::memchr;

use super::{COLUMNS, is_address, marks::Marks, request_parts};
use crate::{
    decode::{Sink, without_return},
    parse::Value,
    time::Clock,
};

const HOST: usize = 0;
const IDENT: usize = 1;
const USER: usize = 2;
const TIME: usize = 3;
const METHOD: usize = 4;
const PATH: usize = 5;
const PROTOCOL: usize = 6;
const STATUS: usize = 7;
const BYTES: usize = 8;
const REFERER: usize = 9;
const AGENT: usize = 10;
const REQUEST_TIME: usize = 11;

/// Reads all lines.
pub(crate) fn scan(lines: &[u8], sink: &mut Sink<'_>) {
    // Checked once, so that its parts, which end at ASCII characters, need no check.
    let text = simdutf8::basic::from_utf8(lines).ok();
    let mut scan = Scan {
        lines,
        text,
        marks: Marks::new(lines),
        clock: Clock::new(None),
        request: [METHOD, PATH, PROTOCOL].iter().any(|&place| sink.looks_at(place)),
        sink,
    };
    let mut row = vec![None; COLUMNS.len()];
    let mut begin = 0;
    while begin < lines.len() {
        begin = scan.line(begin, &mut row);
    }
}

struct Scan<'a, 's, 't> {
    lines: &'a [u8],
    text: Option<&'a str>,
    marks: Marks<'a>,
    clock: Clock,
    /// Whether a part of the request is looked at.
    request: bool,
    sink: &'s mut Sink<'t>,
}

/// Where the parts of a line begin and end.
struct Places {
    host: usize,
    ident: usize,
    /// Begin and end of the user.
    user: (usize, usize),
    /// The quotes around request, referer and user agent; the last two pairs are the same without these.
    quotes: [usize; 6],
    bytes: (usize, usize),
    request_time: (usize, usize),
}

impl<'a> Scan<'a, '_, '_> {
    /// Reads the line that begins here; where the next one does.
    fn line(&mut self, begin: usize, row: &mut [Value<'a>]) -> usize {
        let mut marks = [0; 7];
        let mut count = 0;
        let end = loop {
            let mark = self.marks.next();
            if self.lines.get(mark).is_none_or(|&byte| byte == b'\n') {
                break mark;
            }
            if count < marks.len() {
                marks[count] = mark;
                count += 1;
            }
        };
        let line = without_return(&self.lines[begin..end]);
        match self.places(begin, begin + line.len(), &marks[..count]) {
            Some(places) => {
                self.put(begin, &places);
                self.sink.end_of_line(line);
            }
            None => self.sink.line(line, row),
        }
        end + 1
    }

    /// The parts of a line with the given quotes, if it is as servers write it.
    #[inline]
    fn places(&self, begin: usize, end: usize, quotes: &[usize]) -> Option<Places> {
        let lines = self.lines;
        let (full, quotes) = match *quotes {
            [a, b] => (false, [a, b, b, b, b, b]),
            [a, b, c, d, e, f] => (true, [a, b, c, d, e, f]),
            _ => return None,
        };
        let closing: &[usize] = if full { &[1, 3, 5] } else { &[1] };
        if closing.iter().any(|&quote| lines[quotes[quote] - 1] == b'\\') {
            return None;
        }
        let (opened, closed) = (quotes[0], quotes[1]);
        let head = lines.get(begin..opened)?.strip_suffix(b"] ")?;
        if let Some(0 | 0xef) = head.first() {
            return None;
        }
        let host = head.iter().position(|&byte| byte == b' ')?;
        if head[..host].contains(&b',') {
            return None;
        }
        let (ident, user, time) = if head[host..].starts_with(b" - - [") {
            (host + 2, (host + 3, host + 4), host + 6)
        } else {
            let ident = host + 1 + memchr(b' ', &head[host + 1..])?;
            let time = ident + 1 + memchr(b'[', &head[ident + 1..])?;
            if time < ident + 2 || head[time - 1] != b' ' || is_address(&head[host + 1..ident]) {
                return None;
            }
            (ident, (ident + 1, time - 1), time + 1)
        };
        // A bracket within the time would end it.
        if head[time..]
            .iter()
            .fold(false, |found, &byte| found | (byte == b']'))
        {
            return None;
        }
        // ` 200 ` behind the request.
        let [b' ', a, b, c, b' ', ..] = *lines.get(closed + 1..end)? else {
            return None;
        };
        if ![a, b, c].iter().all(u8::is_ascii_digit) {
            return None;
        }
        let bytes = closed + 6;
        let length = lines
            .get(bytes..end)?
            .iter()
            .position(|&byte| byte == b' ')
            .unwrap_or(end - bytes);
        let bytes = (bytes, bytes + length);
        let request_time = if full {
            if quotes[2] != bytes.1 + 1 || quotes[4] != quotes[3] + 2 || lines[quotes[3] + 1] != b' ' {
                return None;
            }
            match &lines[quotes[5] + 1..end] {
                [] => (end, end),
                [b' ', time @ ..] if is_decimal(time) => (quotes[5] + 2, end),
                _ => return None,
            }
        } else if bytes.1 == end {
            (end, end)
        } else {
            return None;
        };
        Some(Places {
            host: begin + host,
            ident: begin + ident,
            user: (begin + user.0, begin + user.1),
            quotes,
            bytes,
            request_time,
        })
    }

    #[inline]
    fn put(&mut self, begin: usize, places: &Places) {
        let &Places {
            host,
            ident,
            user,
            quotes,
            bytes,
            request_time,
        } = places;
        self.text(HOST, begin, host);
        self.text_given(IDENT, host + 1, ident);
        self.text_given(USER, user.0, user.1);
        self.time(user.1 + 2, quotes[0] - 2);
        if self.request {
            self.request(quotes[0] + 1, quotes[1]);
        }
        self.status(quotes[1] + 2);
        self.number_given(BYTES, bytes.0, bytes.1);
        let is_full = quotes[2] != quotes[1];
        if is_full {
            self.text_given(REFERER, quotes[2] + 1, quotes[3]);
            self.text_given(AGENT, quotes[4] + 1, quotes[5]);
        } else {
            self.null(REFERER);
            self.null(AGENT);
        }
        if request_time.0 < request_time.1 {
            self.sink
                .value(REQUEST_TIME, &self.lines[request_time.0..request_time.1]);
        } else {
            self.null(REQUEST_TIME);
        }
    }

    #[inline]
    fn null(&mut self, place: usize) {
        if let Some(builder) = &mut self.sink.own[place] {
            builder.null();
        }
    }

    #[inline]
    fn text(&mut self, place: usize, from: usize, to: usize) {
        if let Some(builder) = &mut self.sink.own[place] {
            match self.text.and_then(|text| text.get(from..to)) {
                Some(text) => builder.text(text),
                None => drop(builder.value(&self.lines[from..to])),
            }
        }
    }

    /// A hyphen stands for nothing.
    #[inline]
    fn text_given(&mut self, place: usize, from: usize, to: usize) {
        if &self.lines[from..to] == b"-" {
            self.null(place);
        } else {
            self.text(place, from, to);
        }
    }

    #[inline]
    fn number_given(&mut self, place: usize, from: usize, to: usize) {
        if &self.lines[from..to] == b"-" {
            self.null(place);
        } else {
            self.sink.value(place, &self.lines[from..to]);
        }
    }

    #[inline]
    fn time(&mut self, from: usize, to: usize) {
        let Some(builder) = &mut self.sink.own[TIME] else {
            return;
        };
        let text = &self.lines[from..to];
        match self.clock.whole(text) {
            Some(time) => builder.timestamp(time),
            None => {
                builder.null();
                self.sink.misfit(TIME, text);
            }
        }
    }

    /// Three digits.
    #[inline]
    fn status(&mut self, from: usize) {
        if let Some(builder) = &mut self.sink.own[STATUS] {
            let digit = |place: usize| i64::from(self.lines[from + place] - b'0');
            builder.integer(digit(0) * 100 + digit(1) * 10 + digit(2));
        }
    }

    #[inline]
    fn request(&mut self, from: usize, to: usize) {
        let request = &self.lines[from..to];
        let (method, path, protocol) = request_parts(request);
        let (method, protocol) = (method.map(<[u8]>::len), protocol.map(<[u8]>::len));
        match method {
            Some(length) => {
                self.text(METHOD, from, from + length);
                let path_from = from + length + 1;
                self.text(PATH, path_from, path_from + path.len());
            }
            None => {
                self.null(METHOD);
                self.text_given(PATH, from, to);
            }
        }
        match protocol {
            Some(length) => self.text(PROTOCOL, to - length, to),
            None => self.null(PROTOCOL),
        }
    }
}

fn is_decimal(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}
