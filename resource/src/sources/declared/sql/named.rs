//! Parameters by name: `:name` in the text of a query becomes a numbered parameter. Texts and comments stay what they are,
//! because the tokenizer of the database's dialect says where a token begins.

use std::fmt::Write;

use sqlparser::dialect::Dialect;
use sqlparser::tokenizer::{Location, Token, Tokenizer};

/// A statement with numbered parameters, and their names in the order of the numbers.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) sql: String,
    pub(super) names: Vec<String>,
}

impl Named {
    /// # Errors
    /// If it is not one statement with `:name` for its parameters, in words.
    pub(super) fn parse(sql: &str, dialect: &dyn Dialect) -> Result<Self, String> {
        let tokens =
            Tokenizer::new(dialect, sql).tokenize_with_location().map_err(|error| error.to_string())?;
        let places = Places::of(sql);
        let (mut written, mut names, mut copied) = (String::new(), Vec::<String>::new(), 0);
        let mut ended = false;
        for (at, token) in tokens.iter().enumerate() {
            match &token.token {
                Token::Whitespace(_) | Token::EOF => {}
                Token::SemiColon => ended = true,
                _ if ended => return Err("it has several statements; write one".to_owned()),
                Token::Placeholder(text) => {
                    return Err(format!(
                        "`{text}` is not a parameter here; write :name and declare it in `params`"
                    ));
                }
                Token::Colon => {
                    let Some(next) = tokens.get(at + 1) else { continue };
                    let Token::Word(word) = &next.token else { continue };
                    if next.span.start != token.span.end {
                        continue;
                    }
                    let (from, to) = (places.byte(token.span.start), places.byte(next.span.end));
                    let number = names.iter().position(|name| *name == word.value).unwrap_or_else(|| {
                        names.push(word.value.clone());
                        names.len() - 1
                    });
                    written.push_str(sql.get(copied..from).unwrap_or_default());
                    let _ = write!(written, "${}", number + 1);
                    copied = to;
                }
                _ => {}
            }
        }
        written.push_str(sql.get(copied..).unwrap_or_default());
        Ok(Self { sql: written, names })
    }
}

/// From lines and columns, which count from one, to bytes.
struct Places<'s> {
    sql: &'s str,
    lines: Vec<usize>,
}

impl<'s> Places<'s> {
    fn of(sql: &'s str) -> Self {
        let after = sql.match_indices('\n').map(|(at, _)| at + 1);
        Self { sql, lines: std::iter::once(0).chain(after).collect() }
    }

    fn byte(&self, place: Location) -> usize {
        let line = usize::try_from(place.line).unwrap_or(1).saturating_sub(1);
        let column = usize::try_from(place.column).unwrap_or(1).saturating_sub(1);
        let begin = self.lines.get(line).copied().unwrap_or(self.sql.len());
        let rest = self.sql.get(begin..).unwrap_or_default();
        begin + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::{PostgreSqlDialect, SQLiteDialect};

    use super::*;

    /// SQL-02: parameters are bound, never spliced; what looks like one inside a text or a comment is none.
    #[test]
    fn names_become_numbers() {
        for dialect in [&SQLiteDialect {} as &dyn Dialect, &PostgreSqlDialect {}] {
            let named = Named::parse(
                "SELECT 'é :no', \":no\" -- :no\n/* :no */ FROM t WHERE a = :a AND b < :b_1 OR c = :a;",
                dialect,
            )
            .unwrap();
            assert_eq!(named.names, ["a", "b_1"]);
            assert_eq!(
                named.sql,
                "SELECT 'é :no', \":no\" -- :no\n/* :no */ FROM t WHERE a = $1 AND b < $2 OR c = $1;"
            );
            assert!(Named::parse("SELECT 1; SELECT 2", dialect).unwrap_err().contains("several statements"));
            assert!(Named::parse("SELECT $1", dialect).unwrap_err().contains("write :name"));
        }
        let cast = Named::parse("SELECT :day::date, x::text", &PostgreSqlDialect {}).unwrap();
        assert_eq!(
            (cast.sql.as_str(), cast.names.as_slice()),
            ("SELECT $1::date, x::text", &["day".to_owned()][..])
        );
    }
}
