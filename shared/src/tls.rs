//! TLS to other hosts, verified against the certificate authorities that the site names (OPS-08, SRC-12).

use std::path::{Path, PathBuf};
use std::pin::Pin;

use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVersion};
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::{X509, X509VerifyResult};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// The certificate authorities for a host, and the client certificate for it. The files are read for each
/// connection, so that new ones are used at once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trust {
    /// The authorities as a PEM file; `None` for the system's.
    pub ca: Option<PathBuf>,
    pub identity: Option<Identity>,
}

/// A client certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The certificate and its chain, in PEM form.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Where systems keep their trusted authorities.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why no TLS connection could be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the CA certificates cannot be read: {0}")]
    TrustStore(String),
    #[error("the client certificate cannot be used: {0}")]
    Identity(String),
    #[error("the host's TLS certificate is not trusted: {0}")]
    Unproven(String),
    /// The connection broke during the handshake, so the peer is unknown.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Connects with TLS 1.2 or newer, and verifies the host's certificate against these authorities and this name.
pub(crate) async fn connect(
    trust: &Trust,
    host: &str,
    tcp: TcpStream,
) -> Result<SslStream<TcpStream>, TlsError> {
    let ca = trust.ca.as_deref().or_else(|| system_authorities()).ok_or_else(|| {
        let words = "this system has no CA certificates in the usual places; set `ca` to a file";
        TlsError::TrustStore(words.to_owned())
    })?;
    let store = trust_store(ca).map_err(TlsError::TrustStore)?;
    let mut connector = builder(store).map_err(|error| TlsError::Unproven(error.to_string()))?;
    if let Some(identity) = &trust.identity {
        present(&mut connector, identity).map_err(TlsError::Identity)?;
    }
    let prepared = || -> Result<_, openssl::error::ErrorStack> {
        SslStream::new(connector.build().configure()?.into_ssl(host)?, tcp)
    };
    let mut stream = prepared().map_err(|error| TlsError::Unproven(error.to_string()))?;
    match Pin::new(&mut stream).connect().await {
        Ok(()) => Ok(stream),
        Err(error) => Err(match stream.ssl().verify_result() {
            X509VerifyResult::OK => TlsError::Broken(error.to_string()),
            wrong => TlsError::Unproven(wrong.error_string().to_owned()),
        }),
    }
}

fn builder(store: X509Store) -> Result<SslConnectorBuilder, openssl::error::ErrorStack> {
    let mut connector = SslConnector::builder(SslMethod::tls_client())?;
    connector.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    // Replaces the library's default store, so that only authorities named by the site are trusted.
    connector.set_cert_store(store);
    Ok(connector)
}

/// Presents this certificate to hosts that ask for one.
fn present(connector: &mut SslConnectorBuilder, identity: &Identity) -> Result<(), String> {
    let Identity { certificate, key } = identity;
    let wrong = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    // The library reads the file itself, and would wait for a pipe.
    crate::file::read(certificate).map_err(|error| wrong(certificate, &error))?;
    connector.set_certificate_chain_file(certificate).map_err(|error| wrong(certificate, &error))?;
    let pem = crate::file::read(key).map_err(|error| wrong(key, &error))?;
    // An empty passphrase; otherwise the library would ask for one on the terminal.
    let private = PKey::private_key_from_pem_passphrase(&pem, b"").map_err(|error| wrong(key, &error))?;
    connector.set_private_key(&private).map_err(|error| wrong(key, &error))?;
    connector.check_private_key().map_err(|error| wrong(key, &error))
}

/// Checks that a client certificate and its key can be read and belong together.
///
/// # Errors
/// What is wrong, in words.
pub fn check_identity(identity: &Identity) -> Result<(), String> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).map_err(|error| error.to_string())?;
    present(&mut connector, identity)
}

fn trust_store(ca: &Path) -> Result<X509Store, String> {
    let mut store = X509StoreBuilder::new().map_err(|e| e.to_string())?;
    for certificate in certificates(ca)? {
        store.add_cert(certificate).map_err(|e| e.to_string())?;
    }
    Ok(store.build())
}

/// The certificates in a PEM file. It is read for each connection, so that a new file is used at once.
///
/// # Errors
/// Why there are none, in words.
pub fn certificates(ca: &Path) -> Result<Vec<X509>, String> {
    let pem = crate::file::read(ca).map_err(|error| format!("{}: {error}", ca.display()))?;
    match X509::stack_from_pem(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{} contains no PEM certificate", ca.display())),
    }
}

/// The system's certificate authorities, if they are in a usual place.
pub fn system_authorities() -> Option<&'static Path> {
    SYSTEM.into_iter().map(Path::new).find(|path| path.exists())
}
