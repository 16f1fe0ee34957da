use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const PURPOSE: Purpose = Purpose::SigningKey;

fn seal() -> Seal {
    Seal::open_or_create(&tempfile::tempdir().unwrap().path().join("seal.key"), true).unwrap()
}

/// RFC 5869 appendix A.1, its first 32 bytes.
#[test]
fn hkdf_gives_what_the_rfc_gives() {
    let salt: Vec<u8> = (0x00..=0x0c).collect();
    let info: Vec<u8> = (0xf0..=0xf9).collect();
    let derived = hkdf(&[0x0b; 22], &salt, &info).unwrap();
    let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf";
    assert_eq!(HEXLOWER.encode(&derived[..]), expected);
}

/// RFC 4231 §4.3: HMAC-SHA-256, test case 2.
#[test]
fn hmac_gives_what_the_rfc_gives() {
    let subkey = Subkey { bytes: Zeroizing::new([0; 32]), mac: PKey::hmac(b"Jefe").unwrap() };
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(HEXLOWER.encode(&subkey.hmac(b"what do ya want for nothing?")), expected);
}

/// KEYS-05: a sealed value can be unsealed, also after a restart, and two seals of the same value differ.
#[test]
fn a_sealed_value_opens_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    let seal = Seal::open_or_create(&path, true).unwrap();
    let blob = seal.seal(PURPOSE, "table", b"row", b"text");
    assert_ne!(blob, seal.seal(PURPOSE, "table", b"row", b"text"));
    assert_eq!(blob.len(), HEADER + NONCE + 4 + TAG);
    let again = Seal::open_or_create(&path, false).unwrap();
    assert_eq!(again.unseal(PURPOSE, "table", b"row", &blob).unwrap().as_slice(), b"text");
    assert_eq!(again.hmac(PURPOSE, b"x"), seal.hmac(PURPOSE, b"x"));
    let empty = seal.seal(PURPOSE, "table", b"", b"");
    assert!(seal.unseal(PURPOSE, "table", b"", &empty).unwrap().is_empty());
}

/// KEYS-05: another row, table or purpose, or a shifted boundary between them, unseals nothing.
#[test]
fn a_sealed_value_opens_nowhere_else() {
    let seal = seal();
    let blob = seal.seal(PURPOSE, "table", b"row", b"text");
    for (purpose, table, row) in [
        (PURPOSE, "table", &b"other"[..]),
        (PURPOSE, "other", b"row"),
        (PURPOSE, "tabler", b"ow"),
        (PURPOSE, "", b"tablerow"),
        (Purpose::RefreshToken, "table", b"row"),
    ] {
        assert_eq!(seal.unseal(purpose, table, row, &blob), Err(Unsealable::Forged), "{purpose:?} {table}");
    }
    let other = self::seal();
    let refused = other.unseal(PURPOSE, "table", b"row", &blob).unwrap_err();
    assert_eq!(refused, Unsealable::OtherKey { sealed_with: seal.id(), ours: other.id() });
}

/// KEYS-05: a changed or shortened blob cannot be unsealed.
#[test]
fn a_changed_blob_does_not_open() {
    let seal = seal();
    let blob = seal.seal(PURPOSE, "table", b"row", b"text");
    for at in 0..blob.len() {
        let mut changed = blob.clone();
        changed[at] ^= 1;
        assert!(seal.unseal(PURPOSE, "table", b"row", &changed).is_err(), "byte {at}");
        assert!(seal.unseal(PURPOSE, "table", b"row", &blob[..at]).is_err(), "length {at}");
    }
}

/// KEYS-05: one subkey per purpose.
#[test]
fn purposes_share_no_key() {
    let key = SealKey { id: [7; ID], secret: Zeroizing::new([9; 32]) };
    let key = Derived::of(&key).unwrap();
    let subkey = |purpose| key.at(purpose).bytes.clone();
    for purpose in Purpose::ALL {
        assert_eq!(subkey(purpose), hkdf(&[9; 32], &[7; ID], purpose.info()).unwrap(), "{purpose:?}");
    }
    assert_ne!(subkey(PURPOSE), subkey(Purpose::RefreshToken));
    assert_ne!(key.at(PURPOSE).hmac(b"x"), key.at(Purpose::RefreshToken).hmac(b"x"));
}

/// KEYS-05: a new file is private and alone in its directory.
#[test]
fn a_new_seal_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    let seal = Seal::open_or_create(&path, true).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(Seal::open_or_create(&path, true).unwrap().id(), seal.id());
    assert_ne!(self::seal().id(), seal.id());
}

/// KEYS-05: wider permissions are refused, and the message says how to fix them.
#[test]
fn a_seal_key_open_to_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    Seal::open_or_create(&path, true).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o620, 0o610] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = Seal::open_or_create(&path, true).unwrap_err();
        assert!(matches!(refused, SealError::Permissions(..)));
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    Seal::open_or_create(&path, true).unwrap();
}

/// KEYS-05: a missing sealing key is created only while nothing is sealed.
#[test]
fn a_lost_seal_key_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    let refused = Seal::open_or_create(&path, false).unwrap_err();
    assert!(refused.to_string().contains("put it back"), "{refused}");
    assert!(!path.exists());
    let nowhere = dir.path().join("no/seal.key");
    assert!(matches!(Seal::open_or_create(&nowhere, true), Err(SealError::Unwritable(..))));
}

/// KEYS-05: a file in another format is refused and never overwritten.
#[test]
fn a_malformed_seal_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    Seal::open_or_create(&path, true).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let (header, secret) = good.trim_end().split_once('\n').unwrap();
    for bad in [
        String::new(),
        "\n".to_owned(),
        header.to_owned(),
        good.trim_end().to_owned(),
        format!("{good}\n"),
        format!("{good}{good}"),
        format!("{good}{good}{good}{good}"),
        good.replace("v1", "v2"),
        good.to_uppercase(),
        format!("{header}\n{}\n", &secret[1..]),
        format!("{header}\n{secret}A\n"),
        format!("{header}\n{}+\n", &secret[..42]),
        format!("{}\n{secret}\n", &header[..header.len() - 2]),
    ] {
        fs::write(&path, &bad).unwrap();
        let refused = Seal::open_or_create(&path, true).unwrap_err();
        assert!(matches!(refused, SealError::Malformed(_)), "{bad:?}: {refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
    assert!(matches!(Seal::open_or_create(dir.path(), true), Err(SealError::Malformed(_))));
}

/// KEYS-05: a file of another user, and a credential readable by all users, are refused; a credential readable
/// by its group is accepted.
#[test]
fn a_credential_may_be_read_by_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seal.key");
    let id = Seal::open_or_create(&path, true).unwrap().id();
    let credential = || Seal::open(Source::Credential(path.clone()), true);
    for (mode, good) in [(0o440, true), (0o400, true), (0o600, true), (0o444, false), (0o460, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(credential().map(|seal| seal.id()).ok(), good.then(|| id.clone()), "{mode:o}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(credential(), Err(SealError::Missing(_))));
    assert!(!path.exists());
}
