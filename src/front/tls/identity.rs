//! A certificate with its key: read, checked, and prepared for connections.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    AlpnError, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslVersion, select_next_proto,
};
use openssl::x509::X509;
use shared::Timestamp;
use zeroize::Zeroizing;

use super::Files;

/// HTTP/2 first, for clients that support both (RFC 7301 §3.2). Each name is preceded by its length.
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";
/// For TLS 1.2, only forward secrecy with authenticated encryption; all of TLS 1.3 is like that (BCP 195).
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
    ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
/// The largest certificate or key file, in bytes.
const LONGEST: u64 = 1 << 20;

/// How near the expiry of a certificate is (OPS-08).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Expiry {
    FarOff,
    WithinAMonth,
    WithinAWeek,
    WithinADay,
    Over,
}

impl Expiry {
    /// The warning in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::FarOff => "the TLS certificate lasts for more than 30 days",
            Self::WithinAMonth => "the TLS certificate expires within 30 days",
            Self::WithinAWeek => "the TLS certificate expires within 7 days",
            Self::WithinADay => "the TLS certificate expires within a day",
            Self::Over => "the TLS certificate has expired: nobody can connect",
        }
    }
}

/// A valid certificate with its key.
pub(crate) struct Identity {
    context: SslContext,
    /// The host names in it, in lower case.
    names: Vec<String>,
    not_after: Timestamp,
    digest: String,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// If they cannot be read, do not belong together, are not valid now, or the key is readable by others
    /// (OPS-03).
    pub(crate) fn load(files: &Files, now: Timestamp) -> anyhow::Result<Self> {
        let (path, key_path) = (files.certificate.as_path(), files.key.as_path());
        let of_certificate = || format!("cannot use the TLS certificate {}", path.display());
        let chain = X509::stack_from_pem(&read(path, FileAccess::Any).with_context(of_certificate)?);
        let chain = chain.map_err(|_| NotPem("a certificate")).with_context(of_certificate)?;
        let Some((leaf, between)) = chain.split_first() else {
            return Err(NotPem("a certificate")).with_context(of_certificate);
        };
        let not_after = timestamp(leaf.not_after()).with_context(of_certificate)?;
        let not_before = timestamp(leaf.not_before()).with_context(of_certificate)?;
        if now >= not_after {
            bail!("{}: it expired on {not_after}", of_certificate());
        }
        if now < not_before {
            bail!("{}: it is valid from {not_before}, and this machine's clock says {now}", of_certificate());
        }
        let key = key(key_path).with_context(|| format!("cannot use the TLS key {}", key_path.display()))?;
        if !leaf.public_key().is_ok_and(|public| public.public_eq(&key)) {
            bail!("the TLS key {} does not belong to the certificate {}", key_path.display(), path.display());
        }
        let context = context(leaf, between, &key).with_context(of_certificate)?;
        let digest = leaf.digest(MessageDigest::sha256()).with_context(of_certificate)?;
        Ok(Self { context, names: names(leaf), not_after, digest: HEXLOWER.encode(&digest) })
    }

    pub(super) fn context(&self) -> &SslContext {
        &self.context
    }

    /// Its expiry.
    pub(crate) fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The SHA-256 of the certificate, as browsers show it.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// The host names in it.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// How near its expiry is.
    pub(crate) fn expiry(&self, now: Timestamp) -> Expiry {
        const DAY: Duration = Duration::from_hours(24);
        let left = self.not_after.since(now);
        match left {
            Duration::ZERO => Expiry::Over,
            _ if left <= DAY => Expiry::WithinADay,
            _ if left <= 7 * DAY => Expiry::WithinAWeek,
            _ if left <= 30 * DAY => Expiry::WithinAMonth,
            _ => Expiry::FarOff,
        }
    }

    /// The warning if browsers will not accept the certificate for this host (RFC 9525 §6.3).
    pub(crate) fn misnamed(&self, host: &str) -> Option<String> {
        let wildcard = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let fits = |name: &String| name == host || wildcard.as_ref() == Some(name);
        if self.names.iter().any(fits) {
            return None;
        }
        let names = if self.names.is_empty() { "nobody".to_owned() } else { self.names.join(", ") };
        Some(format!(
            "the TLS certificate is for {names}, not for {host}: browsers and clients will refuse it"
        ))
    }

    pub(super) fn warn_of_names(&self, host: &str) {
        if let Some(words) = self.misnamed(host) {
            tracing::warn!("{words}");
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it does not contain {0} in PEM, which begins with -----BEGIN")]
struct NotPem(&'static str);

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileAccess {
    Any,
    /// Its owner, and optionally its group.
    Closed,
}

fn read(path: &Path, openness: FileAccess) -> anyhow::Result<Vec<u8>> {
    let mut file = shared::file::open(path)?;
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o7777;
    if openness == FileAccess::Closed && mode & 0o027 != 0 {
        bail!("others may read or change it (mode {mode:o}); run: chmod g-w,o-rwx {}", path.display());
    }
    anyhow::ensure!(metadata.is_file(), "it is not a file");
    let mut bytes = Vec::new();
    file.by_ref().take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn key(path: &Path) -> anyhow::Result<PKey<Private>> {
    let pem = Zeroizing::new(read(path, FileAccess::Closed)?);
    let mut encrypted = false;
    let key = PKey::private_key_from_pem_callback(&pem, |_| {
        // Otherwise OpenSSL would ask for a passphrase on the terminal.
        encrypted = true;
        Err(ErrorStack::get())
    });
    if encrypted {
        bail!("it is encrypted; store it without a passphrase");
    }
    Ok(key.map_err(|_| NotPem("a private key"))?)
}

fn context(leaf: &X509, between: &[X509], key: &PKey<Private>) -> Result<SslContext, ErrorStack> {
    let mut builder = SslContextBuilder::new(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_cipher_list(CIPHERS)?;
    builder.set_options(
        SslOptions::NO_COMPRESSION | SslOptions::NO_RENEGOTIATION | SslOptions::CIPHER_SERVER_PREFERENCE,
    );
    // No resumption: there is no ticket key that could be stolen to decrypt recorded traffic.
    builder.set_options(SslOptions::NO_TICKET);
    builder.set_num_tickets(0)?;
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    // Async callers move buffers; an idle connection keeps none.
    builder.set_mode(
        SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER | SslMode::RELEASE_BUFFERS,
    );
    // A client of another protocol must not get an answer in ours (RFC 7301 §3.2, ALPACA).
    builder.set_alpn_select_callback(|_, offered| {
        select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    builder.set_certificate(leaf)?;
    for certificate in between {
        builder.add_extra_chain_cert(certificate.clone())?;
    }
    builder.set_private_key(key)?;
    builder.check_private_key()?;
    Ok(builder.build())
}

fn names(leaf: &X509) -> Vec<String> {
    let names = leaf.subject_alt_names();
    names.iter().flatten().filter_map(|name| name.dnsname()).map(str::to_ascii_lowercase).collect()
}

fn timestamp(time: &Asn1TimeRef) -> Result<Timestamp, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(Timestamp::from_seconds(i64::from(since.days) * 86_400 + i64::from(since.secs)))
}
