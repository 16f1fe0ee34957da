use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http_body_util::BodyExt;
use shared::Scope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::testing::{App, NOW, bearer, token};

/// Tells what it is sent, while its user is entitled.
struct News {
    events: mpsc::Receiver<&'static str>,
    needs: Scope,
    asked: Arc<AtomicU32>,
}

impl Feed for News {
    async fn next(&mut self) -> Option<Bytes> {
        self.events.recv().await.map(|event| Bytes::from_static(event.as_bytes()))
    }

    async fn may_go_on(&mut self, caller: &CheckedToken) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.needs.is_subset(caller.entitled())
    }
}

struct Open {
    app: App,
    jti: String,
    tell: mpsc::Sender<&'static str>,
    asked: Arc<AtomicU32>,
    body: Body,
}

/// An open stream, after what it says first.
async fn opened() -> Open {
    opened_needing("docs.read").await
}

/// The same, with a feed that needs this.
async fn opened_needing(needs: &str) -> Open {
    let app = App::start();
    let token = token("docs.read");
    let caller = app.resource.bearer().check(&bearer(&token).parse().unwrap(), &token.aud, NOW).unwrap();
    let (tell, events) = mpsc::channel(8);
    let asked = Arc::default();
    let feed = News { events, needs: needs.parse().unwrap(), asked: Arc::clone(&asked) };
    tokio::time::pause();
    let body = open(&app.resource, caller, feed).unwrap().into_body();
    let mut open = Open { app, jti: token.jti.to_string(), tell, asked, body };
    assert_eq!(open.heard().await.as_deref(), Some(":\n\n"));
    open
}

impl Open {
    async fn heard(&mut self) -> Option<String> {
        let frame = self.body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }
}

/// Events arrive in order between comments, and the end of the feed ends the stream.
#[tokio::test]
async fn a_stream_delivers_every_event_of_its_feed() {
    let mut open = opened().await;
    open.tell.send("data: 1\n\n").await.unwrap();
    open.tell.send("data: 2\n\n").await.unwrap();
    assert_eq!(open.heard().await.as_deref(), Some("data: 1\n\n"));
    assert_eq!(open.heard().await.as_deref(), Some("data: 2\n\n"));
    assert_eq!(open.heard().await.as_deref(), Some(":\n\n"));
    open.tell.send("data: 3\n\n").await.unwrap();
    let (closed, _) = mpsc::channel(1);
    drop(std::mem::replace(&mut open.tell, closed));
    assert_eq!(open.heard().await.as_deref(), Some("data: 3\n\n"));
    assert_eq!(open.heard().await, None);
    assert!(open.app.resource.streams().lock().is_empty());
}

/// RS-08: the token status is checked at every event, not only at the next interval.
#[tokio::test]
async fn a_stream_sends_nothing_after_a_revocation() {
    let mut open = opened().await;
    let before = open.asked.load(Ordering::SeqCst);
    open.tell.send("data: 1\n\n").await.unwrap();
    assert_eq!(open.heard().await.as_deref(), Some("data: 1\n\n"));
    assert_eq!(open.asked.load(Ordering::SeqCst), before + 1);
    open.tell.send("data: 2\n\n").await.unwrap();
    open.app.stage.kill(&open.jti);
    assert_eq!(open.heard().await, None);
}

/// RS-10: losing a needed scope ends the stream within two seconds.
#[tokio::test]
async fn a_lost_entitlement_ends_a_stream() {
    let mut open = opened().await;
    let then = Instant::now();
    open.app.stage.entitle("other");
    assert_eq!(open.heard().await, None);
    assert!(then.elapsed() <= Duration::from_secs(2));
}

/// RS-10: a stream without a needed scope ends too when its caller loses any scope.
#[tokio::test]
async fn a_stream_is_for_what_its_caller_could_do() {
    let mut open = opened_needing("").await;
    let then = Instant::now();
    open.app.stage.entitle("other");
    assert_eq!(open.heard().await, None);
    assert!(then.elapsed() <= Duration::from_secs(2));
}

/// RS-10: gaining a scope does not end a stream.
#[tokio::test]
async fn a_stream_goes_on_when_its_caller_may_do_more() {
    let mut open = opened_needing("").await;
    open.app.stage.entitle("docs.read other");
    open.tell.send("data: 1\n\n").await.unwrap();
    assert_eq!(open.heard().await.as_deref(), Some("data: 1\n\n"));
}

/// OPS-07: a stopping server does not wait for streams, and new ones end at once.
#[tokio::test]
async fn a_stopping_server_ends_streams() {
    let mut open = opened().await;
    open.app.resource.end_streams();
    assert_eq!(open.heard().await, None);
}

/// MCP-16: over a real connection, events arrive at once, and closing releases the stream.
#[tokio::test]
async fn closing_the_connection_ends_a_stream() {
    let app = App::start();
    let bearer = bearer(&token("docs.read"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, app.router.clone()).into_future());
    let ask = async |method: &str, headers: &str, body: &str, until: &str| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: {bearer}\r\n\
             accept: application/json, text/event-stream\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.contains(until) {
            let mut some = [0; 1024];
            let read = client.read(&mut some).await.unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&some[..read]).unwrap());
        }
        (client, answer)
    };
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#;
    let (_, answer) =
        ask("POST", "content-type: application/json\r\n", initialize, "\"protocolVersion\"").await;
    let id = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).unwrap();
    let (client, _) = ask("GET", &format!("mcp-session-id: {id}\r\n"), "", ":\n\n").await;
    assert_eq!(app.resource.streams().lock().values().sum::<usize>(), 1);
    drop(client);
    let freed = async {
        while !app.resource.streams().lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.unwrap();
    server.abort();
}
