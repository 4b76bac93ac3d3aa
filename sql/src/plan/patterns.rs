//! Regular expressions that stand in a query, compiled once for all blocks: compiling one may take longer than matching it
//! against the lines of a block.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray, StringArrayType, StringViewArray},
        buffer::BooleanBuffer,
        compute::cast,
        datatypes::DataType,
    },
    common::{
        ScalarValue, exec_err,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    error::Result as Fallible,
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
        Signature, Volatility, expr_rewriter::NamePreserver,
    },
};
use regex::Regex;

use crate::columns::slot;

/// Answers for values met a moment ago, by their views; a power of two.
const REMEMBERED: usize = 1024;

/// The optimized plan with all matches against constant expressions compiled. One that does not compile stays: it fails
/// in DataFusion's words when the query runs.
pub(super) fn compiled(plan: LogicalPlan) -> Fallible<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expression| {
            let name = names.save(&expression);
            let compiled = expression.transform_up(|part| {
                Ok(match Pattern::of(&part) {
                    Some((pattern, arguments)) => Transformed::yes(ScalarUDF::from(pattern).call(arguments)),
                    None => Transformed::no(part),
                })
            })?;
            Ok(compiled.update_data(|expression| name.restore(expression)))
        })
    })
    .data()
}

/// The function that tells whether a text matches.
struct Pattern {
    regex: Regex,
    negated: bool,
    signature: Signature,
}

impl Pattern {
    /// For a match of something against a constant: the function and what it is called with, the constant for display.
    fn of(expression: &Expr) -> Option<(Self, Vec<Expr>)> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expression else {
            return None;
        };
        let (flags, negated) = match op {
            Operator::RegexMatch => ("", false),
            Operator::RegexNotMatch => ("", true),
            Operator::RegexIMatch => ("(?i)", false),
            Operator::RegexNotIMatch => ("(?i)", true),
            _ => return None,
        };
        let Expr::Literal(text, _) = right.as_ref() else {
            return None;
        };
        let pattern = Self {
            regex: Regex::new(&format!("{flags}{}", text.try_as_str()??)).ok()?,
            negated,
            signature: Signature::any(2, Volatility::Immutable),
        };
        Some((pattern, vec![left.as_ref().clone(), right.as_ref().clone()]))
    }

    fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text) != self.negated
    }

    fn over<'a>(&self, texts: impl StringArrayType<'a>) -> BooleanArray {
        let matches = |place| !texts.is_null(place) && self.matches(texts.value(place));
        BooleanArray::new(
            BooleanBuffer::collect_bool(texts.len(), matches),
            texts.nulls().cloned(),
        )
    }

    /// Equal views of one column are equal texts, and logs repeat themselves.
    fn over_views(&self, texts: &StringViewArray) -> BooleanArray {
        if texts.len() <= REMEMBERED {
            return self.over(texts);
        }
        let mut recent: Vec<Option<(u128, bool)>> = vec![None; REMEMBERED];
        let views = texts.views();
        let matches = |place: usize| {
            if texts.is_null(place) {
                return false;
            }
            let view = views[place];
            let remembered = &mut recent[slot(view, REMEMBERED)];
            match *remembered {
                Some((known, matched)) if known == view => matched,
                _ => {
                    let matched = self.matches(texts.value(place));
                    *remembered = Some((view, matched));
                    matched
                }
            }
        };
        let values = BooleanBuffer::collect_bool(texts.len(), matches);
        BooleanArray::new(values, texts.nulls().cloned())
    }
}

impl ScalarUDFImpl for Pattern {
    fn name(&self) -> &str {
        if self.negated { "matches_not" } else { "matches" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Fallible<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Fallible<ColumnarValue> {
        let Some(text) = call.args.first() else {
            return exec_err!("{} needs a text", self.name());
        };
        if let ColumnarValue::Scalar(text) = text {
            let text = text.try_as_str().flatten();
            return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(
                text.map(|text| self.matches(text)),
            )));
        }
        let texts = text.to_array(call.number_rows)?;
        let matched = match texts.data_type() {
            DataType::Utf8View => self.over_views(texts.as_string_view()),
            DataType::LargeUtf8 => self.over(texts.as_string::<i64>()),
            DataType::Utf8 => self.over(texts.as_string::<i32>()),
            _ => self.over(cast(&texts, &DataType::Utf8)?.as_string::<i32>()),
        };
        Ok(ColumnarValue::Array(Arc::new(matched)))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.regex.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.negated == other.negated && self.regex.as_str() == other.regex.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.negated, self.regex.as_str()).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{arrow::datatypes::Field, common::config::ConfigOptions, prelude::lit};

    use super::*;

    fn matches(op: Operator, pattern: &str, texts: ColumnarValue) -> Vec<Option<bool>> {
        let expression = Expr::BinaryExpr(BinaryExpr::new(Box::new(lit("x")), op, Box::new(lit(pattern))));
        let (function, _) = Pattern::of(&expression).expect("a constant pattern");
        let number_rows = match &texts {
            ColumnarValue::Array(texts) => texts.len(),
            ColumnarValue::Scalar(_) => 1,
        };
        let call = ScalarFunctionArgs {
            args: vec![texts, ColumnarValue::Scalar(ScalarValue::from(pattern))],
            arg_fields: Vec::new(),
            number_rows,
            return_field: Arc::new(Field::new("matches", DataType::Boolean, true)),
            config_options: Arc::new(ConfigOptions::default()),
        };
        let matched = function
            .invoke_with_args(call)
            .and_then(|value| value.to_array(number_rows));
        matched.expect("texts").as_boolean().iter().collect()
    }

    #[test]
    fn what_is_remembered_is_what_is_computed() {
        let texts: Vec<Option<String>> = (0..5 * REMEMBERED)
            .map(|number| (number % 11 != 0).then(|| format!("/Shop/items/number/{}", number % 1501)))
            .collect();
        let regex = Regex::new("/shop.*7$").expect("a pattern");
        let expected = |negated: bool, folded: bool| -> Vec<Option<bool>> {
            let matched = texts.iter().map(|text| {
                let text = text.as_ref()?;
                let text = if folded { text.to_lowercase() } else { text.clone() };
                Some(regex.is_match(&text) != negated)
            });
            matched.collect()
        };
        let views: StringViewArray = texts.iter().map(Option::as_deref).collect();
        for (op, negated, folded) in [
            (Operator::RegexMatch, false, false),
            (Operator::RegexNotMatch, true, false),
            (Operator::RegexIMatch, false, true),
            (Operator::RegexNotIMatch, true, true),
        ] {
            let matched = matches(op, "/shop.*7$", ColumnarValue::Array(Arc::new(views.clone())));
            assert_eq!(matched, expected(negated, folded), "{op}");
        }
    }

    #[test]
    fn one_value_and_none() {
        let one = |text: Option<&str>| ColumnarValue::Scalar(ScalarValue::Utf8(text.map(str::to_string)));
        assert_eq!(
            matches(Operator::RegexMatch, "^a+$", one(Some("aa"))),
            [Some(true)]
        );
        assert_eq!(
            matches(Operator::RegexNotMatch, "", one(Some("aa"))),
            [Some(false)]
        );
        assert_eq!(matches(Operator::RegexMatch, "^a+$", one(None)), [None]);
    }
}
