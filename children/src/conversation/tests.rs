use std::sync::mpsc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};

use super::*;
use crate::room::Unlimited;

/// The child's ends of its pipes, and what was heard.
struct Peer {
    reads: tokio::io::Lines<BufReader<DuplexStream>>,
    writes: DuplexStream,
    heard: mpsc::Receiver<ChildMessage>,
}

impl Peer {
    async fn reads(&mut self) -> String {
        self.reads.next_line().await.expect("a pipe").expect("a line")
    }

    async fn says(&mut self, text: &str) {
        self.writes.write_all(text.as_bytes()).await.expect("a pipe");
    }
}

fn begin(room: usize) -> (Conversation, Peer) {
    let (stdin, reads) = tokio::io::duplex(room);
    let (writes, stdout) = tokio::io::duplex(64);
    let (hear, heard) = mpsc::channel();
    let conversation = Conversation::begin(stdin, stdout, Unlimited, &Skips::default(), move |_, said| {
        let _ = hear.send(said);
    });
    (conversation, Peer { reads: BufReader::new(reads).lines(), writes, heard })
}

fn result(answer: Result<Answer, NoAnswer>) -> String {
    match answer {
        Ok(Answer::Result(result)) => result.get().to_owned(),
        other => format!("{other:?}"),
    }
}

/// SRC-05: what is asked and answered passes as it was written.
#[tokio::test]
async fn an_answer_reaches_its_question_as_it_was_written() {
    let (conversation, mut peer) = begin(1024);
    let mut first = conversation.ask("tools/call", Some(r#"{"b":1.0,"a":2}"#)).expect("queued");
    let mut second = conversation.ask("ping", None).expect("queued");
    assert_eq!(
        peer.reads().await,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"b":1.0,"a":2}}"#
    );
    assert_eq!(peer.reads().await, r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#);
    peer.says("{\"id\":2,\"result\":{}}\n{\"result\":{\"z\":1e2, \"z2\":\"\\u0041\"},\"id\":1}\n").await;
    assert_eq!(result(first.answered().await), r#"{"z":1e2, "z2":"\u0041"}"#);
    assert_eq!(result(second.answered().await), "{}");
}

/// SRC-11: banners are skipped and counted, and the messages between them arrive.
#[tokio::test]
async fn what_is_not_json_is_skipped_and_counted() {
    let (conversation, mut peer) = begin(1024);
    let mut asked = conversation.ask("ping", None).expect("queued");
    peer.says("Server running on stdio\n\n[1]\n{\"id\":1,\"id\":1,\"result\":{}}\n{}\n").await;
    peer.says("{\"method\":\"notifications/x\",\"params\":{\"n\":1}}\n{\"id\":1,\"result\":{}}\n").await;
    assert_eq!(result(asked.answered().await), "{}");
    assert_eq!(conversation.skipped().not_messages, 4);
    let said = peer.heard.recv().expect("heard");
    assert_eq!((said.method.as_str(), said.id.is_none()), ("notifications/x", true));
}

/// SRC-15: the second answer to a request, and one to a request that nobody made, reach nobody.
#[tokio::test]
async fn a_second_answer_and_a_foreign_id_reach_nobody() {
    let (conversation, mut peer) = begin(1024);
    let mut first = conversation.ask("ping", None).expect("queued");
    peer.says("{\"id\":99,\"result\":{}}\n{\"id\":\"1\",\"result\":{}}\n{\"id\":2,\"result\":{}}\n").await;
    peer.says("{\"id\":1,\"result\":{}}\n{\"id\":1,\"result\":{\"again\":true}}\n").await;
    assert_eq!(result(first.answered().await), "{}");
    let mut second = conversation.ask("ping", None).expect("queued");
    peer.says("{\"id\":2,\"result\":{\"mine\":true}}\n").await;
    assert_eq!(result(second.answered().await), r#"{"mine":true}"#);
    assert_eq!(conversation.skipped().strays, 4);
}

/// SRC-11: an answer that is too long fails its own call; the others go on.
#[tokio::test]
async fn an_answer_that_is_too_long_fails_its_call_alone() {
    let (conversation, mut peer) = begin(1024);
    let mut long = conversation.ask("tools/call", None).expect("queued");
    let mut other = conversation.ask("ping", None).expect("queued");
    let writing = tokio::spawn(async move {
        peer.says(&format!("{{\"result\":\"{}\",\"id\":1}}\n", "x".repeat(LONGEST))).await;
        peer.says("{\"id\":2,\"result\":{}}\n").await;
        peer
    });
    assert_eq!(long.answered().await.expect_err("too long"), NoAnswer::TooLong);
    assert_eq!(result(other.answered().await), "{}");
    assert_eq!(conversation.skipped().too_long, 1);
    drop(writing);
}

/// SRC-11: a child that reads nothing does not keep its answers from being read.
#[tokio::test]
async fn a_full_pipe_to_the_child_does_not_stop_reading() {
    let (conversation, mut peer) = begin(8);
    let params = format!("\"{}\"", "x".repeat(100_000));
    let mut asked = conversation.ask("tools/call", Some(&params)).expect("queued");
    // It answers before it has read the request: possible for a child, and impossible if writing held up reading.
    peer.says("{\"id\":1,\"result\":{}}\n").await;
    assert_eq!(result(asked.answered().await), "{}");
}

/// SRC-08: when a child ends, a request that was not written was not sent; one that was may have been executed.
#[tokio::test]
async fn the_end_of_a_child_tells_sent_from_not_sent() {
    let (conversation, mut peer) = begin(64);
    let mut sent = conversation.ask("first", None).expect("queued");
    peer.reads().await;
    let params = format!("\"{}\"", "x".repeat(1000));
    let mut in_part = conversation.ask("second", Some(&params)).expect("queued");
    let mut waiting = conversation.ask("third", None).expect("queued");
    // The second is longer than the pipe, so it stays in part unwritten.
    tokio::task::yield_now().await;
    drop(peer);
    assert_eq!(sent.answered().await.expect_err("ended"), NoAnswer::Ended);
    assert_eq!(in_part.answered().await.expect_err("ended"), NoAnswer::NotAsked);
    assert_eq!(waiting.answered().await.expect_err("ended"), NoAnswer::NotAsked);
    conversation.over().await;
    assert_eq!(conversation.ask("fourth", None).err(), Some(NoAnswer::NotAsked));
}

/// SRC-09: a request that waits is taken back; a cancellation of one that was sent goes ahead of the queue.
#[tokio::test]
async fn a_cancellation_goes_ahead_of_the_queue() {
    let (conversation, mut peer) = begin(16);
    let sent = conversation.ask("first", None).expect("queued");
    let queued = conversation.ask("second", None).expect("queued");
    let _other = conversation.ask("third", None).expect("queued");
    tokio::task::yield_now().await;
    assert!(queued.take_back(), "it waits behind the first");
    assert!(!sent.take_back(), "it is being written");
    conversation.notify("notifications/cancelled", Some(r#"{"requestId":1}"#)).expect("queued");
    assert!(peer.reads().await.contains("first"));
    assert!(peer.reads().await.contains("cancelled"));
    assert!(peer.reads().await.contains("third"));
}

#[tokio::test]
async fn a_request_of_the_child_is_heard_and_answered_under_its_id() {
    let (conversation, mut peer) = begin(1024);
    peer.says("{\"id\":\"a-7\",\"method\":\"roots/list\"}\n").await;
    let said =
        tokio::task::spawn_blocking(move || (peer.heard.recv().expect("heard"), peer)).await.expect("joined");
    let (said, mut peer) = said;
    conversation.answer(&said.id.expect("an id"), r#""result":{"roots":[]}"#).expect("queued");
    assert_eq!(peer.reads().await, r#"{"jsonrpc":"2.0","id":"a-7","result":{"roots":[]}}"#);
}
