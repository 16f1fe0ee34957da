use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;

/// The bytes that hyper would get from these pieces, and the verdicts.
async fn handed_on(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Verdict>) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (mut heads, verdicts) = Heads::new(server, Charge::of_nobody());
    for piece in pieces {
        client.write_all(piece).await.unwrap();
    }
    drop(client);
    let mut read = Vec::new();
    // After a refusal the stream does not end.
    let _ = tokio::time::timeout(Duration::from_millis(1), heads.read_to_end(&mut read)).await;
    let verdicts = std::iter::from_fn(|| verdicts.lock().pop_front()).collect();
    (read, verdicts)
}

fn refused(status: u16) -> impl Fn(&Verdict) -> bool {
    move |verdict| verdict.is_err_and(|bad| bad.status == status)
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

/// HTTP-09: plain requests are passed on byte for byte, in any pieces.
#[tokio::test(start_paused = true)]
async fn plain_requests_pass_unchanged() {
    let requests: [&[u8]; 7] = [
        GET,
        b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na=b&c",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=\"1\"\r\nabc\r\nA \r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        b"\r\nGET / HTTP/1.0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    ];
    let all = requests.concat();
    let whole = handed_on(&[&all]).await;
    assert_eq!((whole.0.as_slice(), whole.1.len()), (all.as_slice(), requests.len()));
    assert!(whole.1.iter().all(Result::is_ok));
    let bytes: Vec<&[u8]> = all.chunks(1).collect();
    assert_eq!(handed_on(&bytes).await, whole);
}

/// HTTP-09: every form in which parsers could see different requests is refused.
#[tokio::test(start_paused = true)]
async fn smuggling_forms_are_refused() {
    let post =
        |lines: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n");
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 6\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length : 5\r\n",
        " Content-Length: 5\r\n",
        "Content-Length: 5\r\n Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\n",
        "X: y\nContent-Length: 5\r\n",
        "X: y\rContent-Length: 5\r\n",
        "X: y\0\r\n",
        "X\r\n",
        ": y\r\n",
        "Content\u{7f}-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
    ] {
        let request = post(lines);
        let (read, verdicts) = handed_on(&[request.as_bytes()]).await;
        assert_eq!(read, INSTEAD, "{lines:?}");
        assert!(verdicts.len() == 1 && refused(400)(&verdicts[0]), "{lines:?}: {verdicts:?}");
    }
    for request in [
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\n\n",
        "GET / HTTP/1.1\r\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1 x\r\n\r\n",
        "GET /\r\n\r\n",
        "G@T / HTTP/1.1\r\n\r\n",
        "GET http://[ HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
    ] {
        let (read, verdicts) = handed_on(&[request.as_bytes()]).await;
        assert_eq!(read, INSTEAD, "{request:?}");
        assert!(verdicts.len() == 1 && refused(400)(&verdicts[0]), "{request:?}: {verdicts:?}");
    }
}

/// HTTP-09: a request before a refused one is answered, and nothing after it is read.
#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_connection() {
    let bad = b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx";
    let (read, verdicts) = handed_on(&[&[GET, bad, GET, GET].concat()]).await;
    assert_eq!(read, [GET, INSTEAD].concat());
    assert!(verdicts.len() == 2 && verdicts[0].is_ok() && refused(400)(&verdicts[1]));
}

/// HTTP-09: a malformed body is not read further.
#[tokio::test(start_paused = true)]
async fn malformed_chunks_are_refused() {
    for body in [
        "\r\n",
        "g\r\n",
        "-1\r\n",
        "0x3\r\nabc\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\rabc",
        "3;a\nb\r\nabc\r\n",
        "10000000000000000\r\n",
        "0\r\nTrailer: x\n\r\n",
        &format!("3;{}\r\nabc\r\n", "x".repeat(2000)),
        &format!("0\r\n{}\r\n", "Trailer: x\r\n".repeat(1000)),
    ] {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (mut heads, _) = Heads::new(server, Charge::of_nobody());
        client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let error = heads.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{body:?}");
    }
}

/// HTTP-09: each limit of the head, to the byte.
#[tokio::test(start_paused = true)]
async fn heads_are_bounded() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length - 1));
    let headers = |length: usize| format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(length - 7));
    let count = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    for good in [target(8192), headers(16 * 1024), count(100)] {
        let (read, verdicts) = handed_on(&[good.as_bytes()]).await;
        assert_eq!((read.len(), verdicts), (good.len(), vec![Ok(())]));
    }
    for (bad, status) in [(target(8193), 414), (headers(16 * 1024 + 1), 431), (count(101), 431)] {
        let (_, verdicts) = handed_on(&[bad.as_bytes()]).await;
        assert!(verdicts.len() == 1 && refused(status)(&verdicts[0]), "{status}: {verdicts:?}");
    }
    // The end of a line that is already too long is not waited for.
    let endless = "a".repeat(100_000);
    for (start, status) in [("GET /", 414), ("GET / HTTP/1.1\r\nx: ", 431), ("", 400)] {
        let (_, verdicts) = handed_on(&[start.as_bytes(), endless.as_bytes()]).await;
        assert!(verdicts.len() == 1 && refused(status)(&verdicts[0]), "{start}: {verdicts:?}");
    }
}

async fn read(heads: &mut Heads<DuplexStream>) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let length = heads.read(&mut buffer).await.unwrap();
    buffer.truncate(length);
    buffer
}

/// HTTP-09: 10 seconds for a head, even if bytes keep arriving.
#[tokio::test(start_paused = true)]
async fn slow_heads_are_refused() {
    let (mut client, server) = tokio::io::duplex(1024);
    let (mut heads, verdicts) = Heads::new(server, Charge::of_nobody());
    let sending = tokio::spawn(async move {
        for byte in GET.iter().take(20) {
            client.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        client
    });
    let begun = Instant::now();
    assert_eq!(read(&mut heads).await, INSTEAD);
    assert_eq!(begun.elapsed(), SLOW);
    assert!(refused(408)(&verdicts.next()));
    sending.await.unwrap();
}

/// HTTP-09: a client that sends nothing gets no answer; on a used connection only a head that has begun has a
/// deadline.
#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_without_a_response() {
    let (_client, server) = tokio::io::duplex(1024);
    let (mut heads, _) = Heads::new(server, Charge::of_nobody());
    assert_eq!(read(&mut heads).await, b"");

    let (mut client, server) = tokio::io::duplex(1024);
    let (mut heads, verdicts) = Heads::new(server, Charge::of_nobody());
    client.write_all(GET).await.unwrap();
    assert_eq!(read(&mut heads).await, GET);
    let waited = tokio::time::timeout(Duration::from_mins(10), read(&mut heads)).await;
    assert!(waited.is_err(), "how long a connection may be idle is not decided here");
    client.write_all(b"GET").await.unwrap();
    assert_eq!(read(&mut heads).await, INSTEAD);
    assert!(verdicts.next().is_ok() && refused(408)(&verdicts.next()));
}

/// A request that hyper sees without a verdict is refused.
#[test]
fn a_request_without_a_verdict_is_refused() {
    assert_eq!(Verdicts::default().next(), Err(BadHead::MALFORMED));
}

proptest! {
    /// HTTP-09: for any input in any pieces, what is passed on is a prefix of it, and a refusal is last.
    #[test]
    fn only_bytes_of_the_request_are_passed_on(text in "(GET|POST) /[a-z]{0,3} HTTP/1\\.[01]\r\n((Content-Length: [0-9]{1,2}|Transfer-Encoding: chunked|X: y)\r\n){0,3}\r\n[0-9a-f\r\n]{0,30}", cut in 1usize..40) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let pieces: Vec<_> = text.as_bytes().chunks(cut).collect();
        let (mut read, mut verdicts) = runtime.block_on(handed_on(&pieces));
        if verdicts.last().is_some_and(Result::is_err) {
            prop_assert!(read.ends_with(INSTEAD));
            read.truncate(read.len() - INSTEAD.len());
            verdicts.pop();
        }
        prop_assert!(text.as_bytes().starts_with(&read));
        prop_assert!(verdicts.iter().all(Result::is_ok));
        prop_assert_eq!(runtime.block_on(handed_on(&[text.as_bytes()])).1.len() >= verdicts.len(), true);
    }
}

/// HTTP-09: what the parser accepts as a field's name or value is one for hyper too, which takes it over unseen.
#[test]
fn names_and_values_are_as_the_parser_has_them() {
    let parses = |line: &[u8]| {
        let head = [b"GET / HTTP/1.1\r\n", line, b"\r\n\r\n"].concat();
        let mut headers = [httparse::EMPTY_HEADER; 2];
        httparse::Request::new(&mut headers).parse(&head).is_ok_and(|status| status.is_complete())
    };
    let mut accepted = 0;
    for byte in 0..=u8::MAX {
        if parses(&[b'a', byte, b':', b'x']) && byte != b':' {
            assert!(http::HeaderName::from_bytes(&[b'a', byte]).is_ok(), "{byte}");
            accepted += 1;
        }
        if parses(&[b'a', b':', b'x', byte, b'x']) {
            assert!(http::HeaderValue::from_bytes(&[b'x', byte, b'x']).is_ok(), "{byte}");
            accepted += 1;
        }
    }
    assert!(accepted > 200);
}
