//! What a free `SELECT` may be (SQL-01): one statement that only reads, by a real parser.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::thread;

use sqlparser::ast::{
    Expr, ObjectName, ObjectNamePart, Query, Select, SetExpr, Statement, TableFactor, Visit, Visitor,
};
use sqlparser::dialect::Dialect;
use sqlparser::parser::Parser;

/// The stack for parsing: a text of the greatest length nests so deep that a small one would not do.
const STACK: usize = 64 << 20;
/// The deepest nesting of parentheses and subqueries.
const DEEPEST: usize = 50;

/// The functions that a statement calls, if it may be run.
///
/// # Errors
/// Why it may not be run, in words for a model.
pub(super) fn admitted(sql: &str, dialect: Box<dyn Dialect + Send>) -> Result<Vec<String>, String> {
    let sql = sql.to_owned();
    let parsing = thread::Builder::new().stack_size(STACK).spawn(move || judged(&sql, &*dialect));
    let parsed = parsing.map_err(|error| format!("The statement could not be read: {error}."))?.join();
    parsed.unwrap_or_else(|_| Err("The statement could not be read.".to_owned()))
}

fn judged(sql: &str, dialect: &dyn Dialect) -> Result<Vec<String>, String> {
    let parser = Parser::new(dialect).with_recursion_limit(DEEPEST).try_with_sql(sql);
    let statements = parser.and_then(|mut parser| parser.parse_statements());
    let statements = statements.map_err(|error| format!("The statement could not be read: {error}."))?;
    let [statement @ Statement::Query(_)] = &statements[..] else {
        return Err("Only one SELECT statement can be run.".to_owned());
    };
    let mut walk = Walk::default();
    match statement.visit(&mut walk) {
        ControlFlow::Continue(()) => Ok(walk.functions.into_iter().collect()),
        ControlFlow::Break(why) => Err(why),
    }
}

/// Looks at every part of a statement.
#[derive(Default)]
struct Walk {
    functions: BTreeSet<String>,
}

impl Walk {
    /// Notes a function by its last name, as written and in lower case: one of the two is what the database looks up.
    fn calls(&mut self, name: &ObjectName) {
        match name.0.last() {
            Some(ObjectNamePart::Identifier(name)) => {
                self.functions.insert(name.value.clone());
                self.functions.insert(name.value.to_lowercase());
            }
            _ => drop(self.functions.insert(name.to_string())),
        }
    }
}

impl Visitor for Walk {
    type Break = String;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<String> {
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(
                "Only SELECT statements can be run, and nothing that changes data.".to_owned(),
            ),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        if !query.locks.is_empty() {
            return ControlFlow::Break(
                "SELECT … FOR UPDATE or FOR SHARE cannot be run; leave it out.".to_owned(),
            );
        }
        let mut parts = vec![&*query.body];
        while let Some(part) = parts.pop() {
            match part {
                SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => {}
                SetExpr::SetOperation { left, right, .. } => parts.extend([&**left, &**right]),
                _ => return ControlFlow::Break("Only SELECT can be run, also inside WITH.".to_owned()),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        match select.into {
            Some(_) => ControlFlow::Break("SELECT … INTO cannot be run; leave INTO out.".to_owned()),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<String> {
        let of_system = |part: &ObjectNamePart| match part {
            ObjectNamePart::Identifier(name) => name.value.to_lowercase().starts_with("pg_"),
            ObjectNamePart::Function(_) => true,
        };
        if relation.0.iter().any(of_system) {
            return ControlFlow::Break(format!(
                "`{relation}` belongs to the database system and cannot be read."
            ));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                self.calls(name);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        if let Expr::Function(function) = expr {
            self.calls(&function.name);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::{PostgreSqlDialect, SQLiteDialect};

    use super::*;

    fn sqlite(sql: &str) -> Result<Vec<String>, String> {
        admitted(sql, Box::new(SQLiteDialect {}))
    }

    fn postgres(sql: &str) -> Result<Vec<String>, String> {
        admitted(sql, Box::new(PostgreSqlDialect {}))
    }

    /// SQL-01: one statement that reads, with the functions that it calls wherever they stand.
    #[test]
    fn one_select_is_admitted() {
        assert_eq!(
            sqlite("SELECT a FROM t /* ; */ WHERE b = ';' -- ; DROP TABLE t\n;").unwrap(),
            Vec::<String>::new()
        );
        assert_eq!(
            postgres("WITH x AS (SELECT Upper(a) FROM t) SELECT count(*) FROM x, generate_series(1, 2) WHERE \"Odd\"(1) IN (SELECT now())")
                .unwrap(),
            ["Odd", "Upper", "count", "generate_series", "now", "odd", "upper"]
        );
        assert_eq!(postgres("SELECT pg_catalog.pg_sleep(1)").unwrap(), ["pg_sleep"]);
        assert_eq!(postgres("SELECT 1 ORDER BY set_config('a', 'b', true)").unwrap(), ["set_config"]);
        assert_eq!(postgres("SELECT 1 LIMIT pg_backend_pid()").unwrap(), ["pg_backend_pid"]);
        assert_eq!(
            postgres("SELECT a FROM t GROUP BY a HAVING lo_export(1, 'x') > 0").unwrap(),
            ["lo_export"]
        );
    }

    /// SQL-01: everything else is refused, with words that help.
    #[test]
    fn nothing_else_is_admitted() {
        for sql in [
            "",
            ";",
            "SELECT 1; SELECT 2",
            "SELECT 1; DROP TABLE t",
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
            "WITH x AS (SELECT 1) DELETE FROM t",
            "SELECT * INTO n FROM t",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM (SELECT * FROM t FOR SHARE) s",
            "ATTACH 'x' AS y",
            "VACUUM INTO 'x'",
            "PRAGMA writable_schema = ON",
            "EXPLAIN ANALYZE DELETE FROM t",
            "COPY t TO PROGRAM 'id'",
            "SET ROLE postgres",
            "BEGIN",
            "COMMIT",
            "DO 'x'",
            "CALL x()",
            "LOCK TABLE t",
            "SELECT * FROM pg_catalog.pg_authid",
            "SELECT * FROM PG_Stat_Activity",
            "SELECT 'open",
        ] {
            assert!(postgres(sql).is_err(), "{sql}");
            assert!(sqlite(sql).is_err(), "{sql}");
        }
        // Deep and long texts end with an answer, and not with the process.
        let union = "SELECT 1 UNION ALL ".repeat(400) + "SELECT 1";
        let sum = format!("SELECT 1{}", "+1".repeat(4000));
        let nested = format!("SELECT {}1{}", "(".repeat(4000), ")".repeat(4000));
        assert!(postgres(&union).is_ok() && postgres(&sum).is_ok() && postgres(&nested).is_err());
    }
}
