use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that answers the n-th request of each connection with the n-th text, and then closes.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (accepted, read) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                let read = Arc::clone(&read);
                tokio::spawn(async move {
                    for answer in answers {
                        if !head(&mut tcp).await {
                            return;
                        }
                        read.fetch_add(1, Ordering::SeqCst);
                        tcp.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self { port, connections, requests }
    }

    fn counts(&self) -> (usize, usize) {
        (self.connections.load(Ordering::SeqCst), self.requests.load(Ordering::SeqCst))
    }

    fn client(&self) -> Outbound {
        Outbound::new(to("127.0.0.1", self.port, &[]))
    }
}

/// Reads one request without a body; false at the end of the connection.
async fn head(tcp: &mut TcpStream) -> bool {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"\r\n\r\n") {
        match tcp.read(&mut byte).await {
            Ok(1) => read.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn to(host: &str, port: u16, networks: &[&str]) -> Destination {
    Destination {
        host: host.to_owned(),
        port,
        authority: format!("{host}:{port}"),
        security: Security::Plain,
        networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn once() -> Outgoing {
    Outgoing { repeatable: false, ..Outgoing::get("/") }
}

async fn ask(client: &Outbound, outgoing: &Outgoing) -> Result<Bytes, Failure> {
    let answer = client.send(outgoing, soon()).await?;
    Ok(answer.body.read(1000).await?)
}

/// SRC-12: a connection whose response was read to its end is used for the next request.
#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start(&[OK; 8]).await;
    let client = server.client();
    for _ in 0..4 {
        assert_eq!(ask(&client, &once()).await.unwrap(), "ok");
        // Let the connection learn that its response was read.
        tokio::task::yield_now().await;
    }
    assert_eq!(server.counts(), (1, 4));
    // A connection that is dropped before the end of its response is closed.
    drop(client.send(&once(), soon()).await.unwrap());
    ask(&client, &once()).await.unwrap();
    assert_eq!(server.counts(), (2, 6));
}

/// SRC-08: a request that may have been read is not sent again, unless it may be repeated; the failure says
/// which.
#[tokio::test]
async fn a_request_that_may_have_been_read_is_not_sent_again() {
    for (repeatable, connections, outcome) in [(false, 1, None), (true, 2, Some("ok"))] {
        let server = Server::start(&[OK, ""]).await;
        let client = server.client();
        let outgoing = Outgoing { repeatable, ..once() };
        ask(&client, &outgoing).await.unwrap();
        tokio::task::yield_now().await;
        let second = ask(&client, &outgoing).await;
        match outcome {
            Some(said) => assert_eq!(second.unwrap(), said),
            None => assert!(matches!(second, Err(Failure::NoAnswer(NoAnswer::Broken(_)))), "{second:?}"),
        }
        assert_eq!(server.counts(), (connections, connections + 1));
    }
}

/// SRC-08: an unreachable port counts as not sent.
#[tokio::test]
async fn an_unreachable_host_counts_as_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let failed = ask(&Outbound::new(to("127.0.0.1", port, &[])), &once()).await.unwrap_err();
    assert!(matches!(failed, Failure::NotSent(NotSent::Unreachable(_))), "{failed:?}");
    let bad = Outgoing { path: "no path".to_owned(), ..once() };
    let failed = ask(&Outbound::new(to("127.0.0.1", port, &[])), &bad).await.unwrap_err();
    assert!(matches!(failed, Failure::NotSent(NotSent::Unwritable(_))), "{failed:?}");
}

/// SRC-12: a response is limited while it is read, with or without a content length; redirects are not
/// followed.
#[tokio::test]
async fn an_answer_is_bounded() {
    const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n";
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\naaaa\r\n4\r\naaaa\r\n4\r\naaaa\r\n";
    const AWAY: &str = "HTTP/1.1 307 Away\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n";
    for (answer, size) in [(&[LONG], 99_999_999), (&[CHUNKED], 12)] {
        let server = Server::start(answer).await;
        let answer = server.client().send(&once(), soon()).await.unwrap();
        assert_eq!(answer.body.read(10).await, Err(NoAnswer::TooLarge(size)));
    }
    let server = Server::start(&[AWAY]).await;
    assert_eq!(server.client().send(&once(), soon()).await.unwrap().status, 307);
    assert_eq!(server.counts(), (1, 1));
    let server = Server::start(&["SSH-2.0-x\r\n"]).await;
    let failed = ask(&server.client(), &once()).await;
    assert!(matches!(failed, Err(Failure::NoAnswer(NoAnswer::Broken(_)))), "{failed:?}");
}

/// SRC-12: a forbidden address is not connected to, and one allowed address does not make up for a forbidden
/// one.
#[tokio::test]
async fn an_address_that_is_not_allowed_is_not_dialled() {
    let server = Server::start(&[OK]).await;
    for networks in [&["10.0.0.0/8"][..], &["0.0.0.0/0", "::/0"], &["::1/128"], &["127.0.0.2/32"]] {
        let client = Outbound::new(to("127.0.0.1", server.port, networks));
        let refused = ask(&client, &once()).await.unwrap_err();
        assert_eq!(refused, NotSent::Address("127.0.0.1".parse().unwrap()).into(), "{networks:?}");
    }
    assert_eq!(server.counts(), (0, 0));
    let named = to("a.example", 80, &["10.0.0.0/8"]);
    let found = ["10.0.0.1".parse().unwrap(), "::ffff:169.254.169.254".parse().unwrap()];
    assert_eq!(named.check(&found), Err(NotSent::Address(found[1])));
    assert!(named.check(&found[..1]).is_ok());
    assert!(named.check(&[]).is_err());
    let anywhere = to("a.example", 80, &[]);
    for never in ["169.254.169.254", "::ffff:169.254.0.1", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"]
    {
        let found = [never.parse().unwrap()];
        assert_eq!(anywhere.check(&found), Err(NotSent::Address(found[0])), "{never}");
    }
    assert!(anywhere.check(&["10.0.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()]).is_ok());
}

/// SRC-12: a server that accepts and does not answer is waited for until the deadline (paused clock).
#[tokio::test]
async fn a_silent_server_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = Outbound::new(to("127.0.0.1", port, &[]));
    let asking = tokio::spawn(async move { ask(&client, &once()).await });
    let (mut tcp, _) = listener.accept().await.unwrap();
    assert!(head(&mut tcp).await);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(asking.await.unwrap(), Err(NoAnswer::TooSlow.into()));
    // The client has stopped waiting, and the other side sees that.
    assert!(!head(&mut tcp).await);
}
