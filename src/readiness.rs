//! Readiness (OPS-05): whether the database can be written, and its volume has room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, open};
use rustix::io::{Errno, write};
use shared::{Clock, Db};
use tokio::sync::Mutex;

/// How long a verdict is cached: frequent probes cost the disk at most one write in this time.
const COUNTS: Duration = Duration::from_secs(5);
/// The required room in bytes.
const ROOM: u64 = 1 << 20;

/// Tells whether the server is ready. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Readiness(Arc<Inner>);

struct Inner {
    db: Db,
    folder: PathBuf,
    clock: Clock,
    /// The last verdict and its time, by `Clock::uptime`. Concurrent probes wait for one check.
    looked: Mutex<Option<(Duration, bool)>>,
}

impl Readiness {
    /// For a server with this database.
    pub(crate) fn of(db: &Db, clock: &Clock) -> Self {
        let folder = db.path().parent().unwrap_or(Path::new(".")).to_owned();
        Self(Arc::new(Inner { db: db.clone(), folder, clock: clock.clone(), looked: Mutex::default() }))
    }

    /// `GET /readyz`.
    pub(crate) async fn answer(self) -> Response {
        if self.is_ready().await {
            return "ready\n".into_response();
        }
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }

    async fn is_ready(&self) -> bool {
        let mut looked = self.0.looked.lock().await;
        let now = self.0.clock.uptime();
        if let Some((at, ready)) = *looked
            && now.saturating_sub(at) < COUNTS
        {
            return ready;
        }
        let was = looked.is_none_or(|(_, ready)| ready);
        let obstacle = self.obstacle().await;
        match &obstacle {
            Some(obstacle) if was => {
                tracing::error!(ready.obstacle = %obstacle, "not ready: the database cannot be written");
            }
            None if !was => tracing::info!("ready again"),
            _ => {}
        }
        *looked = Some((now, obstacle.is_none()));
        obstacle.is_none()
    }

    /// What prevents requests that store something.
    async fn obstacle(&self) -> Option<String> {
        let folder = self.0.folder.clone();
        let room = tokio::task::spawn_blocking(move || has_room(&folder)).await;
        match room {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(format!("no room in the data directory: {error}")),
            Err(panic) => return Some(panic.to_string()),
        }
        // A transaction without changes writes the time.
        self.0.db.record(|_| Ok(())).await.err().map(|fault| fault.to_string())
    }
}

/// Allocates room and releases it. The database alone does not show that a volume is full: it rewrites its log
/// in a file that already has its size.
fn has_room(folder: &Path) -> io::Result<()> {
    // A file without a name is deleted with its handle, also after a kill.
    let file = match open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
    {
        Ok(file) => file,
        // Not every file system supports them.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => return statfs_has_room(folder),
        Err(error) => return Err(error.into()),
    };
    match fallocate(&file, FallocateFlags::empty(), 0, ROOM) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = [0; 16 * 1024];
            for _ in 0..ROOM / zeros.len() as u64 {
                if write(&file, &zeros)? < zeros.len() {
                    return Err(Errno::NOSPC.into());
                }
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// The free room reported by the file system.
fn statfs_has_room(folder: &Path) -> io::Result<()> {
    let said = rustix::fs::statvfs(folder)?;
    if said.f_bavail.saturating_mul(said.f_frsize) >= ROOM { Ok(()) } else { Err(Errno::NOSPC.into()) }
}

#[cfg(test)]
mod tests {
    use shared::Timestamp;
    use shared::schema::SCHEMA;

    use super::*;

    /// OPS-05: a verdict is cached, so that probes do not wear out the disk; then it is checked again.
    #[tokio::test]
    async fn probes_share_a_verdict() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::held(Timestamp(1_795_435_200_000));
        let db = Db::open(&dir.path().join("x.db"), &SCHEMA, None, &clock).unwrap();
        let readiness = Readiness::of(&db, &clock);
        let written = || {
            db.read(|conn| {
                conn.query_row("SELECT value FROM setting WHERE name = 'time'", [], |row| {
                    row.get::<String>(0)
                })
            })
            .unwrap()
        };
        assert!(readiness.is_ready().await);
        let first = written();
        clock.advance(Duration::from_millis(4999));
        for _ in 0..100 {
            assert!(readiness.is_ready().await);
        }
        assert_eq!(written(), first);
        clock.advance(Duration::from_millis(1));
        assert!(readiness.is_ready().await);
        assert_ne!(written(), first);
        // The folder is deleted, so nothing can be written.
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(readiness.is_ready().await);
        clock.advance(COUNTS);
        assert!(!readiness.is_ready().await);
    }

    /// OPS-05: a folder that cannot be written to has no room.
    #[test]
    fn free_disk_space_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        has_room(dir.path()).unwrap();
        statfs_has_room(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(has_room(&dir.path().join("missing")).is_err());
        assert!(has_room(Path::new("/proc")).is_err());
    }
}
