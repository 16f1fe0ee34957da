use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderValue;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_openssl::SslStream;

use super::*;

/// A site's own certificate authority.
struct Authority {
    key: PKey<Private>,
    certificate: X509,
    dir: tempfile::TempDir,
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

impl Authority {
    fn new() -> Self {
        let key = key();
        let certificate = certificate(&key, "Site authority", None, |builder, _| {
            builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.to_pem().unwrap()).unwrap();
        Self { key, certificate, dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Issues a key and a certificate for a server.
    fn vouch_for(&self, name: &str) -> (PKey<Private>, X509) {
        let key = key();
        let certificate = certificate(&key, name, Some(self), |builder, issuer| {
            let mut names = SubjectAlternativeName::new();
            match name.parse::<IpAddr>() {
                Ok(_) => names.ip(name),
                Err(_) => names.dns(name),
            };
            let context = builder.x509v3_context(issuer, None);
            let extension = names.build(&context).unwrap();
            builder.append_extension(extension).unwrap();
        });
        (key, certificate)
    }
}

fn certificate(
    key: &PKey<Private>,
    name: &str,
    issuer: Option<&Authority>,
    extend: impl FnOnce(&mut X509Builder, Option<&openssl::x509::X509Ref>),
) -> X509 {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_slice(&shared::secret::random::<16>()).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(issuer.map_or(&subject, |issuer| issuer.certificate.subject_name())).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    extend(&mut builder, issuer.map(|issuer| &*issuer.certificate));
    builder.sign(issuer.map_or(key, |issuer| &issuer.key), MessageDigest::sha256()).unwrap();
    builder.build()
}

/// A server that answers every request with the same bytes, and counts connections.
struct Origin {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Origin {
    async fn serve(identity: (PKey<Private>, X509), answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_private_key(&identity.0).unwrap();
        acceptor.set_certificate(&identity.1).unwrap();
        let acceptor = acceptor.build();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let (send, requests) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let ssl = Ssl::new(acceptor.context()).unwrap();
                let mut stream = SslStream::new(ssl, tcp).unwrap();
                let (answer, send) = (answer.clone(), send.clone());
                tokio::spawn(async move {
                    if Pin::new(&mut stream).accept().await.is_err() {
                        return;
                    }
                    let mut request = vec![0; 4096];
                    let read = stream.read(&mut request).await.unwrap_or(0);
                    let _ = send.send(String::from_utf8_lossy(&request[..read]).into_owned());
                    if answer.is_empty() {
                        // This origin never answers.
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { port, connections, requests }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

const JSON: &str = "Content-Type: application/json\r\n";

fn allowed(origin: &Origin, host: &str, networks: &[&str], ca: PathBuf) -> AllowedHost {
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    AllowedHost { host: host.to_owned(), port: origin.port, networks, ca }
}

fn url(host: &str, port: u16) -> DocumentUrl {
    DocumentUrl::parse(&format!("https://{host}:{port}/oauth/client.json")).unwrap()
}

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// CIMD-07: the request asks for the document and contains nothing else.
#[tokio::test]
async fn a_document_is_read() {
    let authority = Authority::new();
    let answer = http("200 OK", &format!("{JSON}Cache-Control: max-age=3600\r\nSet-Cookie: a=b\r\n"), "{}");
    let mut origin = Origin::serve(authority.vouch_for("localhost"), answer).await;
    let allowed = allowed(&origin, "localhost", &LOOPBACK, authority.file());
    let fetched = fetch(&allowed, &url("localhost", origin.port)).await.unwrap();
    assert_eq!((fetched.body, fetched.lifetime), (b"{}".to_vec(), Duration::from_hours(1)));
    let request = origin.requests.recv().await.unwrap();
    let mut lines: Vec<String> = request.trim_end().lines().map(str::to_ascii_lowercase).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "accept: application/json".to_owned(),
            "connection: close".to_owned(),
            "get /oauth/client.json http/1.1".to_owned(),
            format!("host: localhost:{}", origin.port),
        ]
    );
}

/// CIMD-07: a host given as an IP address is checked like one that was resolved.
#[tokio::test]
async fn a_host_may_be_an_address() {
    let authority = Authority::new();
    let origin = Origin::serve(authority.vouch_for("127.0.0.1"), http("200 OK", JSON, "{}")).await;
    let allowed = allowed(&origin, "127.0.0.1", &["127.0.0.1/32"], authority.file());
    assert!(fetch(&allowed, &url("127.0.0.1", origin.port)).await.is_ok());
}

/// CIMD-07: only 200 with JSON is accepted; redirects are not followed; 5 KiB is the limit.
#[tokio::test]
async fn other_responses_are_not_accepted_as_documents() {
    let authority = Authority::new();
    let large = format!("\"{}\"", "x".repeat(LARGEST));
    let endless = format!(
        "HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n2000\r\n{}\r\n",
        "x".repeat(0x2000)
    );
    for (answer, error) in [
        (http("302 Found", &format!("{JSON}Location: /other\r\n"), "{}"), FetchError::Status(302)),
        (http("301 Moved", &format!("{JSON}Location: http://127.0.0.1/\r\n"), "{}"), FetchError::Status(301)),
        (http("204 No Content", JSON, ""), FetchError::Status(204)),
        (http("404 Not Found", JSON, "{}"), FetchError::Status(404)),
        (http("503 Service Unavailable", JSON, "{}"), FetchError::Status(503)),
        (http("200 OK", "Content-Type: text/html\r\n", "{}"), FetchError::MediaType),
        (http("200 OK", "Content-Type: text/json\r\n", "{}"), FetchError::MediaType),
        (http("200 OK", "", "{}"), FetchError::MediaType),
        (http("200 OK", &format!("{JSON}Content-Encoding: gzip\r\n"), "{}"), FetchError::TooLarge),
        (http("200 OK", JSON, &large), FetchError::TooLarge),
        (endless, FetchError::TooLarge),
        ("SSH-2.0-x\r\n".to_owned(), FetchError::NotHttp),
    ] {
        let origin = Origin::serve(authority.vouch_for("localhost"), answer.clone()).await;
        let allowed = allowed(&origin, "localhost", &LOOPBACK, authority.file());
        let refused = fetch(&allowed, &url("localhost", origin.port)).await.unwrap_err();
        assert_eq!(refused, error, "{}", answer.chars().take(80).collect::<String>());
        assert_eq!(origin.connections(), 1, "nothing is followed");
    }
}

/// CIMD-06: an address outside the allowed networks is never connected to.
#[tokio::test]
async fn an_address_that_was_not_named_is_not_dialled() {
    let authority = Authority::new();
    let origin = Origin::serve(authority.vouch_for("localhost"), http("200 OK", JSON, "{}")).await;
    for networks in [&["10.0.0.0/8"][..], &["0.0.0.0/0", "::/0"], &["::1/128"], &["127.0.0.2/32", "::1/128"]]
    {
        let allowed = allowed(&origin, "127.0.0.1", networks, authority.file());
        let refused = fetch(&allowed, &url("127.0.0.1", origin.port)).await.unwrap_err();
        assert_eq!(refused, FetchError::Address("127.0.0.1".parse().unwrap()), "{networks:?}");
    }
    assert_eq!(origin.connections(), 0);
}

/// CIMD-07, OPS-08: a certificate from an authority that the system trusts and the site does not is refused.
#[tokio::test]
async fn tls_is_verified_against_the_sites_own_authorities() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for identity in [stranger.vouch_for("localhost"), authority.vouch_for("other.example")] {
        let origin = Origin::serve(identity, http("200 OK", JSON, "{}")).await;
        let allowed = allowed(&origin, "localhost", &LOOPBACK, authority.file());
        let refused = fetch(&allowed, &url("localhost", origin.port)).await.unwrap_err();
        assert!(matches!(refused, FetchError::Tls(_)), "{refused}");
        assert!(!refused.is_down());
    }
    let origin = Origin::serve(authority.vouch_for("localhost"), http("200 OK", JSON, "{}")).await;
    let empty = authority.dir.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    for ca in [empty, authority.dir.path().join("missing.pem")] {
        let allowed = allowed(&origin, "localhost", &LOOPBACK, ca);
        let refused = fetch(&allowed, &url("localhost", origin.port)).await.unwrap_err();
        assert!(matches!(refused, FetchError::TrustStore(_)), "{refused}");
    }
}

/// CIMD-07: the fetch ends after five seconds in total (paused clock).
#[tokio::test]
async fn a_slow_server_times_out() {
    let authority = Authority::new();
    let mut origin = Origin::serve(authority.vouch_for("localhost"), String::new()).await;
    let allowed = allowed(&origin, "localhost", &LOOPBACK, authority.file());
    let url = url("localhost", origin.port);
    let fetching = tokio::spawn(async move { fetch(&allowed, &url).await });
    // The request has arrived, so from here on only time passes.
    origin.requests.recv().await.unwrap();
    tokio::time::pause();
    tokio::time::advance(PATIENCE).await;
    let refused = fetching.await.unwrap().unwrap_err();
    assert_eq!(refused, FetchError::TooSlow);
    assert!(refused.is_down());
}

#[tokio::test]
async fn a_server_that_does_not_respond_counts_as_down() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let networks = vec!["127.0.0.1/32".parse().unwrap()];
    let allowed = AllowedHost { host: "127.0.0.1".to_owned(), port, networks, ca: authority.file() };
    let refused = fetch(&allowed, &url("127.0.0.1", port)).await.unwrap_err();
    assert!(matches!(refused, FetchError::Unreachable(_)) && refused.is_down(), "{refused}");
    assert!(FetchError::Status(500).is_down() && !FetchError::Status(404).is_down());
}

/// CIMD-08: valid from 5 minutes to a day, as the origin says.
#[test]
fn cache_headers_limit_the_lifetime_of_a_document() {
    let lifetime = |cache_control: &'static str, age: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if !cache_control.is_empty() {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
        }
        if let Some(age) = age {
            headers.insert(header::AGE, HeaderValue::from_static(age));
        }
        super::lifetime(&headers).as_secs()
    };
    for (cache_control, age, seconds) in [
        ("", None, 300),
        ("max-age=0", None, 300),
        ("max-age=299", None, 300),
        ("public, max-age=3600", None, 3600),
        ("Max-Age=3600", None, 3600),
        ("max-age=\"3600\"", None, 3600),
        ("max-age=3600", Some("3000"), 600),
        ("max-age=3600", Some("4000"), 300),
        ("max-age=60, s-maxage=7200", None, 7200),
        ("max-age=31536000", None, 86_400),
        ("max-age=18446744073709551615", None, 86_400),
        ("max-age=-1", None, 300),
        ("max-age=x", None, 300),
        ("no-store, max-age=3600", None, 300),
        ("no-cache=\"x\", max-age=3600", None, 300),
        ("private, max-age=3600", None, 300),
    ] {
        assert_eq!(lifetime(cache_control, age), seconds, "{cache_control} {age:?}");
    }
}

#[test]
fn only_json_media_types_are_accepted() {
    let is = |value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static(value));
        let one = is_json(&headers);
        headers.append(header::CONTENT_TYPE, HeaderValue::from_static(value));
        assert!(!is_json(&headers), "two types are none");
        one
    };
    for good in ["application/json", "Application/JSON; charset=utf-8", "application/oauth-client+json"] {
        assert!(is(good), "{good}");
    }
    for bad in ["application/+json", "text/json", "application/json5", "text/html", "", "application/jsonp"] {
        assert!(!is(bad), "{bad}");
    }
}
