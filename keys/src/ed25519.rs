//! Which public keys of Ed25519 are of use (RFC 8032 §5.1). The library checks a signature with any of them, and for a point
//! of small order everybody can make signatures that it accepts, without a private key.

use data_encoding::BASE64URL_NOPAD;

/// p = 2^255 - 19, the least significant byte first, as keys are written.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    (p[0], p[31]) = (0xed, 0x7f);
    p
};

/// The y coordinates of the points whose order divides 8: 0, 1 and p - 1, and those of order 8.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut last = P;
        last[0] = 0xec;
        last
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// Whether this `x` of a JWK (RFC 8037 §2) is a key that only the holder of a private key can sign for: written in the one
/// way that there is for it, and not a point of small order.
pub(crate) fn is_sound(x: &str) -> bool {
    let Ok(bytes) = BASE64URL_NOPAD.decode(x.as_bytes()) else { return false };
    let Ok(mut y) = <[u8; 32]>::try_from(bytes) else { return false };
    // The highest bit is the sign of the other coordinate.
    y[31] &= 0x7f;
    y.iter().rev().lt(P.iter().rev()) && !SMALL_ORDER.contains(&y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(hex: &str) -> bool {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        is_sound(&BASE64URL_NOPAD.encode(&bytes))
    }

    /// CAUTH-06: every encoding of a point of small order, canonical or not, with either sign, is refused.
    #[test]
    fn points_of_small_order_are_refused_as_keys() {
        for y in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut key = y;
                key[31] |= sign;
                assert!(!is_sound(&BASE64URL_NOPAD.encode(&key)), "{key:?}");
            }
        }
        // p and p + 1 are other ways to write 0 and 1.
        for first in [0xed, 0xee, 0xff] {
            for sign in [0x7f, 0xff] {
                let mut key = P;
                (key[0], key[31]) = (first, sign);
                assert!(!is_sound(&BASE64URL_NOPAD.encode(&key)), "{key:?}");
            }
        }
    }

    /// RFC 8032 §7.1 and RFC 8037 A.2: real keys are keys; what is not 32 bytes in base64url is none.
    #[test]
    fn real_keys_are_accepted() {
        assert!(is_sound("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
        assert!(sound("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"));
        assert!(sound("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"));
        for bad in [
            "",
            "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp",
            "AQ",
        ] {
            assert!(!is_sound(bad), "{bad}");
        }
    }
}
