//! Facts about the machine that results depend on, and arithmetic shared by all benchmarks.

#![allow(dead_code)] // each benchmark is its own program and uses its own part of this

pub mod roles;
pub mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prints facts about the machine. False if this is not a `cargo bench` run (cargo passes `--bench`), so that
/// `cargo test --all-targets` measures nothing.
pub fn ready(name: &str) -> bool {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("{name}: measures only when run as `cargo bench --bench {name}`");
        return false;
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    println!("machine: {cores} cores ({cpu}), Linux {}", first_line("/proc/sys/kernel/osrelease"));
    println!("load average before: {}", first_line("/proc/loadavg"));
    true
}

/// Prints the load after the measurement, which other programs may have increased.
pub fn load_after() {
    println!("load average after: {}", first_line("/proc/loadavg"));
}

/// Prints what a ratio compares, and the ratio.
pub fn ratio(compared: &str, name: &str, value: f64) {
    println!("{compared}\nratio {name} {value:.2}");
}

/// The directory for files: `PORTCULLIS_BENCH_DIR`, or cargo's own beside the build.
#[allow(clippy::disallowed_methods, reason = "set by hand, for benches alone")]
pub fn directory() -> PathBuf {
    std::env::var_os("PORTCULLIS_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from)
}

/// Type and device of the file system that holds a directory.
pub fn file_system(directory: &Path) -> (String, String) {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
            directory.starts_with(point).then(|| (point.len(), kind.to_owned(), device.to_owned()))
        })
        // If two mounts have the same mount point, the later one is visible, and `max_by_key` returns the last
        // maximum.
        .max_by_key(|(length, ..)| *length)
        .map_or_else(|| ("unknown".to_owned(), "unknown".to_owned()), |(_, kind, device)| (kind, device))
}

/// Sends each request `times` times, one after the other, over its own connection. Returns the processor time of a
/// process per request, in microseconds.
pub async fn cost(process: u32, origin: &str, requests: &[Vec<u8>], times: usize) -> f64 {
    let mut connections = Vec::new();
    for request in requests {
        let mut connection = wire::Connection::open(origin).await;
        connection.ask(request).await;
        connections.push((connection, request.clone()));
    }
    let before = roles::processor_time(process);
    let asking = connections.into_iter().map(|(mut connection, request)| {
        tokio::spawn(async move {
            for _ in 0..times {
                connection.ask(&request).await;
            }
        })
    });
    for one in asking.collect::<Vec<_>>() {
        one.await.expect("who asks does not panic");
    }
    let spent = roles::processor_time(process).saturating_sub(before);
    spent.as_secs_f64() * 1e6 / number(requests.len() * times)
}

/// The median.
pub fn median<T: PartialOrd + Copy>(values: impl IntoIterator<Item = T>) -> T {
    percentile(&mut values.into_iter().collect::<Vec<_>>(), 50)
}

/// The value that this percentage of the values does not exceed.
pub fn percentile<T: PartialOrd + Copy>(values: &mut [T], percent: usize) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("measurements are numbers"));
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// Events per second.
pub fn per_second(count: usize, time: Duration) -> f64 {
    number(count) / time.as_secs_f64()
}

/// A count as a float.
pub fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("fewer than four billion of anything are counted here"))
}

fn first_line(file: &str) -> String {
    std::fs::read_to_string(file)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn line_of(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
