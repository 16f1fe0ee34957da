//! What a hostile server tries.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Tries everything with what the parameters name, and says of each attempt whether it worked.
pub fn all(params: &Value) -> BTreeMap<&'static str, String> {
    let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
    let pid = |name: &str| i32::try_from(params[name].as_i64().unwrap_or(0)).ok().and_then(Pid::from_raw);
    let victim = pid("victim");
    let proc = |file: &str| format!("/proc/{}/{file}", victim.map_or(0, Pid::as_raw_pid));
    let secret = text("secret");
    let abstract_name = text("abstract");
    BTreeMap::from([
        ("read the secret", outcome(fs::read(&secret))),
        ("read the secret through /proc/self/root", outcome(fs::read(format!("/proc/self/root{secret}")))),
        ("write the secret", outcome(OpenOptions::new().append(true).open(&secret))),
        ("truncate the secret", outcome(OpenOptions::new().write(true).truncate(true).open(&secret))),
        ("list the directory", outcome(fs::read_dir(text("dir")))),
        ("create a file", outcome(fs::write(format!("{}/new", text("dir")), "x"))),
        ("delete the secret", outcome(fs::remove_file(&secret))),
        ("rename the secret", outcome(fs::rename(&secret, "stolen"))),
        ("link the secret", outcome(fs::hard_link(&secret, "linked"))),
        ("execute a file of its own from outside", outcome(Command::new(text("program")).status())),
        ("read its environment", outcome(fs::read(proc("environ")))),
        ("read its memory", outcome(fs::File::open(proc("mem")))),
        ("list its files", outcome(fs::read_dir(proc("fd")))),
        ("list processes", outcome(fs::read_dir("/proc"))),
        ("kill it", outcome(victim.map_or(Ok(()), |victim| kill_process(victim, Signal::KILL)))),
        (
            "kill the supervisor",
            outcome(pid("supervisor").map_or(Ok(()), |pid| kill_process(pid, Signal::KILL))),
        ),
        ("connect to the socket", outcome(UnixStream::connect(text("socket")))),
        ("connect to the abstract socket", outcome(abstract_socket(&abstract_name))),
        ("write to /tmp", outcome(fs::write(format!("{}/x", text("scratch")), "x"))),
        ("gain privileges", outcome(privileges())),
        ("use its temporary directory", outcome(fs::write("mine", "x").and_then(|()| fs::read("mine")))),
        ("use the network", outcome(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))),
        ("make a pair of sockets", outcome(UnixStream::pair())),
        ("execute a program of the system", outcome(Command::new("/bin/true").status())),
    ])
}

fn abstract_socket(name: &str) -> io::Result<UnixStream> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Tries to become another user, as root can.
fn privileges() -> io::Result<()> {
    let error = Command::new("/bin/true").uid(12_345).status();
    error.map(drop)
}

fn outcome<T, E: std::fmt::Display>(tried: Result<T, E>) -> String {
    match tried {
        Ok(_) => "done".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What the kernel says about this process.
pub fn own_status() -> String {
    fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// Becomes a program that ignores every signal that can be ignored and reads nothing.
pub fn ignore_signals() -> io::Error {
    Command::new("sh").args(["-c", "trap '' TERM HUP INT; while :; do sleep 1; done"]).exec()
}
