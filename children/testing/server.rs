//! A server on standard input and output. The method of a request says how it misbehaves.

use std::fs;
use std::io::{BufRead, Write, stderr, stdin, stdout};
use std::process::{Command, ExitCode, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::attack;

#[derive(Deserialize)]
struct Request {
    id: Option<u64>,
    method: String,
    #[serde(default)]
    params: Value,
}

pub fn run() -> ExitCode {
    for line in stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(request) = serde_json::from_str::<Request>(&line) else { continue };
        let Some(id) = request.id else {
            say(&json!({"method": "heard", "params": line}));
            continue;
        };
        if let Some(code) = answer(id, &request) {
            return code;
        }
    }
    ExitCode::SUCCESS
}

fn answer(id: u64, request: &Request) -> Option<ExitCode> {
    match request.method.as_str() {
        "banner" => {
            println!("Server running on stdio\n=======\n{{not json");
            result(id, &json!("after the banner"));
        }
        "flood-stderr" => {
            let line = format!("{}\n", "x".repeat(1023));
            for _ in 0..10 << 10 {
                stderr().write_all(line.as_bytes()).expect("standard error is drained");
            }
            eprintln!("the end of the flood");
            result(id, &json!("after the flood"));
        }
        "long-line" => println!(r#"{{"result":"{}","jsonrpc":"2.0","id":{id}}}"#, "x".repeat(9 << 20)),
        "never" => {}
        "twice" => {
            result(id, &json!("first"));
            result(id, &json!("second"));
        }
        "foreign" => {
            result(id + 1000, &json!("foreign"));
            result(id, &json!("own"));
        }
        "exit" => return Some(ExitCode::from(7)),
        "environment" => {
            let all: serde_json::Map<_, _> =
                std::env::vars().map(|(name, value)| (name, json!(value))).collect();
            result(id, &Value::Object(all));
        }
        "where" => result(id, &json!(std::env::current_dir().expect("a directory"))),
        "fork-daemon" => {
            let _ = Command::new("setsid")
                .args(["-f", "sh", "-c", "trap '' TERM HUP; sleep 1000; :"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            result(id, &json!("forked"));
        }
        "ignore-the-end" => {
            result(id, &json!("deaf from now on"));
            let error = attack::ignore_signals();
            eprintln!("{error}");
        }
        "limits" => result(id, &json!(fs::read_to_string("/proc/self/limits").unwrap_or_default())),
        "status" => result(id, &json!(attack::own_status())),
        "attack" => result(id, &json!(attack::all(&request.params))),
        _ => result(id, &request.params),
    }
    None
}

fn result(id: u64, result: &Value) {
    say(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
}

fn say(message: &Value) {
    let mut out = stdout().lock();
    let written = writeln!(out, "{message}").and_then(|()| out.flush());
    if written.is_err() {
        std::process::exit(0);
    }
}
