use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

#[test]
fn everyone_is_everybodys_group_and_unknown_groups_give_nothing() {
    let groups = [("everyone", "docs.read"), ("engineers", "db.read docs.write")];
    let groups = Groups::new(groups.map(|(name, text)| (name.to_owned(), scope(text))).into());
    assert_eq!(groups.entitled([]), scope("docs.read"));
    assert_eq!(groups.entitled(["engineers"]), scope("db.read docs.read docs.write"));
    assert_eq!(groups.entitled(["gone"]), scope("docs.read"));
    assert!(
        groups.is_joinable("engineers") && !groups.is_joinable("everyone") && !groups.is_joinable("gone")
    );
    assert_eq!(Groups::default().entitled(["engineers"]), Scope::empty());
}

/// RS-08: an ended token stays listed until five minutes after its expiry, and never longer than a token can
/// live.
#[test]
fn an_ended_token_is_listed_until_after_its_expiry() {
    let second = Duration::from_secs(1);
    let at = Timestamp(1_000_000);
    assert_eq!(listed(at + 900 * second, at), 1200 * second);
    assert_eq!(listed(at - 200 * second, at), 100 * second);
    assert_eq!(listed(at - 600 * second, at), Duration::ZERO);
    assert_eq!(listed(Timestamp(i64::MAX), at), LISTED);
}

/// RS-08: in one batch, a permission of an earlier job is published after the revocation of a later job; the
/// revocation must win.
#[tokio::test]
async fn a_kill_outlives_a_permission_of_the_same_batch() {
    let dir = tempfile::tempdir().unwrap();
    let clock = shared::Clock::held(Timestamp(1));
    let db = Db::open(&dir.path().join("x.db"), &shared::schema::SCHEMA, None, &clock).unwrap();
    let groups = Groups::new([("everyone".to_owned(), scope("docs.read"))].into());
    let status = Status::load(&db, groups, clock.now()).unwrap();
    let user = UserId::random();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let holding = db.clone();
    // This job is alone in its batch and holds the writer until two more are queued, so that those share the
    // next batch.
    let holding = tokio::spawn(async move {
        let held = move |_: &Tx<'_>| {
            let _ = begin.send(());
            released.recv().map_err(|_| Fault::Busy)
        };
        holding.write(held).await
    });
    begun.await.unwrap();
    let batches = Arc::new(AtomicUsize::new(0));
    let (first, second) = (Arc::clone(&batches), Arc::clone(&batches));
    let (enabling, disabling) = ((Arc::clone(&status), user.clone()), (Arc::clone(&status), user.clone()));
    let (enabled, disabled, _) = tokio::join!(
        db.write(move |tx| {
            enabling.0.set_groups(tx, &enabling.1, &[]);
            tx.after_commit(move || {
                first.fetch_add(1, Ordering::SeqCst);
            });
            Ok(())
        }),
        db.write(move |tx| {
            disabling.0.remove_user(tx, &disabling.1);
            Ok(second.load(Ordering::SeqCst))
        }),
        async { release.send(()) },
    );
    assert!(holding.await.unwrap().is_ok() && enabled.is_ok());
    assert_eq!(disabled.unwrap(), 0, "nothing was committed between the two: they are of one batch");
    assert_eq!(batches.load(Ordering::SeqCst), 1);
    assert_eq!(*status.entitled(&user), Scope::empty());
}
