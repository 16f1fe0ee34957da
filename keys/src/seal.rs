//! Sealing at rest (KEYS-05): a key file outside the database, one subkey per purpose (RFC 5869),
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
pub use reseal::{Kept, Pending, Resealed};

const VERSION: u8 = 1;
const ID: usize = 8;
const NONCE: usize = 12;
const TAG: usize = 16;
/// Version and key id: what stands in the clear before the nonce.
const HEADER: usize = 1 + ID;

/// What a subkey is for. Each purpose has its own, so that none can be used in place of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Private signing keys at rest.
    SigningKey,
    /// Refresh tokens that follow from the one before (REFRESH-06).
    RefreshToken,
    /// The tokens that forms carry against forged requests (SESSION-07).
    Csrf,
    /// What the database keeps of a device's user code: so short that a bare digest would tell it (RFC 8628 §6.1).
    UserCode,
    /// What is left of retired signing keys.
    PublicKey,
    /// What is left of the sealing key before this one.
    Earlier,
    /// The private key that signs checkpoints of the audit log.
    CheckpointKey,
}

impl Purpose {
    const ALL: [Self; 7] = [
        Self::SigningKey,
        Self::RefreshToken,
        Self::Csrf,
        Self::UserCode,
        Self::PublicKey,
        Self::Earlier,
        Self::CheckpointKey,
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
        }
    }
}

/// Where the key comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file of ours, which is made if it is missing.
    File(PathBuf),
    /// A file that a service manager hands over: it is never made or changed here, and the manager guards
    /// it, so that its group may read it.
    Credential(PathBuf),
}

impl Source {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Credential(path) => path,
        }
    }
}

/// The opened seal key. Everything is derived once; the key itself is not kept.
pub struct Seal {
    source: Source,
    opened: ArcSwap<Opened>,
}

/// The keys of one moment.
#[derive(Clone)]
struct Opened {
    /// Seals.
    current: Arc<Derived>,
    /// Opens too, while values are sealed anew.
    others: Vec<Arc<Derived>>,
    /// What followed from an earlier key and may still be asked for.
    earlier: Vec<Arc<Kept>>,
}

/// A key, ready for use.
struct Derived {
    id: [u8; ID],
    /// One for each purpose, in their order.
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

    /// What is sealed with it stands under its id.
    fn sealed(&self, blob: &[u8]) -> bool {
        blob.get(1..HEADER) == Some(&self.id)
    }
}

/// Why a blob did not open.
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
    /// Opens the seal key file. A missing one is made if `may_create`: pass `false` once anything
    /// is sealed, because a new key would open none of it.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open_or_create(path: &Path, may_create: bool) -> Result<Self, SealError> {
        Self::open(Source::File(path.to_owned()), may_create)
    }

    /// The same, wherever the key comes from.
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

    /// The key's id: tells two seal keys apart, and is no secret.
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.opened.load().current.id)
    }

    /// Seals a value for one row of one table. It opens nowhere else.
    pub fn seal(&self, purpose: Purpose, table: &str, row: &[u8], plaintext: &[u8]) -> Vec<u8> {
        self.opened.load().current.seal(purpose, table, row, plaintext)
    }

    /// Opens what [`Seal::seal`] sealed for this row.
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

    /// HMAC-SHA-256 (RFC 2104) under the key of a purpose.
    pub fn hmac(&self, purpose: Purpose, message: &[u8]) -> [u8; 32] {
        self.opened.load().current.at(purpose).hmac(message)
    }

    /// The same under the present key and those shortly before it, newest first: to recognise what
    /// followed from one.
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

/// The associated data: the blob's header, and which row it belongs to. Lengths stand in front, so
/// that no other table and row read the same.
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
