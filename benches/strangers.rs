//! The cost of the worst request that a stranger can send: server CPU time per request at each endpoint that
//! needs no token, compared with a bare axum handler that reads the same bytes.
//!
//! Both servers are called over one connection each, by a thread whose CPU time is not counted; all other
//! threads of the process are. Limits are off, so that every request gets as far as it can, and each kind of
//! refusal has used up its audit records before the measurement. Rate-limited requests are measured last.
//!
//! Then a flood from one address is measured by its effect on another user's sign-in: `strangers/victim.rs`.

#[allow(dead_code)]
#[path = "../tests/e2e/assertion.rs"]
mod assertion;
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
#[path = "strangers/victim.rs"]
mod victim;
#[path = "../tests/e2e/worst.rs"]
mod worst;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use axum::Router;
use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use assertion::ClientKey;
use harness::TestApp;
use worst::Worst;

/// The number of requests before the measurement, and during it.
const WARM: usize = 130;
const TIMES: usize = 60;
/// The name of the client thread.
const ASKING: &str = "asking";

#[tokio::main]
async fn main() {
    if !machine::ready("strangers") {
        return;
    }
    // `cargo bench --bench strangers -- victim` measures only that.
    if !std::env::args().any(|argument| argument == "victim") {
        costs().await;
    }
    victim::measured().await;
    machine::load_after();
}

/// Measures the worst request of each endpoint.
async fn costs() {
    let app = TestApp::start_configured("device = true\n[registration]\nmanagement = true").await;
    let client = app.client().await;
    let mut requests = worst::requests(&app.origin, &client.id);
    requests.extend(assertions(&app).await);
    let bare = bare().await;
    let ours = app.origin.clone();
    let mut rows = asking(move || measured(&requests, &ours, &bare)).await;

    let limited =
        TestApp::start_configured("[rate]\ntoken_address = 1\nauthorize = 1\npasskey_address = 1").await;
    let client = limited.client().await;
    let kept = ["POST /token", "POST /introspect", "POST /register", "GET /authorize", "POST /login/finish"];
    let requests: Vec<Worst> = worst::requests(&limited.origin, &client.id)
        .into_iter()
        .filter(|worst| kept.contains(&worst.endpoint.as_str()))
        .map(|worst| Worst { endpoint: format!("{}, one too many", worst.endpoint), ..worst })
        .collect();
    let (bare, ours) = (crate::bare().await, limited.origin.clone());
    rows.extend(asking(move || measured(&requests, &ours, &bare)).await);

    println!(
        "{:<52} {:<24} {:>6} {:>10} {:>10} {:>7}",
        "endpoint", "with", "status", "µs", "bare µs", "ratio"
    );
    let mut worst: f64 = 0.0;
    for (endpoint, Row { how, status, ours, bare }) in &rows {
        println!("{endpoint:<52} {how:<24} {status:>6} {ours:>10.1} {bare:>10.1} {:>7.1}", ours / bare);
        worst = worst.max(ours / bare);
    }
    machine::ratio(
        "compared: processor time of the worst request of 16 KB that a stranger can send, and of a bare axum handler that reads the same bytes; the aim is 40 or less",
        "worst_stranger_over_bare",
        worst,
    );
}

/// The worst request of one endpoint.
struct Row {
    how: &'static str,
    status: u16,
    ours: f64,
    bare: f64,
}

/// For each endpoint, the request with the largest ratio to the bare handler.
fn measured(requests: &[Worst], ours: &str, bare: &str) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for worst in requests {
        let (status, ours) = cost(worst, ours);
        let (_, bare) = cost(worst, bare);
        let row = Row { how: worst.how, status, ours, bare };
        let ratio = |row: &Row| row.ours / row.bare;
        if rows.get(&worst.endpoint).is_none_or(|known| ratio(known) < ratio(&row)) {
            rows.insert(worst.endpoint.clone(), row);
        }
    }
    rows
}

/// The status, and the microseconds of CPU time per request of all threads but the client's.
fn cost(worst: &Worst, origin: &str) -> (u16, f64) {
    let host = origin.trim_start_matches("http://");
    let bytes = worst.bytes(host);
    let mut connection = Connection { host, stream: None };
    let mut status = 0;
    for _ in 0..WARM {
        status = connection.ask(&bytes, worst.method);
    }
    let before = spent();
    for _ in 0..TIMES {
        connection.ask(&bytes, worst.method);
    }
    (status, (spent() - before) / 1000.0 / machine::number(TIMES))
}

/// The CPU time of all threads but the client's, in nanoseconds.
fn spent() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists the threads of a process");
    let mut sum = 0.0;
    for task in tasks.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim() != ASKING {
            let spent = read("schedstat");
            sum += spent.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    sum
}

async fn asking<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
    let (answer, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name(ASKING.to_owned());
    thread.spawn(move || drop(answer.send(ask()))).expect("a thread starts");
    receiver.await.expect("who asks does not panic")
}

/// HTTP/1.1 over one connection at a time, one request at a time.
struct Connection<'h> {
    host: &'h str,
    stream: Option<TcpStream>,
}

impl Connection<'_> {
    /// The status of the response.
    fn ask(&mut self, bytes: &str, method: &str) -> u16 {
        let mut stream = self.stream.take().unwrap_or_else(|| {
            let stream =
                TcpStream::connect(self.host.replace("localhost", "127.0.0.1")).expect("somebody listens");
            stream.set_nodelay(true).expect("a socket takes its options");
            stream
        });
        stream.write_all(bytes.as_bytes()).expect("the server reads");
        let (mut read, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        loop {
            let count = stream.read(&mut buffer).expect("the server answers");
            read.extend_from_slice(&buffer[..count]);
            let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else {
                assert!(count > 0, "the server closed the connection");
                continue;
            };
            let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
            let status: u16 = head[9..12].parse().expect("an answer begins with its status");
            let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
            let length =
                header("content-length: ").map_or(0, |length| length.trim().parse().expect("a length"));
            let bodiless = method == "HEAD" || status == 204 || status == 304;
            if count == 0 || bodiless || read.len() >= end + 4 + length {
                self.stream = (header("connection: ") != Some("close")).then_some(stream);
                return status;
            }
        }
    }
}

/// The yardstick: reads the request and only answers.
async fn bare() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
    let app = Router::new().fallback(|_: Bytes| std::future::ready("ok"));
    tokio::spawn(async move {
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |s| drop(s.set_nodelay(true))), app).await
    });
    origin
}

/// Assertions from a self-registered client with the most keys allowed, none of them named, with an invalid
/// signature: as many keys are tried as ever are. Also returns the registration.
async fn assertions(app: &TestApp) -> Vec<Worst> {
    let mut all = Vec::new();
    for (how, alg) in
        [("ten keys, ES256", "ES256"), ("ten keys, EdDSA", "EdDSA"), ("ten keys, PS256", "PS256")]
    {
        let keys: Vec<Value> = (0..10)
            .map(|_| {
                let mut key = ClientKey::generate(alg).jwks()["keys"][0].take();
                key.as_object_mut().expect("a key is an object").remove("kid");
                key
            })
            .collect();
        let metadata = json!({
            "redirect_uris": ["http://localhost/callback"],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": { "keys": keys },
            "software_id": how,
        });
        let registered: Value = app.register(&metadata).await.json().await.expect("it is registered");
        let id = registered["client_id"].as_str().expect("a client has an id");
        let signed = ClientKey::generate(alg).sign(&json!({ "alg": alg }), &assertion::claims(app, id));
        let [(kind, kind_value), (name, text)] = assertion::form(signed);
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair(kind, &kind_value).append_pair(name, &text).append_pair("token", "rt_x");
        let body = form.append_pair("grant_type", "refresh_token").finish();
        for path in ["/token", "/revoke", "/introspect", "/device_authorization"] {
            all.push(Worst {
                endpoint: format!("POST {path}, an assertion"),
                how,
                method: "POST",
                target: path.to_owned(),
                headers: "Content-Type: application/x-www-form-urlencoded\r\n".to_owned(),
                body: body.clone(),
            });
        }
        all.push(Worst {
            endpoint: "POST /register, with keys".to_owned(),
            how,
            method: "POST",
            target: "/register".to_owned(),
            headers: "Content-Type: application/json\r\n".to_owned(),
            body: metadata.to_string(),
        });
    }
    all
}
