//! A host on this computer that serves a client id metadata document over TLS, with its own certificate
//! authority.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_openssl::SslStream;

pub struct Origin {
    pub port: u16,
    requests: Arc<AtomicUsize>,
    answer: Arc<Mutex<Option<String>>>,
    dir: tempfile::TempDir,
}

impl Origin {
    /// A host that serves nothing yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let acceptor = acceptor(&dir.path().join("ca.pem"));
        let (requests, answer) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Option<String>>>::default());
        let (counted, answers) = (Arc::clone(&requests), Arc::clone(&answer));
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                // A host that is down closes the connection.
                let Some(answer) = answers.lock().unwrap().clone() else { continue };
                let mut stream = SslStream::new(Ssl::new(acceptor.context()).unwrap(), tcp).unwrap();
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    if Pin::new(&mut stream).accept().await.is_err() {
                        return;
                    }
                    let mut request = vec![0; 4096];
                    if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        counted.fetch_add(1, Ordering::SeqCst);
                        let _ = stream.write_all(answer.as_bytes()).await;
                        let _ = stream.shutdown().await;
                    }
                });
            }
        });
        Self { port, requests, answer, dir }
    }

    /// The client id of its document.
    pub fn client_id(&self) -> String {
        format!("https://localhost:{}/oauth/client.json", self.port)
    }

    /// A valid document.
    pub fn document(&self) -> Value {
        json!({
            "client_id": self.client_id(),
            "client_name": "Ticket desk",
            "redirect_uris": ["http://localhost/cb"],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
        })
    }

    /// Serves this document from now on, with this `max-age` in seconds.
    pub fn serve(&self, document: &Value, max_age: u32) {
        let body = document.to_string();
        let headers = format!(
            "Content-Type: application/json\r\nCache-Control: max-age={max_age}\r\nContent-Length: {}\r\n",
            body.len()
        );
        self.answer(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}"));
    }

    pub fn answer(&self, response: &str) {
        *self.answer.lock().unwrap() = Some(response.to_owned());
    }

    pub fn gone(&self) {
        self.answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    }

    pub fn down(&self) {
        *self.answer.lock().unwrap() = None;
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A configuration that allows documents to be fetched from it.
    pub fn toml(&self) -> String {
        let ca = self.ca();
        format!(
            "[cimd]\nmode = \"fetch\"\n[[cimd.allow]]\nhost = \"localhost\"\nport = {}\ncidr = [\"127.0.0.1/32\", \"::1/128\"]\nca = \"{}\"\n",
            self.port,
            ca.display()
        )
    }
}

/// A TLS acceptor for `localhost`; its authority's certificate is written to `ca`.
fn acceptor(ca: &std::path::Path) -> SslAcceptor {
    let key = || {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    };
    let named = |name: &str, issuer: Option<&X509>| -> X509Builder {
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_text("CN", name).unwrap();
        let subject = subject.build();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        let serial = BigNum::from_u32(if issuer.is_some() { 2 } else { 1 }).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(issuer.map_or(&subject, |issuer| issuer.subject_name())).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        builder
    };
    let (authority_key, server_key) = (key(), key());
    let mut authority = named("Site authority", None);
    authority.set_pubkey(&authority_key).unwrap();
    authority.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    authority.sign(&authority_key, MessageDigest::sha256()).unwrap();
    let authority = authority.build();
    std::fs::write(ca, authority.to_pem().unwrap()).unwrap();

    let mut server = named("localhost", Some(&authority));
    server.set_pubkey(&server_key).unwrap();
    let names =
        SubjectAlternativeName::new().dns("localhost").build(&server.x509v3_context(Some(&authority), None));
    server.append_extension(names.unwrap()).unwrap();
    server.sign(&authority_key, MessageDigest::sha256()).unwrap();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_private_key(&server_key).unwrap();
    acceptor.set_certificate(&server.build()).unwrap();
    acceptor.build()
}
