//! A source with TLS by a private authority that requires a client certificate (SRC-12).

use std::pin::Pin;

use openssl::ssl::{Ssl, SslAcceptor, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_openssl::SslStream;

use super::hostile::HostileServer;
use super::{token, walked};
use crate::certificates::{Authority, Issued};
use crate::clients::refused;
use crate::harness::TestApp;

/// Forwards TLS connections of clients with a certificate of this authority.
async fn behind_tls(server: &HostileServer, identity: &Issued, clients: &Issued) -> String {
    let plain = server.url.split('/').nth(2).unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/mcp", listener.local_addr().unwrap().port());
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&X509::from_pem(&identity.certificate).unwrap()).unwrap();
    let key = openssl::pkey::PKey::private_key_from_pem(&identity.key).unwrap();
    acceptor.set_private_key(&key).unwrap();
    let mut store = X509StoreBuilder::new().unwrap();
    store.add_cert(X509::from_pem(&clients.authority).unwrap()).unwrap();
    acceptor.set_verify_cert_store(store.build()).unwrap();
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let acceptor = acceptor.build();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut stream = SslStream::new(Ssl::new(acceptor.context()).unwrap(), tcp).unwrap();
            let plain = plain.clone();
            tokio::spawn(async move {
                if Pin::new(&mut stream).accept().await.is_ok() {
                    let mut onward = TcpStream::connect(plain).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
                }
            });
        }
    });
    url
}

/// SRC-12, SRC-14: such a source is reached with its authority and an accepted certificate. With another
/// authority, or without the certificate, nothing of a call reaches it, and `source test` says which of the two
/// is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_an_authority_of_its_own_is_reached() {
    let hostile = HostileServer::start().await;
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let (identity, gateway) = (servers.issue(&["localhost"], 90), clients.issue(&["gateway"], 90));
    let url = behind_tls(&hostile, &identity, &gateway).await;
    let dir = tempfile::tempdir().unwrap();
    identity.write(dir.path(), "server");
    let stranger = strangers.issue(&["localhost"], 90);
    stranger.write(dir.path(), "stranger");
    gateway.write(dir.path(), "gateway");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let shown = |certificate: &str| {
        format!(
            "client_cert = \"{}\"\nclient_key = \"{}\"\n",
            file(&format!("{certificate}.pem")),
            file(&format!("{certificate}.key"))
        )
    };
    let configured = |ca: &str, more: &str| {
        format!(
            "[sources.up]\nkind = \"mcp-http\"\nurl = \"{url}\"\nca = \"{}\"\n{more}[tools.up_greet]\nscope = \"docs.read\"\n",
            file(ca)
        )
    };
    let app = TestApp::start_configured(&configured("server.ca", &shown("gateway"))).await;
    let token = token(&app).await;
    walked(&app, "source.changed", 1).await;
    let call = async || {
        let answer: Value = app.call_tool(&token, "up_greet", json!({})).await.json().await.unwrap();
        answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(call().await, "hello");
    assert_eq!(app.console(&["source", "test", "up"])["tools"].as_array().unwrap().len(), 2);
    let calls = hostile.calls().len();
    let config = app.data_dir().with_file_name("portcullis.toml");
    for (toml, says) in [
        (configured("stranger.ca", &shown("gateway")), "its TLS certificate is not trusted"),
        (configured("server.ca", ""), "it wants a client certificate"),
        (configured("server.ca", &shown("stranger")), "it does not accept the client certificate"),
    ] {
        std::fs::write(&config, &toml).unwrap();
        app.console(&["reload"]);
        let why = refused(&app, &["source", "test", "up"]);
        assert!(why.contains("the server `up` cannot be used: ") && why.contains(says), "{why}");
        let text = call().await;
        assert!(text.contains("up") && !text.contains("hello"), "{text}");
        assert_eq!(hostile.calls().len(), calls, "{says}");
    }
    std::fs::write(&config, configured("server.ca", &shown("gateway"))).unwrap();
    app.console(&["reload"]);
    assert_eq!(call().await, "hello");
    // A missing file is refused before anything changes.
    std::fs::write(&config, configured("gone.ca", "")).unwrap();
    let why = refused(&app, &["reload"]);
    assert!(why.contains("[sources.up] at ") && why.contains("gone.ca"), "{why}");
    assert_eq!(call().await, "hello");
}
