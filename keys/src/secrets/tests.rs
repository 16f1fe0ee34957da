use shared::Clock;
use shared::db::params;
use shared::schema::SCHEMA;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const JIRA: Server<'static> = Server { source: "jira", target: "mcp-http https://jira/mcp" };

struct Kept {
    dir: tempfile::TempDir,
    db: Db,
    seal: Arc<Seal>,
    secrets: Secrets,
    user: UserId,
}

fn kept() -> Kept {
    let dir = tempfile::tempdir().unwrap();
    let seal = Arc::new(Seal::open_or_create(&dir.path().join("seal.key"), true).unwrap());
    let db = Db::open(&dir.path().join("main.db"), &SCHEMA, None, &Clock::held(NOW)).unwrap();
    let user = UserId::random();
    let id = user.clone();
    db.write_blocking(move |tx| {
        tx.execute(
            "INSERT INTO user (id, name, role, handle, created_at) VALUES (?1, 'ines', 'none', x'01', 0)",
            params![id],
        )
    })
    .unwrap();
    Kept { secrets: Secrets::new(db.clone(), Arc::clone(&seal)), dir, db, seal, user }
}

impl Kept {
    fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Secrets, &UserId, &Tx<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> T {
        let (secrets, user) = (self.secrets.clone(), self.user.clone());
        self.db.write_blocking(move |tx| job(&secrets, &user, tx)).unwrap()
    }

    fn of_user(&self, server: Server<'_>) -> Option<String> {
        self.secrets.of_user(self.user.as_str(), server).unwrap().map(|held| held.value.expose().to_owned())
    }
}

fn secret(text: &str) -> Secret {
    Secret::presented(text)
}

/// SRC-10: a value is returned unchanged, a new value has a new version, and a deleted one is gone; the files
/// contain none of them.
#[test]
fn a_secret_is_kept_sealed_and_versioned() {
    let kept = kept();
    assert!(kept.write(|secrets, _, tx| secrets.set_named(tx, "ci", &secret("canary-one"))));
    let first = kept.secrets.named("ci").unwrap().unwrap();
    assert_eq!(first.value.expose(), "canary-one");
    assert!(!kept.write(|secrets, _, tx| secrets.set_named(tx, "ci", &secret("canary-two"))));
    let second = kept.secrets.named("ci").unwrap().unwrap();
    assert!(second.value.expose() == "canary-two" && second.version != first.version);
    assert!(kept.write(|_, _, tx| remove_named(tx, "ci")) && !kept.write(|_, _, tx| remove_named(tx, "ci")));
    assert!(kept.secrets.named("ci").unwrap().is_none());
    // Setting it again makes a new version, so sessions that began with the first one end.
    kept.write(|secrets, _, tx| secrets.set_named(tx, "ci", &secret("canary-one")));
    assert_ne!(kept.secrets.named("ci").unwrap().unwrap().version, first.version);
    for entry in std::fs::read_dir(kept.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"canary-"));
    }
    assert!(!format!("{first:?}").contains("canary"));
}

/// SRC-10, SRC-15: a user's secret is for one source at one address; it is not used for other users or other
/// addresses.
#[test]
fn a_users_secret_is_for_one_server_where_it_was() {
    let kept = kept();
    kept.write(|secrets, user, tx| secrets.set_of_user(tx, user, JIRA, &secret("mine")));
    assert_eq!(kept.of_user(JIRA).as_deref(), Some("mine"));
    assert_eq!(kept.of_user(Server { target: "mcp-http https://evil/mcp", ..JIRA }), None);
    assert_eq!(kept.of_user(Server { source: "ci", ..JIRA }), None);
    assert!(kept.secrets.of_user(UserId::random().as_str(), JIRA).unwrap().is_none());
    let moved = Server { target: "mcp-http https://moved/mcp", ..JIRA };
    assert!(!kept.write(move |secrets, user, tx| secrets.set_of_user(tx, user, moved, &secret("new"))));
    assert_eq!((kept.of_user(JIRA), kept.of_user(moved).as_deref()), (None, Some("new")));
    let listed = kept.db.read(|conn| list_of_user(conn, &kept.user)).unwrap();
    assert_eq!((listed.len(), listed[0].name.as_str(), listed[0].changed_at), (1, "jira", NOW));
    let user = kept.user.clone();
    kept.db.write_blocking(move |tx| tx.execute("DELETE FROM user WHERE id = ?1", params![user])).unwrap();
    assert!(kept.of_user(moved).is_none() && kept.db.read(list).unwrap().is_empty());
}

/// SRC-10, KEYS-05: a sealed value that is moved to another name, user, source or version cannot be unsealed.
#[test]
fn a_sealed_value_opens_nowhere_else() {
    for change in [
        "UPDATE secret SET name = 'b'",
        "UPDATE secret SET version = 'x'",
        "UPDATE secret SET sealed = (SELECT sealed FROM user_secret)",
        "UPDATE user_secret SET source = 'b'",
        "UPDATE user_secret SET target = 'elsewhere'",
        "UPDATE user_secret SET user_id = (SELECT id FROM user WHERE name = 'other')",
        "UPDATE user_secret SET sealed = (SELECT sealed FROM secret)",
    ] {
        let kept = kept();
        kept.write(|secrets, user, tx| {
            secrets.set_named(tx, "a", &secret("one"))?;
            secrets.set_of_user(tx, user, JIRA, &secret("two"))?;
            tx.execute(
                "INSERT INTO user (id, name, role, handle, created_at) VALUES ('other', 'other', 'none', x'02', 0)",
                params![],
            )
        });
        kept.write(move |_, _, tx| tx.execute(change, params![]));
        let users = [kept.user.as_str(), "other"];
        let targets = [JIRA.target, "elsewhere"];
        let mut opened = vec![kept.secrets.named("a"), kept.secrets.named("b")];
        for (user, target) in users.into_iter().flat_map(|user| targets.map(|target| (user, target))) {
            for source in ["jira", "b"] {
                opened.push(kept.secrets.of_user(user, Server { source, target }));
            }
        }
        assert_eq!(opened.iter().filter(|opened| matches!(opened, Ok(Some(_)))).count(), 1, "{change}");
        assert_eq!(
            opened.iter().filter(|opened| matches!(opened, Err(Fault::Corrupt(_)))).count(),
            1,
            "{change}"
        );
    }
}

/// KEYS-05: after a reseal the new key unseals every secret, and the old one none.
#[test]
fn another_seal_key_takes_all_secrets_along() {
    let kept = kept();
    kept.write(|secrets, user, tx| {
        secrets.set_named(tx, "a", &secret("one"))?;
        secrets.set_of_user(tx, user, JIRA, &secret("two"))
    });
    let before = std::fs::read(kept.dir.path().join("seal.key")).unwrap();
    let pending = kept.seal.prepare(&kept.db, None, None).unwrap();
    let (seal, then) = (Arc::clone(&kept.seal), pending.clone());
    let event = shared::audit::Event::allowed(shared::audit::Name::ServerConfigChanged).by_server();
    let resealed = kept.db.write_blocking(move |tx| seal.reseal(tx, &then, event)).unwrap();
    assert_eq!(resealed.values, 2);
    kept.seal.finish(&kept.db, &pending).unwrap();
    assert_eq!(kept.secrets.named("a").unwrap().unwrap().value.expose(), "one");
    assert_eq!(kept.of_user(JIRA).as_deref(), Some("two"));
    let old = kept.dir.path().join("old.key");
    std::fs::write(&old, before).unwrap();
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let old = Secrets::new(kept.db.clone(), Arc::new(Seal::open_or_create(&old, false).unwrap()));
    assert!(old.named("a").is_err() && old.of_user(kept.user.as_str(), JIRA).is_err());
}

#[test]
fn only_values_that_fit_in_a_header_are_accepted() {
    assert_eq!(value("  ghp_abc\n").unwrap().expose(), "ghp_abc");
    assert_eq!(value("Bearer abc").unwrap().expose(), "Bearer abc");
    for (text, why) in [
        ("", InvalidSecret::Empty),
        (" \n", InvalidSecret::Empty),
        ("a\nb", InvalidSecret::NotVisible),
        ("a\r\nX-Evil: 1", InvalidSecret::NotVisible),
        ("grüß", InvalidSecret::NotVisible),
        ("a\u{0}", InvalidSecret::NotVisible),
    ] {
        assert_eq!(value(text).unwrap_err(), why, "{text:?}");
    }
    assert!(value(&"x".repeat(LONGEST)).is_ok());
    assert_eq!(value(&"x".repeat(LONGEST + 1)).unwrap_err(), InvalidSecret::TooLong);
}
