//! TLS to other hosts: to one that an authority vouches for that the site named, and to no other (OPS-08).

use std::path::Path;
use std::pin::Pin;

use openssl::ssl::{SslConnector, SslMethod, SslVersion};
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::{X509, X509VerifyResult};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why nothing can be said to a host, and nothing it says counts.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the CA certificates cannot be read: {0}")]
    TrustStore(String),
    #[error("the host's TLS certificate is not trusted: {0}")]
    Unproven(String),
    /// It broke before that was known, so it says nothing about who was there.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Speaks TLS 1.2 or newer with a host that one of the authorities in this file vouches for, under this name.
///
/// # Errors
/// See [`TlsError`].
pub async fn connect(ca: &Path, host: &str, tcp: TcpStream) -> Result<SslStream<TcpStream>, TlsError> {
    let store = trust_store(ca).map_err(TlsError::TrustStore)?;
    let prepared = || -> Result<_, openssl::error::ErrorStack> {
        let mut connector = SslConnector::builder(SslMethod::tls_client())?;
        connector.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        // In place of the library's own, so that nobody is trusted whom nobody named.
        connector.set_cert_store(store);
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

fn trust_store(ca: &Path) -> Result<X509Store, String> {
    let mut store = X509StoreBuilder::new().map_err(|e| e.to_string())?;
    for certificate in certificates(ca)? {
        store.add_cert(certificate).map_err(|e| e.to_string())?;
    }
    Ok(store.build())
}

/// The certificates in a PEM file. They are read for each connection, so that a new file counts at once.
///
/// # Errors
/// Why there are none, in words.
pub fn certificates(ca: &Path) -> Result<Vec<X509>, String> {
    let pem = std::fs::read(ca).map_err(|error| format!("{}: {error}", ca.display()))?;
    match X509::stack_from_pem(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{} contains no PEM certificate", ca.display())),
    }
}

/// The authorities that this system trusts, if it keeps them where systems do.
pub fn system_authorities() -> Option<&'static Path> {
    SYSTEM.into_iter().map(Path::new).find(|path| path.exists())
}
