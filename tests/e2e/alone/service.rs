//! An HTTP service that a test controls: it keeps what arrives, and answers or does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub method: String,
    pub path: String,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Arrived {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What the service does.
pub enum Reply {
    Json(u16, Value),
    /// A status with one more header.
    With(u16, &'static str),
    /// It closes the connection after it has read the request.
    Dies,
    /// It says nothing, and keeps the connection.
    Never,
}

pub struct Service {
    pub url: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    connections: Arc<Mutex<usize>>,
}

impl Service {
    pub fn start(reply: impl Fn(&Arrived, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (arrived, connections): (Arc<Mutex<Vec<Arrived>>>, Arc<Mutex<usize>>) = Default::default();
        let (kept, counted, reply) = (Arc::clone(&arrived), Arc::clone(&connections), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                *counted.lock().unwrap() += 1;
                let (kept, reply) = (Arc::clone(&kept), Arc::clone(&reply));
                std::thread::spawn(move || serve(&stream, &kept, &*reply));
            }
        });
        Self { url, arrived, connections }
    }

    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

fn serve(stream: &TcpStream, kept: &Mutex<Vec<Arrived>>, reply: &dyn Fn(&Arrived, usize) -> Reply) {
    let mut reader = BufReader::new(stream);
    while let Some(arrived) = read(&mut reader) {
        let at = {
            let mut kept = kept.lock().unwrap();
            kept.push(arrived.clone());
            kept.len()
        };
        let (status, header, body) = match reply(&arrived, at) {
            Reply::Json(status, body) => (status, "x-nothing: 1", body.to_string()),
            Reply::With(status, header) => (status, header, String::new()),
            Reply::Dies => return,
            Reply::Never => loop {
                std::thread::park();
            },
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{header}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Arrived> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut first = line.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut arrived = Arrived { method, path, headers, body: String::new() };
    let length = arrived.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    arrived.body = String::from_utf8(body).unwrap();
    Some(arrived)
}
