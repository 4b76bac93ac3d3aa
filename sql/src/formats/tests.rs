use std::collections::BTreeMap;

use jiff::{Timestamp, tz::Offset};
use model::table::ColumnType;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::templates::TEMPLATES;
use super::*;
use crate::{
    parse::{Value, parser},
    time::Clock,
};

mod templates;

#[test]
fn samples_are_read_as_the_definitions_say() {
    for definition in known() {
        definition
            .check()
            .unwrap_or_else(|why| panic!("{}: {why}", definition.name));
        assert!(!definition.about.is_empty() && definition.reference.is_some());
    }
}

/// What lines look like most.
fn best(lines: &[&[u8]]) -> Option<&'static str> {
    let fitting = fitting(lines);
    let most = fitting.iter().map(|(_, count)| *count).max()?;
    let (definition, _) = fitting.into_iter().find(|(_, count)| *count == most)?;
    Some(definition.name.as_str())
}

#[test]
fn samples_look_like_their_format_and_no_other() {
    for definition in known() {
        let samples: Vec<&[u8]> = definition
            .samples
            .iter()
            .map(|sample| sample.as_bytes())
            .collect();
        assert_eq!(best(&samples), Some(definition.name.as_str()));
    }
}

#[test]
fn lines_of_no_known_format_look_like_none() {
    for line in [
        "",
        "just words",
        "job finished, ok",
        "a,b,c",
        "level=info msg=hi",
        "{\"a\":1}",
        "2024-03-12 10:00:07 INFO user=0 logged in from 192.0.2.0",
        "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure",
        "2024-05-01T12:00:00.123456+02:00 host app[7]: msg",
        "<34>1 2003-10-11T22:14:15.003Z host su - ID47 - hi",
        "192.0.2.4 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 5",
        "192.0.2.4 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 5 \"-\" \"curl\"",
        "192.0.2.4 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 5 \"-\" \"curl\" 0.005",
        "192.0.2.4 - al ice [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 5",
    ] {
        assert_eq!(best(&[line.as_bytes()]), None, "{line}");
    }
}

/// A moment at which the lines are read.
const NOW_US: i64 = 1_717_200_000_000_000;

/// Makes lines of a template.
struct Maker {
    random: StdRng,
    /// What was put into the columns of the line: its text, or for times the microseconds.
    values: BTreeMap<String, String>,
    yearless: bool,
}

impl Maker {
    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.random.random_range(0..choices.len())]
    }

    fn line(&mut self, template: &str, line: &mut String, is_in: bool) {
        let mut rest = template;
        while let Some(at) = rest.find(['«', '⟨']) {
            if is_in {
                line.push_str(&rest[..at]);
            }
            let is_hole = rest[at..].starts_with('«');
            let inside = &rest[at + if is_hole { "«".len() } else { "⟨".len() }..];
            if is_hole {
                let (hole, behind) = inside.split_once('»').unwrap();
                let (column, kind) = hole.split_once(':').unwrap();
                if is_in {
                    self.put(column, kind, line);
                }
                rest = behind;
            } else {
                let end = closing(inside);
                let is_in = is_in && self.random.random_bool(0.6);
                self.line(&inside[..end], line, is_in);
                rest = &inside[end + "⟩".len()..];
            }
        }
        if is_in {
            line.push_str(rest);
        }
    }

    fn put(&mut self, column: &str, kind: &str, line: &mut String) {
        if let Some(shape) = kind.strip_prefix('@') {
            let (text, at) = self.time(shape);
            line.push_str(&text);
            self.values.insert(column.into(), at.to_string());
            return;
        }
        if kind == "duration" && self.random.random_bool(0.5) {
            let (took, more) = (self.made("float"), self.made("free"));
            let message = format!("duration: {took} ms  statement: {more}");
            line.push_str(&message);
            self.values.insert(column.into(), message);
            self.values.insert("duration_ms".into(), took);
            return;
        }
        let kind = match kind.strip_suffix('?') {
            Some(_) if self.random.random_bool(0.2) => {
                line.push('-');
                return;
            }
            Some(kind) => kind,
            None => kind,
        };
        let value = self.made(kind);
        if kind == "json" {
            let quoted = serde_json::to_string(&value).unwrap();
            line.push_str(&quoted[1..quoted.len() - 1]);
        } else {
            line.push_str(&value);
        }
        self.values.insert(column.into(), value.trim_end().to_string());
    }

    /// A value of a kind, or one of those that are named.
    fn made(&mut self, kind: &str) -> String {
        let random = &mut self.random;
        match kind {
            "int" => random.random_range(0..100_000).to_string(),
            "signed" => random.random_range(-1..1000).to_string(),
            "code" => random.random_range(100..600).to_string(),
            "float" => format!("{:.3}", random.random_range(0.0..100.0)),
            "float6" => format!("{:.6}", random.random_range(0.0..1e6)),
            "hex" => format!("{:032x}", random.random_range(0..u128::MAX)),
            "ip" if random.random_bool(0.2) => format!("2001:db8::{:x}", random.random_range(1..65536)),
            "ip" => format!(
                "192.0.{}.{}",
                random.random_range(0..256),
                random.random_range(0..256)
            ),
            "ips" => {
                let ips: Vec<String> = (0..self.random.random_range(1..4))
                    .map(|_| self.made("ip"))
                    .collect();
                ips.join(", ")
            }
            "word" => {
                let (length, mut word) = (random.random_range(1..9), String::from("w"));
                word.extend((0..length).map(|_| char::from(random.random_range(b'a'..=b'z'))));
                word
            }
            "host" => format!("{}.{}.example", self.made("word"), self.made("word")),
            "path" => format!(
                "/{}/{}?q={}%20",
                self.made("word"),
                self.made("word"),
                self.made("int")
            ),
            "url" => format!("https://{}{}", self.made("host"), self.made("path")),
            "request" => format!("GET {} HTTP/1.1", self.made("path")),
            "agent" => format!(
                "{}/5.0 (X11; Linux) like {}",
                self.made("word"),
                self.made("word")
            ),
            "file" => format!("{}.c(12)", self.made("word")),
            "file_go" => format!("{}.go", self.made("word")),
            "sentence" => format!("{} {}", self.made("word"), self.made("word")),
            "free" | "json" | "duration" => {
                const WORDS: [&str; 14] = [
                    "failed",
                    "to",
                    "(x)",
                    "[y]",
                    "k=v",
                    "100%",
                    "ü€",
                    "\"quoted\"",
                    "it's",
                    "a:b",
                    "-",
                    "a\\b",
                    "{\"j\":1}",
                    "1.5",
                ];
                let mut words = vec![self.made("word")];
                for _ in 0..self.random.random_range(1..8) {
                    words.push(self.one_of(&WORDS).to_string());
                }
                words.push(self.made("word"));
                words.join(" ")
            }
            _ => {
                let choices: Vec<&str> = kind.split('|').collect();
                self.one_of(&choices).to_string()
            }
        }
    }

    /// A time in the shape of `strftime`, and when it is.
    fn time(&mut self, shape: &str) -> (String, i64) {
        let unit = match shape {
            _ if shape.contains("%9f") || shape.contains("%6f") => 1,
            _ if shape.contains("%3f") => 1000,
            _ => 1_000_000,
        };
        let least = if self.yearless {
            NOW_US - 300 * crate::time::DAY_US
        } else {
            1_010_000_000_000_000
        };
        let at = self.random.random_range(least..NOW_US);
        let quarters = match shape {
            _ if shape.contains("%z") || shape.contains("%:z") => self.random.random_range(-48..=56),
            _ => 0,
        };
        let offset = Offset::from_seconds(quarters * 900).unwrap();
        let zoned = Timestamp::from_microsecond(at)
            .unwrap()
            .to_zoned(offset.to_time_zone());
        (zoned.strftime(shape).to_string(), at.div_euclid(unit) * unit)
    }
}

/// Where the bracket closes in front of which a text begins.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '⟨' => depth += 1,
            '⟩' if depth == 0 => return at,
            '⟩' => depth -= 1,
            _ => {}
        }
    }
    panic!("it does not close: {text}")
}

#[test]
fn each_format_has_a_template() {
    let names: Vec<&str> = known()
        .iter()
        .map(|definition| definition.name.as_str())
        .collect();
    let templates: Vec<&str> = TEMPLATES.iter().map(|(name, _)| *name).collect();
    assert_eq!(templates, names);
}

#[test]
fn all_columns_of_a_thousand_lines_are_what_made_them() {
    for (name, template) in TEMPLATES {
        let definition = find(name).unwrap();
        let samples: Vec<&[u8]> = definition
            .samples
            .iter()
            .map(|sample| sample.as_bytes())
            .collect();
        let table = definition.table(&samples).unwrap();
        let mut parser = parser(&table, &vec![true; table.columns.len()]).unwrap();
        let mut clock = match definition.yearless {
            true => Clock::either(NOW_US),
            false => Clock::new(None),
        };
        let mut maker = Maker {
            random: StdRng::seed_from_u64(13),
            values: BTreeMap::new(),
            yearless: definition.yearless,
        };
        let mut given = vec![false; table.columns.len()];
        for _ in 0..1000 {
            maker.values.clear();
            let mut line = String::new();
            maker.line(template, &mut line, true);
            let mut row = vec![None; table.columns.len()];
            let parsed = parser.parse(line.as_bytes(), &mut row);
            assert_eq!(parsed, Ok(()), "{name}: {line}");
            for (place, (column, value)) in table.columns.iter().zip(&row).enumerate() {
                let value = value.as_ref().map(|value| match column.kind {
                    ColumnType::Timestamp => clock.whole(value).map(|at| at.to_string()),
                    _ => Some(String::from_utf8_lossy(value).into_owned()),
                });
                given[place] |= value.is_some();
                let made = maker.values.get(&column.name).cloned().map(Some);
                assert_eq!(value, made, "{name}: {} of {line}", column.name);
            }
        }
        assert!(given.contains(&true), "{name}");
    }
}

#[test]
fn indented_lines_are_more_of_the_message() {
    let table = find("postgresql").unwrap().table(&[]).unwrap();
    let mut parser = parser(&table, &vec![true; table.columns.len()]).unwrap();
    let mut row = vec![None; table.columns.len()];
    parser.parse(b"\tWHERE a = 1", &mut row).unwrap();
    let values: Vec<&[u8]> = row.iter().flatten().map(AsRef::as_ref).collect();
    assert_eq!(values, [&b"\tWHERE a = 1"[..]]);
    assert!(parser.parse(b"WHERE a = 1", &mut row).is_err());
}

#[test]
fn fields_may_change_their_order_within_a_file() {
    let heading: &[u8] = b"#Fields: date time c-ip sc-status";
    let table = find("iis").unwrap().table(&[heading]).unwrap();
    let mut parser = parser(&table, &[true; 3]).unwrap();
    let mut read = |line: &'static str| {
        let mut row = vec![None; 3];
        if parser.passes_over(line.as_bytes()) {
            return Ok(Vec::new());
        }
        parser.parse(line.as_bytes(), &mut row)?;
        let text =
            |value: &Value<'_>| String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
        Ok::<_, String>(row.iter().map(text).collect())
    };
    let expected = || {
        Ok(["2024-01-02 15:04:05", "192.0.2.7", "200"]
            .map(String::from)
            .to_vec())
    };
    // A block that begins within the file.
    assert_eq!(read("2024-01-02 15:04:05 192.0.2.7 200"), expected());
    assert_eq!(read("#Fields: time sc-status date x-new c-ip"), Ok(Vec::new()));
    assert_eq!(read("15:04:05 200 2024-01-02 x 192.0.2.7"), expected());
    assert!(read("15:04:05 200").is_err());
}

#[test]
fn a_file_with_other_fields_is_refused() {
    let heading: &[u8] = b"#Fields: date time c-ip sc-status";
    let table = find("iis").unwrap().table(&[heading]).unwrap();
    let grow = |text: &str| crate::grow(&table, text.as_bytes());
    let row = "2024-01-02 15:04:05 192.0.2.7 200\n";
    let same = grow(&format!(
        "#Version: 1.0\n#Fields: date time c-ip sc-status\n{row}"
    ))
    .unwrap();
    assert_eq!((&same.table, same.unfit), (&table, None));
    let other = grow(&format!("#Fields: date time sc-status c-ip\n{row}"));
    let why = other.unwrap_err().to_string();
    assert!(
        why.contains("time sc_status c_ip here and time c_ip sc_status in the dataset"),
        "{why}"
    );
}

#[test]
fn the_documentation_lists_all() {
    let page = include_str!("../../../docs/formats.md");
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | ["))
        .map(|(name, _)| name)
        .collect();
    let names: Vec<&str> = known()
        .iter()
        .map(|definition| definition.name.as_str())
        .collect();
    assert_eq!(listed, names);
}

fn definition(text: &str) -> Result<Definition, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn bad_definitions_are_refused() {
    let good =
        "name = 'x'\npattern = '(?<n>\\d+) (?<m>.*)'\ntypes = { n = 'integer' }\nsamples = ['1 a', '2 b']\n";
    definition(good).unwrap().check().unwrap();
    for (from, to, why) in [
        ("'x'", "'X y'", "lower-case"),
        ("samples = ['1 a', '2 b']", "samples = ['1 a']", "two lines"),
        ("(?<n>", "(?<n", "regex parse error"),
        ("(?<n>\\d+) (?<m>.*)", ".*", "no named group"),
        ("(?<m>", "(?<_raw>", "_raw already"),
        ("n = 'integer'", "o = 'integer'", "no column o"),
        ("n = 'integer'", "n = 'number'", "number"),
        ("samples", "sample = 1\nsamples", "unknown field"),
        ("samples", "separator = ','\nsamples", "one of"),
    ] {
        let error = definition(&good.replace(from, to)).unwrap_err();
        assert!(error.contains(why), "{to}: {error}");
    }
    for (from, to, why) in [
        ("'1 a'", "'x a'", "does not fit"),
        (
            "(?<m>.*)",
            "(?<m>.*)(?<o>x)?",
            "no sample has a value of column o",
        ),
        ("n = 'integer'", "m = 'integer'", "not a plain integer"),
    ] {
        let error = definition(&good.replace(from, to)).unwrap().check().unwrap_err();
        assert!(error.contains(why), "{to}: {error}");
    }
}
