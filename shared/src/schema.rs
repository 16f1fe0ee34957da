//! The schema of `portcullis.db`.

use crate::db::Schema;

/// The schema of the main database. "PCUL" identifies its files.
pub const SCHEMA: Schema = Schema {
    application_id: 0x5043_554C,
    migrations: &[
        include_str!("../migrations/0001_initial.sql"),
        include_str!("../migrations/0002_mcp_session.sql"),
        include_str!("../migrations/0003_authorization_server.sql"),
        include_str!("../migrations/0004_client_assertion_share.sql"),
        include_str!("../migrations/0005_names_and_issuers.sql"),
        include_str!("../migrations/0006_shares.sql"),
        include_str!("../migrations/0007_sources.sql"),
        include_str!("../migrations/0008_secrets.sql"),
        include_str!("../migrations/0009_item_kinds.sql"),
        include_str!("../migrations/0010_call_counts.sql"),
        include_str!("../migrations/0011_labels.sql"),
    ],
    audited: true,
};
