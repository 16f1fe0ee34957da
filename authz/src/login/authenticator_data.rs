//! Parses authenticator data (WebAuthn §6.1) strictly: webauthn-rs accepts trailing bytes, reserved bits and
//! repeated map keys.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_cbor_2::Value;

/// The longest credential id in bytes (§7.1, step 25).
pub(crate) const LONGEST_ID: usize = 1023;

const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKUP_STATE: u8 = 1 << 4;
const ATTESTED: u8 = 1 << 6;
const EXTENSIONS: u8 = 1 << 7;
const RESERVED: u8 = 1 << 1 | 1 << 5;

/// The flags of authenticator data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flags(u8);

impl Flags {
    /// The authenticator verified its user by PIN, fingerprint or face.
    pub(crate) fn user_verified(self) -> bool {
        self.0 & USER_VERIFIED != 0
    }

    /// The passkey can be copied to other devices.
    pub(crate) fn backup_eligible(self) -> bool {
        self.0 & BACKUP_ELIGIBLE != 0
    }

    /// The passkey has been copied.
    pub(crate) fn backup_state(self) -> bool {
        self.0 & BACKUP_STATE != 0
    }

    /// Whether the combination is valid: no reserved bit is set, and BS is set only with BE (§6.1.3).
    fn are_possible(self) -> bool {
        self.0 & RESERVED == 0 && (self.backup_eligible() || !self.backup_state())
    }
}

/// A newly created credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Attested {
    /// The authenticator model.
    pub aaguid: [u8; 16],
    pub id: Vec<u8>,
}

/// Complete authenticator data without trailing bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AuthenticatorData {
    pub flags: Flags,
    pub counter: u32,
    pub attested: Option<Attested>,
}

impl AuthenticatorData {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (_rp_id_hash, rest) = bytes.split_at_checked(32)?;
        let (&[flags], rest) = rest.split_first_chunk::<1>()?;
        let (counter, mut rest) = rest.split_first_chunk::<4>()?;
        let flags = Flags(flags);
        if !flags.are_possible() {
            return None;
        }
        let mut attested = None;
        if flags.0 & ATTESTED != 0 {
            let (aaguid, after) = rest.split_first_chunk::<16>()?;
            let (length, after) = after.split_first_chunk::<2>()?;
            let (id, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
            attested = Some(Attested { aaguid: *aaguid, id: id.to_vec() });
            // Skip the public key.
            rest = map(after)?.1;
        }
        if flags.0 & EXTENSIONS != 0 {
            rest = map(rest)?.1;
        }
        rest.is_empty().then(|| Self { flags, counter: u32::from_be_bytes(*counter), attested })
    }
}

/// Extracts the authenticator data from an attestation object (§6.5.4), which must have exactly `fmt`,
/// `attStmt` and `authData`.
pub(crate) fn of_attestation(bytes: &[u8]) -> Option<AuthenticatorData> {
    let (UniqueMap(members), rest) = map(bytes)?;
    let member = |name: &str| {
        let name = Value::Text(name.to_owned());
        members.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let (Value::Text(format), Value::Map(statement), Value::Bytes(data)) =
        (member("fmt")?, member("attStmt")?, member("authData")?)
    else {
        return None;
    };
    // §8.7: the statement of format `none` is empty.
    let says_nothing = format != "none" || statement.is_empty();
    if members.len() == 3 && rest.is_empty() && says_nothing { AuthenticatorData::parse(data) } else { None }
}

/// Splits off the CBOR map at the beginning.
fn map(bytes: &[u8]) -> Option<(UniqueMap, &[u8])> {
    let mut reader = serde_cbor_2::Deserializer::from_slice(bytes);
    let map = UniqueMap::deserialize(&mut reader).ok()?;
    Some((map, bytes.get(reader.byte_offset()..)?))
}

/// A CBOR map without repeated keys.
struct UniqueMap(Vec<(Value, Value)>);

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = UniqueMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<UniqueMap, A::Error> {
                let mut seen: Vec<(Value, Value)> = Vec::new();
                while let Some((key, value)) = entries.next_entry()? {
                    // A public key has five members, and extensions are few. More would make this check
                    // quadratic.
                    if seen.len() == MOST_MEMBERS || seen.iter().any(|(other, _)| *other == key) {
                        return Err(serde::de::Error::custom("a key twice, or too many"));
                    }
                    seen.push((key, value));
                }
                Ok(UniqueMap(seen))
            }
        }
        reader.deserialize_map(Reader)
    }
}

/// The most members of a map.
const MOST_MEMBERS: usize = 32;
