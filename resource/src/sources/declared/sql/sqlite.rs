//! SQLite: a connection for each call, which the engine itself keeps from doing anything but read (SQL-01).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::rows::{self, Caps, Rows};
use super::{Ready, Refusal};

/// Calls that run at the same time; more wait.
const MOST_CALLS: usize = 4;
/// How many steps of the engine pass between two looks at the clock.
const STEPS: std::ffi::c_int = 1000;
/// How long a call waits for another program that writes.
const BUSY: Duration = Duration::from_secs(1);
/// The bounds of what a statement may be and make.
const LIMITS: [(Limit, i32); 9] = [
    (Limit::SQLITE_LIMIT_LENGTH, 4 << 20),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 64 << 10),
    (Limit::SQLITE_LIMIT_COLUMN, 500),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 50),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 50),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 500),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 0),
];
/// The functions of SQLite that depend on their arguments alone, or on the time.
const FUNCTIONS: &str = "abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling char coalesce concat concat_ws cos cosh count \
    cume_dist date datetime degrees dense_rank exp first_value floor format glob group_concat hex ifnull iif instr json \
    json_array json_array_length json_each json_error_position json_extract json_group_array json_group_object json_insert \
    json_object json_patch json_pretty json_quote json_remove json_replace json_set json_tree json_type json_valid julianday lag \
    last_value lead length like likelihood likely ln log log10 log2 lower ltrim max min mod nth_value ntile nullif \
    octet_length percent_rank pi pow power printf quote radians rank replace round row_number rtrim sign sin sinh sqrt strftime \
    string_agg substr substring sum tan tanh time timediff total trim trunc typeof unhex unicode unixepoch unlikely upper -> ->>";

/// A database file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqliteFile {
    /// As it was written, for people.
    pub shown: String,
    pub path: PathBuf,
    /// The data directory: nothing in it is opened.
    pub data_dir: PathBuf,
}

impl SqliteFile {
    /// The file's own path, if it may be opened.
    ///
    /// # Errors
    /// Why it may not, in words.
    pub fn checked(&self) -> Result<PathBuf, String> {
        let path =
            fs::canonicalize(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let file = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !file.is_file() {
            return Err(format!("{} is not a file", path.display()));
        }
        let Ok(data) = fs::canonicalize(&self.data_dir) else { return Ok(path) };
        if path.starts_with(&data) || has(&data, (file.dev(), file.ino())) {
            return Err(format!("{} is in the data directory, which no source may read", path.display()));
        }
        Ok(path)
    }
}

/// Whether a file of the folder is this one under another name.
fn has(folder: &Path, file: (u64, u64)) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).any(|known| (known.dev(), known.ino()) == file)
}

/// A database file in use.
pub(super) struct Sqlite {
    file: SqliteFile,
    /// Functions that may be called beside [`FUNCTIONS`].
    functions: Vec<String>,
    calls: Semaphore,
}

impl Sqlite {
    pub(super) fn new(file: SqliteFile, functions: Vec<String>) -> Self {
        Self { file, functions, calls: Semaphore::new(MOST_CALLS) }
    }

    /// Runs a statement. Dropping this future ends it.
    pub(super) async fn run(&self, ready: Ready, caps: Caps, patience: Duration) -> Result<Rows, Refusal> {
        let functions = self.functions.clone();
        self.connected(patience, move |connection| {
            connection.authorizer(Some(move |context: AuthContext<'_>| judged(&context, &functions)))?;
            read(connection, &ready, caps)
        })
        .await
    }

    /// The tables and views with their columns.
    pub(super) async fn describe(&self, caps: Caps, patience: Duration) -> Result<Rows, Refusal> {
        let sql = "SELECT m.name AS \"table\", p.name AS \"column\", p.type, p.\"notnull\" = 0 AS nullable, p.pk > 0 AS key \
             FROM sqlite_schema m JOIN pragma_table_info(m.name) p \
             WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY m.name, p.cid";
        let ready = Ready { sql: sql.to_owned(), values: Vec::new(), functions: None };
        self.connected(patience, move |connection| read(connection, &ready, caps)).await
    }

    async fn connected(
        &self,
        patience: Duration,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<Rows> + Send + 'static,
    ) -> Result<Rows, Refusal> {
        let Ok(_place) = self.calls.acquire().await else {
            return Err(Refusal::Away("it is closed".to_owned()));
        };
        let left = CancellationToken::new();
        let _leaving = left.clone().drop_guard();
        let (file, end) = (self.file.clone(), Instant::now() + patience);
        let ran = tokio::task::spawn_blocking(move || {
            let path = file.checked().map_err(Refusal::Away)?;
            let mut connection = open(&path).map_err(|error| Refusal::Away(error.to_string()))?;
            let stop = move || left.is_cancelled() || Instant::now() >= end;
            let watched = connection.progress_handler(STEPS, Some(stop));
            watched.and_then(|()| job(&mut connection)).map_err(|error| refusal(&error))
        });
        ran.await.unwrap_or_else(|panic| Err(Refusal::Away(panic.to_string())))
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    for (limit, most) in LIMITS {
        connection.set_limit(limit, most)?;
    }
    Ok(connection)
}

/// What the engine may do while it prepares and runs a statement: select, and call harmless functions.
fn judged(context: &AuthContext<'_>, listed: &[String]) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Recursive | AuthAction::Read { .. } => Authorization::Allow,
        AuthAction::Function { function_name } => {
            let name = function_name.to_lowercase();
            let known =
                FUNCTIONS.split_ascii_whitespace().any(|known| known == name) || listed.contains(&name);
            if known { Authorization::Allow } else { Authorization::Deny }
        }
        _ => Authorization::Deny,
    }
}

fn read(connection: &Connection, ready: &Ready, caps: Caps) -> rusqlite::Result<Rows> {
    let mut statement = connection.prepare(&ready.sql)?;
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(rusqlite::Error::InvalidQuery);
    }
    for (at, value) in ready.values.iter().enumerate() {
        let at = at + 1;
        match value {
            Value::Null => statement.raw_bind_parameter(at, rusqlite::types::Null)?,
            Value::Bool(truth) => statement.raw_bind_parameter(at, *truth)?,
            Value::Number(number) => match number.as_i64() {
                Some(whole) => statement.raw_bind_parameter(at, whole)?,
                None => statement.raw_bind_parameter(at, number.as_f64())?,
            },
            Value::String(text) => statement.raw_bind_parameter(at, text)?,
            other => statement.raw_bind_parameter(at, other.to_string())?,
        }
    }
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let count = columns.len();
    let mut rows = Rows::new(columns, caps);
    let mut found = statement.raw_query();
    while let Some(row) = found.next()? {
        let values = (0..count).map(|at| row.get_ref(at).map(value)).collect::<rusqlite::Result<_>>()?;
        if !rows.push(values) {
            break;
        }
    }
    Ok(rows)
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => rows::integer(number),
        ValueRef::Real(number) => rows::real(number),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(blob) => rows::bytes(blob),
    }
}

fn refusal(error: &rusqlite::Error) -> Refusal {
    let code = error.sqlite_error_code();
    let words = match code {
        Some(ErrorCode::OperationInterrupted) => {
            "The statement took too long and was ended. Use WHERE, LIMIT or fewer joins.".to_owned()
        }
        Some(ErrorCode::AuthorizationForStatementDenied) => format!(
            "The database refused the statement: {error}. It may only read tables and call functions without side effects."
        ),
        Some(ErrorCode::TooBig) => {
            "A value in the result is too large. Select less of it, for example with substr.".to_owned()
        }
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::CannotOpen
            | ErrorCode::NotADatabase
            | ErrorCode::DatabaseCorrupt,
        ) => {
            return Refusal::Away(error.to_string());
        }
        _ if matches!(error, rusqlite::Error::InvalidQuery) => {
            "Only statements that return rows can be run.".to_owned()
        }
        _ => format!("The database refused the statement: {error}."),
    };
    Refusal::Statement(words)
}
