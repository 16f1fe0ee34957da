//! What the role of a connection may do (SQL-01): nothing but read. It is looked at on every new connection, before a call
//! uses it.

use tokio_postgres::Client;

/// Each condition with what is wrong if it holds.
const FORBIDDEN: [(&str, &str); 9] = [
    ("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", "is a superuser"),
    (
        "SELECT rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user",
        "may create roles or databases, replicate, or pass by row security",
    ),
    (
        "SELECT coalesce(bool_or(pg_catalog.pg_has_role(current_user, oid, 'MEMBER')), false) FROM pg_catalog.pg_roles WHERE rolsuper \
         OR rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_signal_backend', 'pg_write_all_data', 'pg_maintain', 'pg_checkpoint')",
        "is a member of a role that reads or writes the server's files, runs programs, ends sessions, or writes all data",
    ),
    (
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_t%' \
         AND (pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') \
         OR pg_catalog.has_any_column_privilege(c.oid, 'INSERT, UPDATE')))",
        "may write to a table",
    ),
    (
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname NOT LIKE 'pg\\_t%' AND CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'USAGE, UPDATE') ELSE false END)",
        "may advance a sequence",
    ),
    (
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname NOT LIKE 'pg\\_t%' AND pg_catalog.has_schema_privilege(n.oid, 'CREATE'))",
        "may create things in a schema",
    ),
    (
        "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')",
        "may create schemas",
    ),
    (
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_foreign_server s WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE'))",
        "may use a foreign server",
    ),
    (
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_language l WHERE NOT l.lanpltrusted AND l.lanispl AND pg_catalog.has_language_privilege(l.oid, 'USAGE'))",
        "may write functions in a language without limits",
    ),
];

/// # Errors
/// What is wrong with the role, in words for administrators.
pub(super) async fn check(client: &Client) -> Result<(), String> {
    for (question, wrong) in FORBIDDEN {
        let row = client.query_one(question, &[]).await;
        let holds: bool = row.map_err(|error| super::words(&error))?.get(0);
        if holds {
            return Err(format!(
                "its role {wrong}; give it a role that can only read (LOGIN, and SELECT on what it may see)"
            ));
        }
    }
    Ok(())
}
