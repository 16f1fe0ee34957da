//! The latency of calls that are sent at a fixed rate.

use std::time::{Duration, Instant};

use crate::Ratio;
use crate::bare_rmcp::{ECHO, HANG};
use crate::calls::{Endpoint, Revision};
use crate::machine;
use crate::machine::wire::Connection;

/// Time between two calls, calls in one round, and rounds.
const EVERY: Duration = Duration::from_millis(5);
const TURN: usize = 200;
const TURNS: usize = 10;
/// Connections for them.
const CONNECTIONS: usize = 16;
/// Calls that hang.
const HANGING: usize = 64;

/// The median latency through the gate, and of direct calls.
pub async fn open_loop(gate: &Endpoint, upstream: &str) -> Ratio {
    let passed = gate.call(Revision::Modern, None, &format!("up_{ECHO}"));
    let direct = Endpoint::bare(upstream).call(Revision::Modern, None, ECHO);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        for (origin, request, times) in
            [(upstream, &direct, &mut theirs), (gate.origin.as_str(), &passed, &mut ours)]
        {
            let took = paced(origin, request).await;
            if turn > 0 {
                times.extend(took);
            }
        }
    }
    let [ours, theirs] = [ours, theirs].map(machine::median::<f64>);
    println!("200 calls a second: median {ours:.0} µs through the gate, {theirs:.0} µs direct");
    Ratio::new(
        "gate_http_p50_over_direct",
        ours / theirs,
        "the median time of a call of a server through the gate, and of a direct one, 200 calls a second; the aim is 2.5 or less",
    )
}

/// The latency of calls of one source, and of lists, while another source hangs and while none does.
pub async fn isolation(gate: &Endpoint) -> Vec<Ratio> {
    let call = gate.call(Revision::Modern, None, &format!("up_{ECHO}"));
    let list = gate.list(Revision::Modern);
    let hang = gate.call(Revision::Modern, None, &format!("slow_{HANG}"));
    let kinds = [("call", &call, 1.3), ("list", &list, 1.2)];
    let mut times = [const { [Vec::new(), Vec::new()] }; 2];
    for turn in 0..=TURNS {
        for hanging in [false, true] {
            let mut hung = Vec::new();
            for _ in 0..if hanging { HANGING } else { 0 } {
                let mut connection = Connection::open(&gate.origin).await;
                connection.send(&hang).await;
                hung.push(connection);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            for ((_, request, _), times) in kinds.iter().zip(&mut times) {
                let took = paced(&gate.origin, request).await;
                if turn > 0 {
                    times[usize::from(hanging)].extend(took);
                }
            }
        }
    }
    let mut ratios = Vec::new();
    for ((what, _, aim), [mut alone, mut beside]) in kinds.into_iter().zip(times) {
        let [alone, beside] = [&mut alone, &mut beside].map(|times| machine::percentile(times, 99));
        println!("a {what}: p99 {alone:.0} µs, {beside:.0} µs while {HANGING} calls of another source hang");
        ratios.push(Ratio::new(
            format!("{what}_p99_beside_a_hanging_source_over_alone"),
            beside / alone,
            format!(
                "p99 of a {what} while another source hangs, and while none does; the aim is {aim} or less"
            ),
        ));
    }
    ratios
}

/// Sends requests at a fixed rate, without waiting for earlier answers. The latency of each, in microseconds.
pub async fn paced(origin: &str, request: &[u8]) -> Vec<f64> {
    let (idle, mut ready) = tokio::sync::mpsc::channel(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(origin).await;
        connection.ask(request).await;
        idle.send(connection).await.expect("there is room");
    }
    let mut pace = tokio::time::interval(EVERY);
    let mut asked = Vec::new();
    for _ in 0..TURN {
        pace.tick().await;
        let mut connection: Connection = ready.recv().await.expect("the sender is here");
        let (idle, request) = (idle.clone(), request.to_vec());
        asked.push(tokio::spawn(async move {
            let begun = Instant::now();
            connection.ask(&request).await;
            let took = begun.elapsed();
            let _ = idle.send(connection).await;
            took.as_secs_f64() * 1e6
        }));
    }
    let mut times = Vec::new();
    for one in asked {
        times.push(one.await.expect("who asks does not panic"));
    }
    times
}
