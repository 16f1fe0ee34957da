//! What every writing command needs: the locked data directory, the database, the keys, and the authorization
//! server. `serve` adds sockets; commands use it directly when no server runs (ADMIN-05).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use authz::issuer_change::{self, Another};
use authz::{Authz, Groups, Parts, Status, people};
use keys::seal::Source;
use keys::{Checkpoints, Keys, Seal};
use resource::catalogue::BuiltIn;
use shared::data_dir::DataDir;
use shared::db::{self, restore};
use shared::rate::Tally;
use shared::schema::SCHEMA;
use shared::{Clock, Db, Issuer};

use crate::config::{File, SealKey};

/// An open data directory. It holds the directory's lock.
pub(crate) struct Store {
    pub db: Db,
    /// The scopes, resources and items.
    pub catalogue: BuiltIn,
    /// Counts refusals by rate limits.
    pub tally: Arc<Tally>,
    // Last: the lock goes when everything else is gone.
    pub dir: DataDir,
}

/// An open data directory with an authorization server over it.
pub(crate) struct Base {
    pub authz: Authz,
    pub status: Arc<Status>,
    pub keys: Keys,
    pub checkpoints: Checkpoints,
    // Last: the lock goes when everything else is gone.
    pub store: Store,
}

impl Store {
    /// Opens the data directory of a gateway alone, creating what is missing. Blocks.
    pub(crate) fn open_or_create(file: &File, catalogue: BuiltIn, clock: &Clock) -> anyhow::Result<Self> {
        let dir = DataDir::open_or_create(&file.data_dir_or_default())?;
        let dir = dir.mirrored_to(file.audit_mirror.as_deref())?;
        let db = Db::open_mirrored(&dir.database(), &dir.heads(), &SCHEMA, Some(&dir.backups()), clock)?;
        Ok(Self { db, catalogue, tally: Arc::default(), dir })
    }
}

impl Base {
    /// Opens the configured data directory for a server, creating what is missing. Without a gateway in this
    /// process, tokens cannot be requested for its endpoint. Blocks: it may generate keys.
    pub(crate) fn open_or_create(
        file: &File,
        has_gateway: bool,
        issuer: Issuer,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let dir = DataDir::open_or_create(&file.data_dir_or_default())?;
        let dir = dir.mirrored_to(file.audit_mirror.as_deref())?;
        let db = database(&dir, &file.signing.seal_key, clock)?;
        let stored = db.read(issuer_change::stored)?;
        if let Some(another) = stored.and_then(|stored| Another::than(&stored, &issuer)) {
            return Err(another.into());
        }
        let base = Self::build(dir, db, file, has_gateway, issuer, clock)?;
        let issuer = base.authz.issuer().clone();
        base.store.db.write_blocking(move |tx| issuer_change::store(tx, &issuer))?;
        Ok(base)
    }

    /// Opens a data directory that a server has used, under its stored issuer.
    pub(crate) fn open(file: &File, dir: &Path, clock: &Clock) -> anyhow::Result<Self> {
        let dir = DataDir::open(dir)?.mirrored_to(file.audit_mirror.as_deref())?;
        require_database(dir.path())?;
        let db = database(&dir, &file.signing.seal_key, clock)?;
        let issuer = db.read(issuer_change::stored)?;
        let issuer =
            issuer.context("no server has used this data directory yet; start `portcullis serve` once")?;
        Self::build(dir, db, file, true, Issuer::parse(&issuer)?, clock)
    }

    fn build(
        dir: DataDir,
        db: Db,
        file: &File,
        has_gateway: bool,
        issuer: Issuer,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let mut catalogue = BuiltIn::new(&issuer, &file.rules)?;
        if has_gateway {
            let sources: Vec<_> = file.sources.values().map(|source| source.settings.clone()).collect();
            let declared: Vec<_> = file.declared.values().map(|source| source.source.clone()).collect();
            db.read(|conn| catalogue.remember(conn, &sources, &declared))?;
        } else {
            catalogue = catalogue.without_endpoint();
        }
        let seal = file.signing.seal_key.source(dir.path())?;
        let seal = Arc::new(Seal::open(seal, !Keys::exist(&db)?)?);
        let keys = Keys::open(&db, Arc::clone(&seal), file.signing.keys.clone(), clock)?;
        seal.settle(&db)?;
        let checkpoints = Checkpoints::open(&db, &seal, clock)?;
        let alike = db.write_blocking(people::settle_names)?;
        let status = Status::load(&db, Groups::new(file.groups.clone()), clock.now())?;
        let tally = Arc::new(Tally::default());
        let authz = Authz::new(Parts {
            config: file.authz.clone(),
            issuer,
            db: db.clone(),
            clock: clock.clone(),
            keys: keys.clone(),
            seal,
            status: Arc::clone(&status),
            catalogue: Arc::new(catalogue.clone()),
            limits: file.limits,
            tally: Arc::clone(&tally),
        })?;
        for users in alike {
            tracing::warn!(
                users,
                "these users' names look alike; use their ids in commands until only one is left"
            );
        }
        Ok(Self { authz, status, keys, checkpoints, store: Store { db, catalogue, tally, dir } })
    }
}

fn database(dir: &DataDir, seal_key: &SealKey, clock: &Clock) -> anyhow::Result<Db> {
    refuse_seal_key_alone(dir, seal_key)?;
    if let Err(error) = restore::sweep(dir) {
        tracing::warn!(data_dir.error = %error, "files of an interrupted restore could not be removed");
    }
    Ok(Db::open_mirrored(&dir.database(), &dir.heads(), &SCHEMA, Some(&dir.backups()), clock)?)
}

/// Refuses a sealing key beside an empty database: the database was lost, and a new one must not be mistaken
/// for it (STORE-06).
fn refuse_seal_key_alone(dir: &DataDir, seal_key: &SealKey) -> anyhow::Result<()> {
    let Source::File(seal_key) = seal_key.source(dir.path())? else { return Ok(()) };
    let database = dir.database();
    let lost = !fs::metadata(&database).is_ok_and(|file| file.len() > 0)
        || (!dir.audit_head().exists() && db::is_unused(&database)?);
    anyhow::ensure!(
        !(lost && seal_key.exists()),
        "there is a seal key at {}, but its database is missing or empty. This is not a first start: put {} back, or restore a copy with `portcullis restore FILE`. To start from nothing, move the seal key away first",
        seal_key.display(),
        database.display()
    );
    Ok(())
}

/// Refuses a directory without a database, for commands that must not create one.
pub(crate) fn require_database(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("portcullis.db");
    anyhow::ensure!(
        path.exists(),
        "no database in {}; start `portcullis serve` once, or give the right directory with --data-dir",
        dir.display()
    );
    Ok(path)
}
