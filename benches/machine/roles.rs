//! The processes of a benchmark: the servers on one core, whoever asks on the other.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The servers' core, and the one of whoever asks.
pub const SERVERS: u8 = 0;
pub const ASKERS: u8 = 1;

/// A command that stays on a core.
pub fn on_core(core: u8, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Keeps this process on the core of whoever asks, with all its threads.
pub fn stay_with_the_askers() {
    let (core, here) = (ASKERS.to_string(), std::process::id().to_string());
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", &core, &here]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset keeps a process on one core");
}

/// What a runtime on one core is like.
pub fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime starts")
}

/// This program again, as something else: it says in a line where it is, or whatever is to be said. Killed when dropped.
pub struct Role {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// The first line that it said.
    pub origin: String,
}

impl Role {
    pub fn start(core: u8, arguments: &[&str]) -> Self {
        let mut command = on_core(core, std::env::current_exe().expect("a program has a path"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("taskset starts");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut role = Self {
            child,
            stdin: stdin.expect("it is piped"),
            stdout: BufReader::new(stdout.expect("it is piped")),
            origin: String::new(),
        };
        role.origin = role.hear();
        role
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has it do what it does once more; what it says of it.
    pub fn again(&mut self) -> String {
        self.stdin.write_all(b"\n").expect("it reads");
        self.hear()
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it says something");
        line.trim().to_owned()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to whoever started this role.
pub fn say(line: impl std::fmt::Display) {
    println!("{line}");
    std::io::stdout().flush().expect("somebody reads");
}

/// How long all threads of a process have been on a processor.
pub fn processor_time(process: u32) -> Duration {
    let threads =
        std::fs::read_dir(format!("/proc/{process}/task")).expect("Linux lists the threads of a process");
    let spent = threads.flatten().filter_map(|thread| {
        let schedstat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}
