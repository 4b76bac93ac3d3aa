//! Every scalar function, computed on the blocks and by plain DataFusion.

use std::collections::BTreeSet;

use datafusion::prelude::SessionContext;

use crate::both::Both;

/// Expressions of one query.
const TOGETHER: usize = 24;

/// The first word names the function; each has one at least.
const EXAMPLES: &[&str] = &[
    "nullif(code, 404)",
    "arrow_cast(code, 'Int32')",
    "arrow_field(code)",
    "arrow_try_cast(level, 'Int64')",
    "arrow_typeof(took)",
    "cast_to_type(code, NULL::DOUBLE)",
    "try_cast_to_type(level, NULL::BIGINT)",
    "arrow_metadata(code)",
    "with_metadata(code, 'unit', 'ms')",
    "nvl(took, 0)",
    "nvl2(took, 'given', level)",
    "overlay(host PLACING 'x' FROM 2 FOR 3)",
    "struct(code, level)",
    "named_struct('a', code, 'b', level)",
    "get_field(named_struct('a', code), 'a')",
    "coalesce(took, code)",
    "greatest(code, 300)",
    "least(code, 300)",
    "version()",
    "date_bin(INTERVAL '7 minutes', time)",
    "date_part('hour', time)",
    "date_trunc('hour', time)",
    "from_unixtime(code)",
    "make_date(2024, code % 12 + 1, 1)",
    "make_time(code % 24, 0, 0)",
    "to_char(time, '%H:%M')",
    "to_date(to_char(time, '%Y-%m-%d'))",
    "to_date(to_char(time, '%d.%m.%Y'), '%d.%m.%Y')",
    "to_local_time(time)",
    "to_time(to_char(time, '%H:%M:%S'))",
    "to_unixtime(time)",
    "to_unixtime(to_char(time, '%Y-%m-%d'))",
    "to_timestamp(code)",
    "to_timestamp(took)",
    "to_timestamp(time)",
    "to_timestamp(to_char(time, '%Y-%m-%dT%H:%M:%S'))",
    "to_timestamp(to_char(time, '%Y/%m/%d %H:%M:%S'), '%Y/%m/%d %H:%M:%S')",
    "to_timestamp(to_char(time, '%Y/%m/%d %H:%M:%S'), '%d.%m.%Y', '%Y/%m/%d %H:%M:%S')",
    "to_timestamp_seconds(code)",
    "to_timestamp_seconds(time)",
    "to_timestamp_seconds(to_char(time, '%Y-%m-%dT%H:%M:%S'))",
    "to_timestamp_seconds(to_char(time, '%Y/%m/%d %H:%M:%S'), '%Y/%m/%d %H:%M:%S')",
    "to_timestamp_millis(code)",
    "to_timestamp_millis(time)",
    "to_timestamp_millis(to_char(time, '%Y-%m-%dT%H:%M:%S'))",
    "to_timestamp_millis(to_char(time, '%Y/%m/%d %H:%M:%S'), '%Y/%m/%d %H:%M:%S')",
    "to_timestamp_micros(code)",
    "to_timestamp_micros(time)",
    "to_timestamp_micros(to_char(time, '%Y-%m-%dT%H:%M:%S'))",
    "to_timestamp_micros(to_char(time, '%Y/%m/%d %H:%M:%S'), '%Y/%m/%d %H:%M:%S')",
    "to_timestamp_nanos(code)",
    "to_timestamp_nanos(time)",
    "to_timestamp_nanos(to_char(time, '%Y-%m-%dT%H:%M:%S'))",
    "to_timestamp_nanos(to_char(time, '%Y/%m/%d %H:%M:%S'), '%Y/%m/%d %H:%M:%S')",
    "abs(took - 100)",
    "acos(code / 1000.0)",
    "acosh(code)",
    "asin(code / 1000.0)",
    "asinh(took)",
    "atan(took)",
    "atan2(took, code)",
    "atanh(code / 1000.0)",
    "cbrt(took)",
    "ceil(took)",
    "cos(took)",
    "cosh(code / 1000.0)",
    "cot(code)",
    "degrees(took)",
    "exp(code / 1000.0)",
    "factorial(code % 10)",
    "floor(took)",
    "gcd(code, 36)",
    "isnan(took)",
    "iszero(took)",
    "lcm(code, 36)",
    "ln(code)",
    "log(2, code)",
    "log2(code)",
    "log10(code)",
    "nanvl(took, 1.0)",
    "pi()",
    "power(took, 2)",
    "radians(took)",
    "round(took)",
    "round(took, -1)",
    "signum(took)",
    "sin(took)",
    "sinh(code / 1000.0)",
    "sqrt(took)",
    "tan(took)",
    "tanh(took)",
    "trunc(took)",
    "regexp_count(host, '1')",
    r"regexp_match(host, '\.(\d+)$')",
    "regexp_instr(host, '0')",
    "regexp_like(host, '1$')",
    r"regexp_replace(host, '\d', 'x')",
    "ascii(level)",
    "bit_length(host)",
    "btrim(level, 'i')",
    "character_length(host)",
    "chr(code % 90 + 32)",
    "concat(host, code)",
    "concat_ws('-', host, level)",
    "contains(host, '1')",
    "decode(encode(host, 'base64'), 'base64')",
    "encode(host, 'hex')",
    "ends_with(host, '1')",
    "find_in_set(level, 'info,warn')",
    "initcap(level)",
    "left(host, 4)",
    "levenshtein(level, 'warm')",
    "lower(level)",
    "lpad(level, 8, 'x')",
    "ltrim(level, 'i')",
    "octet_length(host)",
    "repeat(level, 2)",
    "replace(host, '.', '-')",
    "reverse(host)",
    "right(host, 2)",
    "rpad(level, 8, 'x')",
    "rtrim(level, 'o')",
    "split_part(host, '.', 4)",
    "starts_with(host, '10')",
    "strpos(host, '.')",
    "substr(host, 2)",
    "substr_index(host, '.', 2)",
    "to_hex(code)",
    "translate(host, '.', '-')",
    "upper(level)",
    "array_add(make_array(took, 1.0), make_array(1.0, 2.0))",
    "array_any_value(make_array(took, 1.0))",
    "array_append(make_array(code), 1)",
    "array_avg(make_array(took, 1.0))",
    "array_compact(make_array(took, 1.0))",
    "array_concat(make_array(code), make_array(1))",
    "array_dims(make_array(code))",
    "array_distance(make_array(code, 1.0), make_array(1.0, 2.0))",
    "array_distinct(string_to_array(host, '.'))",
    "array_element(string_to_array(host, '.'), 2)",
    "array_except(string_to_array(host, '.'), make_array('0'))",
    "array_has(string_to_array(host, '.'), '1')",
    "array_has_all(string_to_array(host, '.'), make_array('0', '1'))",
    "array_has_any(string_to_array(host, '.'), make_array('2', '1'))",
    "array_intersect(string_to_array(host, '.'), make_array('0', '1'))",
    "array_length(string_to_array(host, '.'))",
    "array_max(make_array(code, 300))",
    "array_min(make_array(code, 300))",
    "array_ndims(make_array(code))",
    "array_normalize(make_array(code, 1.0))",
    "array_pop_back(string_to_array(host, '.'))",
    "array_pop_front(string_to_array(host, '.'))",
    "array_position(string_to_array(host, '.'), '0')",
    "array_positions(string_to_array(host, '.'), '0')",
    "array_prepend(1, make_array(code))",
    "array_product(make_array(took, 2.0))",
    "array_remove(string_to_array(host, '.'), '0')",
    "array_remove_all(string_to_array(host, '.'), '0')",
    "array_remove_n(string_to_array(host, '.'), '0', 1)",
    "array_repeat(level, 2)",
    "array_replace(string_to_array(host, '.'), '0', 'x')",
    "array_replace_all(string_to_array(host, '.'), '0', 'x')",
    "array_replace_n(string_to_array(host, '.'), '0', 'x', 1)",
    "array_resize(make_array(code), 3, 0)",
    "array_reverse(string_to_array(host, '.'))",
    "array_scale(make_array(took, 1.0), 2.0)",
    "array_slice(string_to_array(host, '.'), 2, 3)",
    "array_sort(string_to_array(host, '.'))",
    "array_subtract(make_array(took, 1.0), make_array(1.0, 2.0))",
    "array_sum(make_array(took, 1.0))",
    "array_to_string(make_array(code, 1), ',')",
    "array_union(string_to_array(host, '.'), make_array('x'))",
    "arrays_zip(make_array(code), make_array(level))",
    "cardinality(make_array(code, 1))",
    "cosine_distance(make_array(code, 1.0), make_array(1.0, 2.0))",
    "empty(make_array(code))",
    "flatten(make_array(make_array(code), make_array(1)))",
    "generate_series(1, code % 5)",
    "inner_product(make_array(code, 1.0), make_array(1.0, 2.0))",
    "make_array(code, 1)",
    "map(make_array('a'), make_array(code))",
    "map_entries(map(make_array('a'), make_array(code)))",
    "map_extract(map(make_array('a'), make_array(code)), 'a')",
    "map_keys(map(make_array('a'), make_array(code)))",
    "map_values(map(make_array('a'), make_array(code)))",
    "range(0, code % 5)",
    "string_to_array(host, '.')",
];

/// Those that give something else each time, and those over what no line has: a union, a file of DataFusion's own.
const APART: &[&str] = &[
    "current_date",
    "current_time",
    "file_row_index",
    "input_file_name",
    "now",
    "random",
    "union_extract",
    "union_tag",
    "uuid",
];

fn name(example: &str) -> &str {
    example.split('(').next().unwrap()
}

#[test]
fn every_function_has_an_example() {
    let state = SessionContext::new().state();
    let functions = state.scalar_functions().values();
    let known: BTreeSet<&str> = functions.map(|function| function.name()).collect();
    let told: BTreeSet<&str> = EXAMPLES
        .iter()
        .map(|example| name(example))
        .chain(APART.iter().copied())
        .collect();
    let missing: Vec<_> = known.difference(&told).collect();
    let gone: Vec<_> = told.difference(&known).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "without an example: {missing:?}; not there: {gone:?}"
    );
}

/// As values of rows, and within an aggregate.
#[tokio::test]
async fn every_function_gives_on_blocks_what_it_gives_elsewhere() {
    let both = Both::new();
    for examples in EXAMPLES.chunks(TOGETHER) {
        let named = |make: fn(&str) -> String| {
            let columns = (0..)
                .zip(examples)
                .map(|(number, one)| format!("{} AS c{number}", make(one)));
            columns.collect::<Vec<_>>().join(", ")
        };
        let rows = format!("SELECT {} FROM app", named(|one| one.to_string()));
        let counts = format!("SELECT {} FROM app", named(|one| format!("count({one})")));
        for text in [rows, counts] {
            let (split, plain) = (sorted(both.split(&text).await), sorted(both.plain(&text).await));
            assert_eq!(split.len(), plain.len(), "{text}");
            for (ours, theirs) in split.iter().zip(&plain) {
                for ((example, ours), theirs) in examples.iter().zip(ours).zip(theirs) {
                    assert_eq!(ours, theirs, "{example}");
                }
            }
        }
    }
}

/// Plain DataFusion has no zone, where the halves have UTC.
fn sorted(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    for cell in rows.iter_mut().flatten() {
        if cell.ends_with('Z') {
            cell.pop();
        }
    }
    rows.sort();
    rows
}

#[tokio::test]
async fn times_made_of_texts_are_compared_and_grouped() {
    let both = Both::new();
    let text = "to_char(time, '%Y/%m/%d %H:%M:%S'), '%Y/%m/%d %H:%M:%S'";
    for function in [
        "to_timestamp",
        "to_timestamp_seconds",
        "to_timestamp_millis",
        "to_timestamp_micros",
    ] {
        let made = format!("{function}({text})");
        for query in [
            format!("SELECT count(*) FROM app WHERE {made} >= '2015-05-17T02:00:00'"),
            format!("SELECT count(*) FROM app WHERE {made} = time"),
            format!("SELECT {made} > time, count(*) FROM app GROUP BY 1"),
        ] {
            both.agree(&query).await;
        }
    }
}

/// A text is read in the zone of the query.
#[tokio::test]
async fn times_made_of_texts_are_in_the_zone_of_the_query() {
    let both = Both::new();
    let sql = "SELECT min(to_timestamp(to_char(time, '%Y/%m/%d %H:%M:%S'), '%Y/%m/%d %H:%M:%S')) = min(time) - INTERVAL '2 hours' \
               AS earlier FROM app";
    let mut query = both.query(sql);
    query.time_zone = "Europe/Paris".into();
    let partials = both.partials(&query).await.unwrap().concat();
    let answer = sql::upper(&both.runtime, &query, &partials[..]).await.unwrap();
    let mut shown = Vec::new();
    sql::render(&answer, sql::Rendering::Csv, &mut shown).unwrap();
    assert_eq!(String::from_utf8(shown).unwrap(), "earlier\ntrue\n");
}
