//! What no registration brings in: keys that anybody can sign for, piles of marks, bodies of two types.

use reqwest::StatusCode;
use serde_json::json;

use super::{public, registered};
use crate::harness::{TestApp, error_of};

/// CAUTH-06: a point of small order is refused as a key: everybody can sign for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_anybody_can_sign_for_is_refused() {
    let app = TestApp::start().await;
    let set = |first: u8| {
        let mut point = [0; 32];
        point[0] = first;
        let x = data_encoding::BASE64URL_NOPAD.encode(&point);
        json!({
            "redirect_uris": ["http://localhost/callback"], "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]},
        })
    };
    for first in [0, 1] {
        let refused = error_of(app.register(&set(first)).await).await;
        assert_eq!(refused, (StatusCode::BAD_REQUEST, "invalid_client_metadata".to_owned()));
    }
    assert_eq!(app.register(&set(2)).await.status(), 201);
}

/// DCR-13: marks that would cover the lines around a name are left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_carries_few_marks() {
    let app = TestApp::start().await;
    let mut metadata = public();
    metadata["client_name"] = json!(format!("e{}", "\u{323}\u{301}".repeat(120)));
    let name = registered(&app, &metadata).await["client_name"].as_str().unwrap().to_owned();
    assert!(name.chars().count() <= 5, "{name:?}");
}

/// Of two types of one body readers could take either.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_one_type() {
    let app = TestApp::start().await;
    for path in ["/register", "/token"] {
        let types = ["application/json", "application/x-www-form-urlencoded"];
        let post = |order: [usize; 2]| {
            let request = app.http.post(app.url(path)).body("{}");
            let request = request.header("content-type", types[order[0]]);
            request.header("content-type", types[order[1]]).send()
        };
        for order in [[0, 1], [1, 0], [0, 0], [1, 1]] {
            assert_eq!(post(order).await.unwrap().status(), StatusCode::BAD_REQUEST, "{path} {order:?}");
        }
    }
}
