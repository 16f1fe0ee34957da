//! A gateway that starts children and waits to be killed.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use children::child::start;
use children::program::{Program, Variable};
use children::{Executable, Ring};

/// Arguments: the mark that everything below can be found by, where temporary directories go, and how many children to start.
/// Prints a line for each that runs.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<String> = arguments.filter_map(|one| one.into_string().ok()).collect();
    let [mark, scratch, count] = &arguments[..] else { return ExitCode::FAILURE };
    let count = count.parse().unwrap_or(0);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut running = Vec::new();
        for _ in 0..count {
            running.push(
                start(&Executable::default(), runaway(mark, scratch), &Ring::default())
                    .await
                    .expect("started"),
            );
            println!("started");
            std::io::stdout().flush().expect("flushed");
        }
        std::future::pending::<()>().await;
        drop(running);
    });
    ExitCode::SUCCESS
}

/// A server whose grandchildren do what they can to stay: sessions of their own, parents that are gone, signals ignored.
fn runaway(mark: &str, scratch: &str) -> Program {
    let mut program = Program::new(mark, "/bin/sh");
    let daemon = "(trap '' TERM HUP INT; setsid sh -c '(setsid sleep 1000 &) ; sleep 1000' &)";
    program.args = vec!["-c".to_owned(), format!("{daemon}; {daemon}; trap '' TERM; sleep 1000; :")];
    program.env.insert("MARK".to_owned(), Variable::from(mark));
    program.scratch = scratch.into();
    program
}
