//! Yardsticks for the gate, each in a process of its own: a reverse proxy that only forwards, and the two audit records of
//! a call that writes, without the call.

use std::io::BufRead;
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use shared::audit::{self, Event, Name};
use shared::schema::SCHEMA;
use shared::{ClientId, Clock, Db, GrantId, Jti, Request, ResourceUri, UserId};
use tokio::net::{TcpListener, TcpStream};

use crate::machine::roles::say;
use crate::machine::{self, wire};

/// The role of a reverse proxy; its argument is the origin to forward to.
pub const PROXY: &str = "proxy";
/// The role that writes the records.
pub const RECORDS: &str = "records";

/// Forwards each connection over one connection to the upstream. Headers and bodies stay as they are.
pub async fn proxy(upstream: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    say(format_args!("http://{}", listener.local_addr().expect("it is bound")));
    let upstream = wire::host(upstream).to_owned();
    loop {
        let (socket, _) = listener.accept().await.expect("a connection comes");
        let upstream = upstream.clone();
        tokio::spawn(async move {
            let there = TcpStream::connect(&upstream).await.expect("the upstream listens");
            drop((socket.set_nodelay(true), there.set_nodelay(true)));
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(there)).await;
            let (sender, connection) = handshake.expect("a connection without TLS needs no handshake");
            tokio::spawn(connection);
            let sender = std::sync::Arc::new(tokio::sync::Mutex::new(sender));
            let pass = service_fn(move |request: hyper::Request<Incoming>| {
                let sender = std::sync::Arc::clone(&sender);
                async move { sender.lock().await.send_request(request.map(Body::new)).await }
            });
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), pass).await;
        });
    }
}

/// For each line on standard input: that many callers write the two records of a call in a loop, for this long. Prints the calls
/// a second.
pub async fn records(callers: usize, turn: Duration) {
    let dir = tempfile::tempdir().expect("TMPDIR is a directory to write to");
    let path = dir.path().join("records.db");
    let opened = tokio::task::spawn_blocking(move || Db::open(&path, &SCHEMA, None, &Clock::system())).await;
    let db = opened.expect("opening does not panic").expect("a database can be made");
    say("ready");
    let (grant, user) = (GrantId::random(), UserId::from_subject("u_aaaaaaaaaaaaaaaaaaaaaaaaaa"));
    let mut lines = std::io::stdin().lock().lines();
    while lines.next().is_some() {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (db, grant, user) = (db.clone(), grant.clone(), user.clone());
                tokio::spawn(async move {
                    let mut calls = 0_usize;
                    while begun.elapsed() < turn {
                        let event = record(Name::McpCall, &grant, &user);
                        db.write(move |tx| audit::append(tx, event)).await.expect("the disk has room");
                        let event =
                            record(Name::McpResult, &grant, &user).detail("result", "ok").detail("ms", 1);
                        db.record(move |tx| audit::append(tx, event)).await.expect("the disk has room");
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        let mut calls = 0;
        for task in tasks {
            calls += task.await.expect("a writer does not panic");
        }
        say(machine::per_second(calls, begun.elapsed()));
    }
}

fn record(name: Name, grant: &GrantId, user: &UserId) -> Event {
    let client = ClientId::parse("dyn_aaaaaaaaaaaaaaaaaaaaaaaaaa").expect("it is one");
    Event::allowed(name)
        .by_user(user)
        .client(&client)
        .grant(grant)
        .jti(Jti::random(0).as_str())
        .resource(&ResourceUri::parse("http://localhost:8080/mcp").expect("it is one"))
        .scope(&["docs.read"].into_iter().collect())
        .request(&Request::from(Some([127, 0, 0, 1].into())))
        .detail("method", "tools/call")
        .detail("name", "up_put")
        .detail("scopes_needed", vec!["docs.read"])
        .detail("decision", "allow")
        .detail("args_sha256", "0".repeat(64))
}
