//! Children to talk with.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use children::child::{NotStarted, Process, start};
use children::conversation::{Answer, Conversation, NoAnswer, Skips};
use children::program::{Program, Variable};
use children::{Executable, Ring, Unlimited};
use serde_json::Value;
use tempfile::TempDir;

/// A test waits at most this long for anything.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub fn own_program() -> &'static str {
    env!("CARGO_BIN_EXE_children-testing")
}

/// One child, and its directory for temporary files.
pub struct Server {
    pub process: Process,
    pub conversation: Conversation,
    pub errors: Ring,
    pub scratch: TempDir,
}

/// A server that does what its requests say, with this mark in its environment.
pub fn program(scratch: &Path) -> Program {
    let mut program = Program::new("testing", own_program());
    program.args = vec!["server".to_owned()];
    program.scratch = scratch.to_owned();
    let mark = scratch.display().to_string();
    program.env.insert("MARK".to_owned(), Variable::from(mark.as_str()));
    program
}

impl Server {
    pub async fn start() -> Self {
        Self::of(|_| {}).await.expect("started")
    }

    /// With changes to the program.
    pub async fn of(change: impl FnOnce(&mut Program)) -> Result<Self, NotStarted> {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut program = program(scratch.path());
        change(&mut program);
        let errors = Ring::default();
        let started = start(&Executable::from(PathBuf::from(own_program())), program, &errors).await?;
        let conversation =
            Conversation::begin(started.stdin, started.stdout, Unlimited, &Skips::default(), |_, _| {});
        Ok(Self { process: started.process, conversation, errors, scratch })
    }

    pub async fn ask(&self, method: &str, params: &Value) -> Result<Value, NoAnswer> {
        let mut asked = self.conversation.ask(method, Some(&params.to_string()))?;
        match tokio::time::timeout(PATIENCE, asked.answered()).await.expect("an answer in time")? {
            Answer::Result(result) => Ok(serde_json::from_str(result.get()).expect("JSON")),
            Answer::Error(error) => panic!("{error}"),
        }
    }

    /// How many processes have this server's mark in their environment.
    pub fn processes(&self) -> usize {
        marked(&self.scratch.path().display().to_string()).len()
    }
}

/// The processes that have this mark in their environment or arguments.
pub fn marked(mark: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).expect("a process id");
    let all = std::fs::read_dir("/proc").expect("proc is mounted");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own && ["environ", "cmdline"].iter().any(|file| has(*pid, file, mark)))
        .collect()
}

fn has(pid: i32, file: &str, mark: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/{file}"))
        .is_ok_and(|text| text.windows(mark.len()).any(|part| part == mark.as_bytes()))
}

/// Waits until this is so, and says how long that took.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}
