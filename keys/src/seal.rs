//! Sealing at rest (KEYS-05): a key file outside the database, one subkey per purpose (RFC 5869), and
//! AES-256-GCM blobs that are bound to their row.

mod file;
mod reseal;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::md::Md;
use openssl::pkey::{Id, PKey, Private};
use openssl::pkey_ctx::PkeyCtx;
use openssl::sign::Signer;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use shared::secret::random;
use zeroize::Zeroizing;

use crate::jwt::CryptoFailed;
pub use file::SealError;
use file::SealKey;
pub use reseal::{KeptSubkeys, Pending, Resealed};

const VERSION: u8 = 1;
const ID: usize = 8;
const NONCE: usize = 12;
const TAG: usize = 16;
/// Version and key id: the unencrypted bytes before the nonce.
const HEADER: usize = 1 + ID;

/// The purpose of a subkey. Each has its own, so that none can be used in place of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Private signing keys at rest.
    SigningKey,
    /// Refresh tokens derived from their predecessor (REFRESH-06).
    RefreshToken,
    /// CSRF tokens of forms (SESSION-07).
    Csrf,
    /// Digests of user codes, which are too short for a plain digest (RFC 8628 §6.1).
    UserCode,
    /// Public halves of retired signing keys.
    PublicKey,
    /// Subkeys that are kept of an earlier sealing key.
    Earlier,
    /// The private key that signs checkpoints of the audit log.
    CheckpointKey,
    /// What servers behind the gate are shown (SRC-10).
    Secret,
}

impl Purpose {
    const ALL: [Self; 8] = [
        Self::SigningKey,
        Self::RefreshToken,
        Self::Csrf,
        Self::UserCode,
        Self::PublicKey,
        Self::Earlier,
        Self::CheckpointKey,
        Self::Secret,
    ];

    /// `info` of HKDF (RFC 5869 §2.3). Never change one: what it sealed would not open again.
    fn info(self) -> &'static [u8] {
        match self {
            Self::SigningKey => b"portcullis seal v1 signing-key",
            Self::RefreshToken => b"portcullis seal v1 refresh-token",
            Self::Csrf => b"portcullis seal v1 csrf",
            Self::UserCode => b"portcullis seal v1 user-code",
            Self::PublicKey => b"portcullis seal v1 public-key",
            Self::Earlier => b"portcullis seal v1 earlier",
            Self::CheckpointKey => b"portcullis seal v1 checkpoint-key",
            Self::Secret => b"portcullis seal v1 secret",
        }
    }
}

/// Where the sealing key is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file of ours, which is created if it is missing.
    File(PathBuf),
    /// A credential file from a service manager. It is never created or changed here; the manager protects it,
    /// so its group may read it.
    Credential(PathBuf),
}

impl Source {
    /// The path of the file.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Credential(path) => path,
        }
    }
}

/// The opened sealing key. All subkeys are derived once; the key itself is not kept.
pub struct Seal {
    source: Source,
    opened: ArcSwap<Opened>,
}

/// The keys at one moment.
#[derive(Clone)]
struct Opened {
    /// The key that seals.
    current: Arc<Derived>,
    /// Further keys that unseal while a reseal is in progress.
    others: Vec<Arc<Derived>>,
    /// HMAC subkeys of earlier keys, for values that may still be presented.
    earlier: Vec<Arc<KeptSubkeys>>,
}

/// A sealing key's derived subkeys.
struct Derived {
    id: [u8; ID],
    /// One subkey for each purpose, in their order.
    subkeys: Vec<Subkey>,
}

struct Subkey {
    bytes: Zeroizing<[u8; 32]>,
    mac: PKey<Private>,
}

impl Subkey {
    fn of(bytes: Zeroizing<[u8; 32]>) -> Result<Self, ErrorStack> {
        Ok(Self { mac: PKey::hmac(&bytes[..])?, bytes })
    }

    /// HMAC-SHA-256 (RFC 2104).
    fn hmac(&self, message: &[u8]) -> [u8; 32] {
        let mut mac = [0; 32];
        Signer::new(MessageDigest::sha256(), &self.mac)
            .and_then(|mut signer| signer.sign_oneshot(&mut mac, message))
            .expect("HMAC-SHA-256 takes any message and gives 32 bytes");
        mac
    }
}

impl Derived {
    fn of(key: &SealKey) -> Result<Self, ErrorStack> {
        let subkey = |purpose: Purpose| Subkey::of(hkdf(&key.secret[..], &key.id, purpose.info())?);
        let subkeys = Purpose::ALL.into_iter().map(subkey).collect::<Result<_, _>>()?;
        Ok(Self { id: key.id, subkeys })
    }

    fn at(&self, purpose: Purpose) -> &Subkey {
        &self.subkeys[purpose as usize]
    }

    /// Whether this key sealed the blob, by its key id.
    fn sealed(&self, blob: &[u8]) -> bool {
        blob.get(1..HEADER) == Some(&self.id)
    }
}

/// Why a blob could not be unsealed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsealable {
    #[error("it is not a sealed value")]
    Malformed,
    #[error("it was sealed with seal key {sealed_with}, and this one is {ours}")]
    OtherKey { sealed_with: String, ours: String },
    #[error("it was changed, moved from another row, or sealed with another key that has the same id")]
    Forged,
}

impl Seal {
    /// Opens the sealing key file. Creates a missing one if `may_create`; pass `false` once anything is sealed,
    /// because a new key could not unseal it.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open_or_create(path: &Path, may_create: bool) -> Result<Self, SealError> {
        Self::open(Source::File(path.to_owned()), may_create)
    }

    /// Opens the sealing key from any source.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open(source: Source, may_create: bool) -> Result<Self, SealError> {
        let mut keys = match &source {
            Source::File(path) => file::open_or_create(path, may_create)?,
            Source::Credential(path) => file::open_credential(path)?,
        };
        let current = keys.pop().ok_or_else(|| SealError::Malformed(source.path().to_owned()))?;
        let others = keys.iter().map(derive).collect::<Result<_, _>>()?;
        let opened = Opened { current: derive(&current)?, others, earlier: Vec::new() };
        Ok(Self { source, opened: ArcSwap::from_pointee(opened) })
    }

    /// The key's id, which is not secret.
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.opened.load().current.id)
    }

    /// Seals a value for one row of one table. It cannot be unsealed for another.
    pub fn seal(&self, purpose: Purpose, table: &str, row: &[u8], plaintext: &[u8]) -> Vec<u8> {
        self.opened.load().current.seal(purpose, table, row, plaintext)
    }

    /// Unseals what [`Seal::seal`] sealed for this row.
    ///
    /// # Errors
    /// See [`Unsealable`].
    pub fn unseal(
        &self,
        purpose: Purpose,
        table: &str,
        row: &[u8],
        blob: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let opened = self.opened.load();
        let others = opened.others.iter().find(|other| other.sealed(blob));
        others.unwrap_or(&opened.current).unseal(purpose, table, row, blob)
    }

    /// HMAC-SHA-256 (RFC 2104) with the subkey of a purpose.
    pub fn hmac(&self, purpose: Purpose, message: &[u8]) -> [u8; 32] {
        self.opened.load().current.at(purpose).hmac(message)
    }

    /// HMACs with the current key and recent earlier ones, newest first, to recognise values made with one of
    /// them.
    pub fn hmacs(&self, purpose: Purpose, message: &[u8]) -> Vec<[u8; 32]> {
        let opened = self.opened.load();
        let earlier = opened.earlier.iter().filter_map(|kept| kept.hmac(purpose, message));
        std::iter::once(opened.current.at(purpose).hmac(message)).chain(earlier).collect()
    }
}

fn derive(key: &SealKey) -> Result<Arc<Derived>, SealError> {
    Derived::of(key).map(Arc::new).map_err(|e| SealError::Crypto(CryptoFailed::from(e)))
}

impl Derived {
    fn seal(&self, purpose: Purpose, table: &str, row: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut blob = Vec::with_capacity(HEADER + NONCE + plaintext.len() + TAG);
        blob.push(VERSION);
        blob.extend_from_slice(&self.id);
        let bound = bound_to(&blob, table, row);
        let nonce = random::<NONCE>();
        let mut tag = [0; TAG];
        let key = &self.at(purpose).bytes[..];
        let ciphertext = encrypt_aead(Cipher::aes_256_gcm(), key, Some(&nonce), &bound, plaintext, &mut tag)
            .expect("AES-256-GCM takes any text under a key and nonce of the right sizes");
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(&ciphertext);
        blob.extend_from_slice(&tag);
        blob
    }

    fn unseal(
        &self,
        purpose: Purpose,
        table: &str,
        row: &[u8],
        blob: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let (header, rest) = blob.split_at_checked(HEADER).ok_or(Unsealable::Malformed)?;
        let (nonce, rest) = rest.split_at_checked(NONCE).ok_or(Unsealable::Malformed)?;
        let length = rest.len().checked_sub(TAG).ok_or(Unsealable::Malformed)?;
        let (ciphertext, tag) = rest.split_at(length);
        if header[0] != VERSION {
            return Err(Unsealable::Malformed);
        }
        if header[1..] != self.id {
            let sealed_with = HEXLOWER.encode(&header[1..]);
            return Err(Unsealable::OtherKey { sealed_with, ours: HEXLOWER.encode(&self.id) });
        }
        let key = &self.at(purpose).bytes[..];
        let bound = bound_to(header, table, row);
        decrypt_aead(Cipher::aes_256_gcm(), key, Some(nonce), &bound, ciphertext, tag)
            .map(Zeroizing::new)
            .map_err(|_| Unsealable::Forged)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal({})", self.id())
    }
}

/// The associated data: the blob's header, table and row. Length prefixes make it unambiguous.
fn bound_to(header: &[u8], table: &str, row: &[u8]) -> Vec<u8> {
    let mut bound = header.to_vec();
    for part in [table.as_bytes(), row] {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part);
    }
    bound
}

/// HKDF-SHA-256, extract and expand (RFC 5869 §2).
fn hkdf(secret: &[u8], salt: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; 32]>, ErrorStack> {
    let mut derived = Zeroizing::new([0; 32]);
    let mut context = PkeyCtx::new_id(Id::HKDF)?;
    context.derive_init()?;
    context.set_hkdf_md(Md::sha256())?;
    context.set_hkdf_key(secret)?;
    context.set_hkdf_salt(salt)?;
    context.add_hkdf_info(info)?;
    context.derive(Some(&mut derived[..]))?;
    Ok(derived)
}

#[cfg(test)]
mod tests;
