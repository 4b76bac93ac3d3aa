//! Which format lines are of: the one whose own marks nearly all of them have.

use model::table::{Format, Reads, Table};

use super::{Detected, Evidence, header, lines, records, table, text::Counted, weigh};
use crate::{
    formats,
    parse::{fixed_columns, logfmt},
};

/// A format is looked at further when it makes sense of half of so many lines.
const FIRST_LOOK: usize = 40;
/// What makes sense of one line in so many is told as considered.
const CONSIDERED: usize = 5;

/// What may be chosen.
struct Candidate {
    table: Table,
    evidence: Evidence,
    /// Whether other lines hardly have the marks of it.
    marks: bool,
}

impl Candidate {
    fn name(&self) -> String {
        self.table.format.name()
    }
}

/// Chooses by a sample of the lines; what nothing speaks for is text.
pub(super) fn choose(sample: &[u8]) -> Detected {
    let all = lines(sample);
    let counted = Counted::of(&all);
    let candidates = candidates(sample, &all);
    let is_chosen = |candidate: &&Candidate| candidate.evidence.is_enough(candidate.marks);
    let chosen = candidates.iter().find(is_chosen);
    let mut considered: Vec<String> = candidates
        .iter()
        .filter(|candidate| !chosen.is_some_and(|chosen| std::ptr::eq(chosen, *candidate)))
        .filter(|Candidate { evidence, .. }| evidence.fit * CONSIDERED >= evidence.of && evidence.fit > 0)
        .map(|candidate| match candidate.evidence {
            Evidence { fit, of } if fit == of => candidate.name(),
            Evidence { fit, of } => format!("{} ({fit} of {of})", candidate.name()),
        })
        .collect();
    let (table, told, notes) = match chosen {
        Some(Candidate { table, evidence, .. }) => {
            considered.push("text".into());
            let Evidence { fit, of } = evidence;
            let told = format!("{fit} of {of} sampled lines are {}", table.format.name());
            (table.clone(), told, Vec::new())
        }
        None => {
            let format = counted.format(false);
            let table = Table {
                columns: fixed_columns(&format).unwrap_or_default(),
                format,
                least: None,
            };
            let (stamped, lines) = (counted.stamped(), all.len());
            let told = format!("{stamped} of {lines} sampled lines have a time");
            (table, told, counted.note().into_iter().collect())
        }
    };
    let why = match &considered[..] {
        [] => told,
        others => format!("{told}; also considered: {}", others.join(", ")),
    };
    Detected { table, why, notes }
}

/// All that makes some sense, the most telling first.
fn candidates(sample: &[u8], all: &[&[u8]]) -> Vec<Candidate> {
    let first = all[..all.len().min(FIRST_LOOK)].join(&b'\n');
    let look = |table: Table| {
        let glance = weigh(&table, &first);
        (glance.fit * 2 >= glance.of && glance.fit > 0).then(|| Candidate {
            evidence: weigh(&table, sample),
            table,
            marks: true,
        })
    };
    let mut found: Vec<Candidate> = known(all).into_iter().filter_map(look).collect();
    // The one that most lines fit; of equals the first, as their order has it.
    found.sort_by_key(|candidate| std::cmp::Reverse(candidate.evidence.fit));
    let general = [Format::Json, Format::Access, Format::Syslog5424, Format::Syslog];
    let general = general.iter().filter_map(|format| table(format, all));
    found.extend(general.filter_map(look));
    found.extend(logfmt(all));
    found.extend(separated(sample));
    found
}

/// The formats that are known by name which half of some lines look like.
fn known(all: &[&[u8]]) -> Vec<Table> {
    let first = &all[..all.len().min(FIRST_LOOK)];
    // Any object can be read as one, so that only its members tell.
    let is_likely = |(definition, fit): &(&formats::Definition, usize)| match definition.reads {
        Reads::Members(_) => fit * 20 >= first.len() * 19,
        _ => fit * 2 >= first.len(),
    };
    let likely = formats::fitting(first).into_iter().filter(is_likely);
    likely
        .filter_map(|(definition, _)| definition.table(all))
        .collect()
}

fn logfmt(all: &[&[u8]]) -> Option<Candidate> {
    let fit = all.iter().filter(|line| logfmt::is_dense(line)).count();
    let evidence = Evidence { fit, of: all.len() };
    // What are keys in a few lines alone are the words of a text.
    evidence.is_enough(false).then_some(())?;
    Some(Candidate {
        table: table(&Format::Logfmt, all)?,
        evidence,
        marks: false,
    })
}

/// Of several separators the one that gives the most columns.
fn separated(sample: &[u8]) -> Option<Candidate> {
    let candidates = [',', '\t', ';', '|'].into_iter().filter_map(|separator| {
        let evidence = header::evidence(separator, sample)?;
        let format = Format::Separated { separator };
        Some(Candidate {
            table: table(&format, &records(&format, sample))?,
            evidence,
            marks: false,
        })
    });
    candidates
        .filter(|candidate| candidate.evidence.is_enough(false))
        .max_by_key(|candidate| candidate.table.columns.len())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use model::table::ColumnType;

    use super::*;
    use crate::{BlockRows, Origin, reconsider};

    fn lines_of(count: usize, line: impl Fn(usize) -> String) -> String {
        (0..count).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "{}", line(number));
            text
        })
    }

    fn format(sample: &str) -> String {
        choose(sample.as_bytes()).table.format.name()
    }

    /// What nothing but text fits, though commas and equals signs abound.
    fn texts() -> Vec<String> {
        vec![
            lines_of(200, |n| {
                format!(
                    "[2024-03-12 10:{:02}:{:02},{n:03}] did step {n}, of the run",
                    n / 60,
                    n % 60
                )
            }),
            lines_of(200, |n| {
                format!(
                    "2024-03-12 10:{:02}:{:02} INFO user={n} logged in from 192.0.2.{n}",
                    n / 60,
                    n % 60
                )
            }),
            lines_of(110, |n| {
                if n % 11 == 10 {
                    "job failed, retrying".into()
                } else {
                    "job finished, ok".into()
                }
            }),
            lines_of(30, |n| format!("started, {n}")),
            lines_of(9, |n| format!("a{n} b=1 c d e f")),
            lines_of(20, |n| format!("step {n}; done | {n}")),
            "some words, and more\nother words, and others\nyet more words, too\n".into(),
            format!(
                "Starting, please wait\n{}",
                lines_of(9, |n| format!("2024-03-12 10:00:0{n},123 INFO {n}"))
            ),
            "a,b,c\n".into(),
            "yes,no\n".into(),
            String::new(),
        ]
    }

    #[test]
    fn text_is_text_and_no_line_is_lost() {
        for text in texts() {
            let Detected { table, why, .. } = choose(text.as_bytes());
            assert_eq!(table.format.name(), "text", "{why}: {text}");
            let origin = Origin {
                block: 0,
                begins_file: true,
                now_us: 0,
            };
            let rows = BlockRows::parse(&table, text.as_bytes(), &[0, 1, 2], origin).unwrap();
            let told = (rows.tally.rows, rows.tally.errors);
            assert_eq!(told, (text.lines().count() as u64, 0), "{text}");
        }
    }

    #[test]
    fn a_header_is_unlike_the_rows_below_it() {
        for (sample, expected) in [
            ("a,b\n1,2\n", "csv"),
            ("name,zip\na,01730\nb,02138\nc,90210\n", "csv"),
            ("sha,v\n1234567,a\n12e4567,b\n", "csv"),
            ("First name, Age\nAnn, 7\nBob, 8\n", "csv"),
            (
                "level,host\ninfo,a\nwarn,b\ninfo,c\ninfo,d\nwarn,e\ninfo,f\n",
                "csv",
            ),
            ("ann,paris\nbob,rome\ntom,oslo\n", "text"),
            ("t\tv\n2024-01-01T00:00:00Z\tx\n", "tsv"),
            ("a;b\n1,5;x\n2,5;y\n", "separated:;"),
            ("a|b|c\n1|2|3\n", "separated:|"),
            // The header of a second file.
            ("a,b\n1,x\n2,y\na,b\n3,z\n", "csv"),
            // A first line of values is no header: taking it for one would lose it.
            ("1,2\n3,4\n", "text"),
            ("ann,7\nbob,8\n", "text"),
            ("a,a\n1,2\n", "text"),
            ("a,b\n1\n2\n3\n", "text"),
        ] {
            assert_eq!(format(sample), expected, "{sample}");
        }
    }

    #[test]
    fn pairs_are_most_words_of_most_lines() {
        for (sample, expected) in [
            ("level=info msg=hi\nlevel=warn msg=\"a b\"\n", "logfmt"),
            ("level=info msg=\"a\" took=1.5 ok\n", "logfmt"),
            (
                "type=SYSCALL msg=audit(1.2:3): arch=c0 syscall=59 key=(null)\n",
                "logfmt",
            ),
            ("a=1\nnone\nnone\n", "text"),
            ("x + y = z\n", "text"),
            ("http://a.example/?q=1\n", "text"),
        ] {
            assert_eq!(format(sample), expected, "{sample}");
        }
    }

    #[test]
    fn a_few_strange_lines_are_borne() {
        let access = "192.0.2.1 - - [12/Mar/2024:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5\n";
        assert_eq!(format(&format!("{}garbage\n", access.repeat(19))), "access");
        assert_eq!(
            format(&format!("{}{}", access.repeat(12), "garbage\n".repeat(8))),
            "text"
        );
        // Times that are none are no marks of it.
        assert_eq!(
            format(&access.replace("12/Mar/2024", "12/03/2024").repeat(9)),
            "text"
        );
        assert_eq!(format("# a banner\n{\"a\":1}\n{\"a\":2}\n"), "json");
    }

    #[test]
    fn it_is_told_what_else_was_considered() {
        let access = "192.0.2.1 - - [12/Mar/2024:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5\n";
        assert_eq!(
            choose(access.repeat(7).as_bytes()).why,
            "7 of 7 sampled lines are access; also considered: text"
        );
        let mixed = format!("{}{}", access.repeat(12), "garbage\n".repeat(8));
        assert_eq!(
            choose(mixed.as_bytes()).why,
            "12 of 20 sampled lines have a time; also considered: access (12 of 20)"
        );
    }

    #[test]
    fn traces_are_told() {
        let trace = "2024-03-12 10:00:00 ERROR no\n    at a.B\n    at a.C\n".repeat(9);
        let Detected { notes, .. } = choose(trace.as_bytes());
        assert!(
            notes[0].starts_with("18 of 27 sampled lines are indented"),
            "{notes:?}"
        );
        let Detected { notes, .. } = choose(&trace.as_bytes()[..29]);
        assert!(notes.is_empty());
    }

    #[test]
    fn few_lines_decide_nothing_for_good() {
        let header = choose(b"a,b\n").table;
        let rows = b"a,b\n1,2\n3,4\n";
        let detected = reconsider(&header, b"a,b\n", rows).unwrap();
        assert_eq!(detected.table.format.name(), "csv");
        assert_eq!(detected.table.columns[0].kind, ColumnType::Integer);
        // Once there were enough lines, or marks of a format, it stays.
        let text = "some words\n".repeat(5);
        assert_eq!(
            reconsider(&choose(text.as_bytes()).table, text.as_bytes(), rows),
            None
        );
        let json = b"{\"a\":1}\n";
        assert_eq!(reconsider(&choose(json).table, json, rows), None);
        // What goes on as it began stays, too.
        let csv = choose(rows).table;
        assert_eq!(reconsider(&csv, rows, b"a,b,c\n5,6,7\n"), None);
    }
}
