use serde_json::json;

use super::*;

const ORIGIN: &str = "http://localhost:1";

fn text(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

fn client_data(kind: &str, more: &str) -> String {
    format!(r#"{{"type":"{kind}","challenge":"AAAA","origin":"{ORIGIN}"{more}}}"#)
}

/// Authenticator data with these flags and this suffix.
fn data(flags: u8, behind: &[u8]) -> Vec<u8> {
    [&[7; 32][..], &[flags], &[0, 0, 0, 1], behind].concat()
}

fn assertion(client_data: &str, data: &[u8]) -> Value {
    json!({
        "id": "AQI", "rawId": "AQI", "type": "public-key", "extensions": {},
        "response": {
            "clientDataJSON": text(client_data.as_bytes()), "authenticatorData": text(data),
            "signature": "AA", "userHandle": null,
        },
    })
}

fn good() -> Value {
    assertion(&client_data("webauthn.get", ""), &data(0x05, &[]))
}

fn refused(response: &Value) -> Option<Malformed> {
    Assertion::read(ORIGIN, response).err()
}

/// WEBAUTHN-05, WEBAUTHN-06: an assertion is one JSON object with one credential, in base64url without padding.
#[test]
fn an_assertion_is_written_in_one_way() {
    assert_eq!(refused(&good()), None);
    for (at, value) in [
        ("/rawId", json!("AQI=")),
        ("/rawId", json!("AQM")),
        ("/id", json!("AQI=")),
        ("/id", json!(1)),
        ("/type", json!("x")),
        ("/type", json!(null)),
        ("/response", json!([])),
        ("/response/signature", json!("AA==")),
        ("/response/signature", json!("AB")), // bits after the last byte
        ("/response/signature", json!(null)),
        ("/response/userHandle", json!("AA==")),
        ("/response/userHandle", json!(7)),
        ("/extensions", json!([])),
        ("/extensions", json!(null)),
    ] {
        let mut response = good();
        *response.pointer_mut(at).unwrap() = value.clone();
        assert_eq!(refused(&response), Some(Malformed::Response), "{at} {value}");
    }
    for other in [json!([]), json!("x"), json!(null), json!({}), json!([good()])] {
        assert_eq!(refused(&other), Some(Malformed::Response), "{other}");
    }
    let mut more = good();
    more["authenticatorAttachment"] = json!("platform");
    assert_eq!(refused(&more), None, "browsers add members");
}

/// WEBAUTHN-01, WEBAUTHN-05: the client data name our own page, without a frame, over this connection, and have
/// one reading.
#[test]
fn client_data_must_name_our_origin() {
    let of = |text: &str| refused(&assertion(text, &data(0x05, &[])));
    for more in [
        "",
        r#","crossOrigin":false"#,
        r#","tokenBinding":{"status":"supported"}"#,
        r#","other_keys_can_be_added_here":"1""#,
    ] {
        assert_eq!(of(&client_data("webauthn.get", more)), None, "{more}");
    }
    let good = client_data("webauthn.get", "");
    for bad in [
        client_data("webauthn.create", ""),
        client_data("webauthn.get", r#","crossOrigin":true"#),
        client_data("webauthn.get", r#","crossOrigin":null"#),
        client_data("webauthn.get", r#","topOrigin":"http://localhost:1""#),
        client_data("webauthn.get", r#","tokenBinding":{"status":"present","id":"AA"}"#),
        client_data("webauthn.get", r#","tokenBinding":"supported""#),
        client_data("webauthn.get", r#","type":"webauthn.get""#),
        format!("\u{feff}{good}"),
        format!("{good} {good}"),
        format!("[{good}]"),
        good.replace("localhost", "LOCALHOST"),
        good.replace(":1\"", ":1/\""),
        good.replace("AAAA", "AAA="),
        "{}".to_owned(),
        String::new(),
    ] {
        assert_eq!(of(&bad), Some(Malformed::ClientData), "{bad}");
    }
}

/// WEBAUTHN-05: authenticator data of an assertion are complete, hold no credential, and have no trailing
/// bytes.
#[test]
fn authenticator_data_end_where_they_say() {
    let of = |data: &[u8]| refused(&assertion(&client_data("webauthn.get", ""), data));
    let attested = [&[0; 16][..], &[0, 1, 9], &[0xa0]].concat();
    for good in [data(0x05, &[]), data(0x1d, &[]), data(0x85, &[0xa0]), data(0x85, b"\xa1\x61x\xf5")] {
        assert_eq!(of(&good), None, "{good:x?}");
    }
    for bad in [
        data(0x05, &[0]),
        data(0x05, &[0xa0]), // extensions without their bit
        data(0x85, &[]),     // the bit without extensions
        data(0x85, &[0x80]), // not a map
        data(0x85, &[0xa0, 0]),
        data(0x85, b"\xa2\x61x\xf5\x61x\xf4"), // a repeated key
        data(0x45, &attested),
        data(0x45, &[]),
        data(0x07, &[]), // reserved bit
        data(0x25, &[]), // reserved bit
        data(0x15, &[]), // BS without BE
        data(0x05, &[])[..36].to_vec(),
        Vec::new(),
    ] {
        assert_eq!(of(&bad), Some(Malformed::AuthenticatorData), "{bad:x?}");
    }
}

/// An attestation object with these authenticator data.
fn attestation(format: &[u8], statement: &[u8], data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).unwrap();
    [b"\xa3\x63fmt", format, b"\x67attStmt", statement, b"\x68authData\x58", &[length], data].concat()
}

/// WEBAUTHN-05, WEBAUTHN-07: a registration holds exactly one credential, with the id under which it is sent.
#[test]
fn a_registration_holds_one_credential() {
    let of = |object: &[u8]| {
        let client_data = client_data("webauthn.create", "");
        let response =
            json!({"clientDataJSON": text(client_data.as_bytes()), "attestationObject": text(object)});
        let sent = json!({"id": "AQI", "rawId": "AQI", "type": "public-key", "response": response});
        Registration::read(ORIGIN, &sent).err()
    };
    let credential = |id: [u8; 2], key: &[u8]| [&[0; 16][..], &[0, 2], &id, key].concat();
    let whole = data(0x45, &credential([1, 2], b"\xa1\x01\x02"));
    let none = b"\x64none";
    let good = attestation(none, b"\xa0", &whole);
    assert_eq!(of(&good), None);
    for bad in [
        attestation(none, b"\xa0", &data(0x45, &credential([1, 3], b"\xa1\x01\x02"))),
        attestation(none, b"\xa0", &data(0x45, &credential([1, 2], b"\xa2\x01\x02\x01\x02"))),
        attestation(none, b"\xa0", &data(0x45, &credential([1, 2], b""))),
        attestation(none, b"\xa0", &[&whole[..], &[0]].concat()),
        attestation(none, b"\xa0", &data(0x05, &[])),
        attestation(none, b"\xa1\x61x\xf5", &whole),
        [&good[..], &[0]].concat(),
        [b"\x83", &good[1..]].concat(),
        b"\xa0".to_vec(),
        Vec::new(),
    ] {
        assert_eq!(of(&bad), Some(Malformed::AuthenticatorData), "{bad:x?}");
    }
}
