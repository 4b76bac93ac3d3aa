//! From text to statements: they end with a semicolon that is not in quotes or in a comment.

/// The statements of a text, and what is behind the last semicolon.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statements<'t> {
    /// Without their semicolons; none of them is empty.
    pub(super) complete: Vec<&'t str>,
    /// What no semicolon ends; empty where nothing is said in it.
    pub(super) rest: &'t str,
}

/// Where a character of SQL stands.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    Nothing,
    Quotes(char),
    LineComment,
    BlockComment,
}

/// Splits a text.
pub(super) fn split(text: &str) -> Statements<'_> {
    let mut statements = Statements {
        complete: Vec::new(),
        rest: "",
    };
    let (mut begin, mut said, mut within) = (0, false, Within::Nothing);
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let next = characters.peek().map(|&(_, next)| next);
        within = match (within, character, next) {
            (Within::Nothing, ';', _) => {
                if said {
                    statements.complete.push(text[begin..at].trim());
                }
                (begin, said) = (at + 1, false);
                Within::Nothing
            }
            (Within::Nothing, '-', Some('-')) => Within::LineComment,
            (Within::Nothing, '/', Some('*')) => Within::BlockComment,
            (Within::Nothing, '\'' | '"', _) => {
                said = true;
                Within::Quotes(character)
            }
            (Within::Quotes(quote), _, _) if character == quote => Within::Nothing,
            (Within::LineComment, '\n', _) => Within::Nothing,
            (Within::BlockComment, '*', Some('/')) => {
                characters.next();
                Within::Nothing
            }
            (Within::Nothing, _, _) => {
                said |= !character.is_whitespace();
                Within::Nothing
            }
            (other, _, _) => other,
        };
    }
    if said || matches!(within, Within::Quotes(_)) {
        statements.rest = text[begin..].trim();
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_their_semicolons() {
        let cases: [(&str, &[&str], &str); 8] = [
            ("", &[], ""),
            (" ; ;", &[], ""),
            ("SELECT 1; SELECT\n2;", &["SELECT 1", "SELECT\n2"], ""),
            (
                "SELECT ';''' FROM \"a;b\"; SELECT",
                &["SELECT ';''' FROM \"a;b\""],
                "SELECT",
            ),
            ("SELECT 1 -- one; and\n, 2;", &["SELECT 1 -- one; and\n, 2"], ""),
            ("SELECT /* ; */ 1; -- done;", &["SELECT /* ; */ 1"], ""),
            ("SELECT 'open; ", &[], "SELECT 'open;"),
            ("ä; 'ü'", &["ä"], "'ü'"),
        ];
        for (text, complete, rest) in cases {
            let found = split(text);
            assert_eq!((&found.complete[..], found.rest), (complete, rest), "{text:?}");
        }
    }
}
