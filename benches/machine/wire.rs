//! A cheap client: one HTTP/1.1 connection, one request at a time.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
    /// The offset of the last answer's body.
    body: usize,
}

impl Connection {
    pub async fn open(origin: &str) -> Self {
        let host = host(origin).replace("localhost", "127.0.0.1");
        let stream = TcpStream::connect(host).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket takes its options");
        Self { stream, read: Vec::with_capacity(16 * 1024), body: 0 }
    }

    /// Sends a request without waiting for the answer.
    pub async fn send(&mut self, request: &[u8]) {
        self.stream.write_all(request).await.expect("the server reads");
    }

    /// Sends a request and returns the body of the answer, which must be a success.
    pub async fn ask(&mut self, request: &[u8]) -> &[u8] {
        self.send(request).await;
        self.read.clear();
        loop {
            let count = self.stream.read_buf(&mut self.read).await.expect("the server answers");
            assert!(count > 0, "the server closed the connection");
            let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.read[..end]).expect("heads are ASCII");
            assert!(head.starts_with("HTTP/1.1 20"), "{}", String::from_utf8_lossy(&self.read));
            let length: usize = header(head, "content-length")
                .and_then(|length| length.parse().ok())
                .expect("the answer says how long it is");
            self.body = end + 4;
            if self.read.len() >= self.body + length {
                return &self.read[self.body..];
            }
        }
    }

    /// A header of the last answer.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = std::str::from_utf8(&self.read[..self.body]).ok()?;
        header(head, name).map(str::to_owned)
    }
}

fn header<'h>(head: &'h str, wanted: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim())
    })
}

/// The host of an origin, with its port.
pub fn host(origin: &str) -> &str {
    origin.trim_start_matches("http://")
}

/// `GET` of a document.
pub fn get(origin: &str, path: &str) -> Vec<u8> {
    let host = host(origin);
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n\r\n").into_bytes()
}

/// `POST` of this body, with these further header lines, each with its line end.
pub fn post(origin: &str, path: &str, media_type: &str, lines: &str, body: &str) -> Vec<u8> {
    let (host, length) = (host(origin), body.len());
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n{lines}\r\n{body}"
    )
    .into_bytes()
}
