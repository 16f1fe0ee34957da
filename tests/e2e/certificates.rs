//! A certificate authority for tests, and its certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

/// The host name of TLS servers. No resolver knows it.
pub const HOST: &str = "gate.example";

/// An unused port outside the system's ephemeral range. A TLS server is told its port before it starts, because
/// its issuer contains it.
pub fn unused_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..u16::MAX).find(free).expect("some port is free")
}

/// A certificate authority.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

/// A certificate with its key, both in PEM, and the authority's certificate.
pub struct Issued {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub authority: Vec<u8>,
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// A certificate that is valid until this many days from now.
fn builder(name: &str, key: &PKey<Private>, days: i64) -> X509Builder {
    let mut builder = X509::builder().unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(159, MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    builder.set_subject_name(&subject.build()).unwrap();
    builder.set_pubkey(key).unwrap();
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let end = i64::try_from(seconds).unwrap() + days * 86_400 + 3_600;
    builder.set_not_before(&Asn1Time::from_unix(1_700_000_000).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(end).unwrap()).unwrap();
    builder
}

impl Authority {
    pub fn new() -> Self {
        let key = key();
        let mut builder = builder("Test authority", &key, 3650);
        let name = {
            let mut name = X509NameBuilder::new().unwrap();
            name.append_entry_by_text("CN", "Test authority").unwrap();
            name.build()
        };
        builder.set_issuer_name(&name).unwrap();
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().build().unwrap()).unwrap();
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(identifier).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Self { certificate: builder.build(), key }
    }

    /// A certificate for these names, valid for this many days and an hour.
    pub fn issue(&self, names: &[&str], days: i64) -> Issued {
        let key = key();
        let mut builder = builder(names.first().unwrap_or(&"nobody"), &key, days);
        builder.set_issuer_name(self.certificate.subject_name()).unwrap();
        if !names.is_empty() {
            let mut alternative = SubjectAlternativeName::new();
            for name in names {
                alternative.dns(name);
            }
            let context = builder.x509v3_context(Some(&self.certificate), None);
            let alternative = alternative.build(&context).unwrap();
            builder.append_extension(alternative).unwrap();
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let identifier = AuthorityKeyIdentifier::new().keyid(true).build(&context).unwrap();
        builder.append_extension(identifier).unwrap();
        builder.sign(&self.key, MessageDigest::sha256()).unwrap();
        Issued {
            certificate: builder.build().to_pem().unwrap(),
            key: key.private_key_to_pem_pkcs8().unwrap(),
            authority: self.certificate.to_pem().unwrap(),
        }
    }
}

impl Issued {
    /// Writes certificate and key with the right modes, and the authority's certificate beside them.
    pub fn write(&self, dir: &Path, name: &str) -> [PathBuf; 2] {
        let certificate = dir.join(name).with_extension("pem");
        let key = certificate.with_extension("key");
        fs::write(certificate.with_extension("ca"), &self.authority).unwrap();
        fs::write(&key, &self.key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&certificate, &self.certificate).unwrap();
        [certificate, key]
    }

    /// The SHA-256 of the certificate.
    pub fn digest(&self) -> Vec<u8> {
        X509::from_pem(&self.certificate).unwrap().digest(MessageDigest::sha256()).unwrap().to_vec()
    }
}
