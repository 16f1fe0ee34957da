//! The processes of a benchmark: servers on one core, the client on the other.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The core of the servers, and the core of the client.
pub const SERVERS: u8 = 0;
pub const ASKERS: u8 = 1;

/// A command that is pinned to a core.
pub fn on_core(core: u8, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Pins this process, with all its threads, to the core of the client.
pub fn stay_with_the_askers() {
    let (core, here) = (ASKERS.to_string(), std::process::id().to_string());
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", &core, &here]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset keeps a process on one core");
}

/// A runtime for one core.
pub fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime starts")
}

/// Another process of this program, in another role. Its first line tells where it listens. Killed when dropped.
pub struct Role {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Its first line.
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

    /// Has it work for another round, and returns the line that it prints.
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

/// Prints a line for the process that started this role.
pub fn say(line: impl std::fmt::Display) {
    println!("{line}");
    std::io::stdout().flush().expect("somebody reads");
}

/// The processor time of all threads of a process.
pub fn processor_time(process: u32) -> Duration {
    let threads =
        std::fs::read_dir(format!("/proc/{process}/task")).expect("Linux lists the threads of a process");
    let spent = threads.flatten().filter_map(|thread| {
        let schedstat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}
