//! The throughput of introspection: questions per second about active tokens over HTTP, from 16 connections of
//! one resource server, compared with a bare axum handler that gets the same request and answers with the same
//! bytes.
//!
//! The server is complete, including the resource server's secret and the token's status. Both share the
//! machine's cores with the clients and take turns in each round, so only the ratio can be compared between
//! machines.

#[allow(dead_code)]
#[path = "../tests/e2e/certificates.rs"]
mod certificates;
#[allow(dead_code)]
#[path = "../tests/e2e/harness.rs"]
mod harness;
mod machine;
#[allow(dead_code)]
#[path = "../tests/e2e/process.rs"]
mod process;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use harness::{TestApp, Tokens};

/// The number of rounds, and the length of a turn.
const ROUNDS: usize = 7;
const TURN: Duration = Duration::from_secs(2);
/// The number of concurrent connections.
const CONNECTIONS: usize = 16;

#[tokio::main]
async fn main() {
    if !machine::ready("introspect") {
        return;
    }
    let app = TestApp::start().await;
    let server = app.console(&["rs", "add", "elsewhere", "--audience", &app.mcp_url()]);
    let text = |value: &serde_json::Value| value.as_str().expect("it is text").to_owned();
    let (id, secret) = (text(&server["resource_server"]["id"]), text(&server["client_secret"]));
    let credentials = BASE64.encode(format!("{id}:{secret}").as_bytes());

    let mut browser = app.admin().await;
    let client = app.client().await;
    let mut tokens = app.tokens(&mut browser, &client).await;
    let mut requests = Vec::new();
    for _ in 0..CONNECTIONS {
        tokens = Tokens::of(app.refresh(&client, &tokens.refresh).await).await;
        requests.push(request(&app.origin, &credentials, &tokens.access));
    }
    let mut one = Connection::open(&app.origin).await;
    let mut answer = String::new();
    for request in &requests {
        answer = one.ask(request).await;
        assert!(answer.contains("\"active\":true"), "{answer}");
    }
    let bare = bare(&answer).await;

    let (mut introspections, mut handled, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let bare = turn(&bare, &requests).await;
        let ours = turn(&app.origin, &requests).await;
        ratios.push(ours / bare);
        handled.push(bare);
        introspections.push(ours);
    }
    println!(
        "request: {} bytes, answer: {} bytes, {CONNECTIONS} connections",
        requests[0].len(),
        answer.len()
    );
    println!("a bare axum handler {:>8.0} a second", machine::median(handled));
    println!("introspections      {:>8.0} a second", machine::median(introspections));
    machine::load_after();
    machine::ratio(
        "compared: introspections a second over HTTP, and what a bare axum handler answers with the same bytes; the aim is 0.6 or more",
        "over_bare_axum",
        machine::median(ratios),
    );
}

/// The request about a token as sent on the wire, the same for both servers.
fn request(origin: &str, credentials: &str, token: &str) -> Arc<str> {
    let (host, form) = (origin.trim_start_matches("http://"), format!("token={token}"));
    format!(
        "POST /introspect HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {credentials}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
    .into()
}

/// Sends each request repeatedly on its own connection until the turn is over. Returns answers per second.
async fn turn(origin: &str, requests: &[Arc<str>]) -> f64 {
    let mut connections = Vec::new();
    for _ in requests {
        connections.push(Connection::open(origin).await);
    }
    let begun = Instant::now();
    let asking = requests.iter().map(Arc::clone).zip(connections).map(|(request, mut connection)| {
        tokio::spawn(async move {
            let mut answers = 0;
            while begun.elapsed() < TURN {
                connection.ask(&request).await;
                answers += 1;
            }
            answers
        })
    });
    let mut answers = 0;
    for asking in asking.collect::<Vec<_>>() {
        answers += asking.await.expect("nobody who asks panics");
    }
    machine::per_second(answers, begun.elapsed())
}

/// A cheap client: one HTTP/1.1 connection, one request at a time.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(origin: &str) -> Self {
        let address = origin.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket takes its options");
        Self { stream, buffer: Vec::with_capacity(8192) }
    }

    /// The body of the response, which must be a success.
    async fn ask(&mut self, request: &str) -> String {
        self.stream.write_all(request.as_bytes()).await.expect("the server reads");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            let Some((head, body)) =
                std::str::from_utf8(&self.buffer).ok().and_then(|t| t.split_once("\r\n\r\n"))
            else {
                continue;
            };
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.expect("the answer says how long it is") {
                return body.to_owned();
            }
        }
    }
}

/// The yardstick: a handler that reads the form and only answers.
async fn bare(answer: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
    let answer = Bytes::from(answer.to_owned());
    let handler = move |_: Bytes| std::future::ready(([(CONTENT_TYPE, "application/json")], answer.clone()));
    let app = Router::new().route("/introspect", post(handler));
    tokio::spawn(async move {
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |s| drop(s.set_nodelay(true))), app).await
    });
    origin
}
