use super::*;

/// HTTP-03
#[test]
fn only_plain_paths_pass() {
    assert!(is_plain_path("/authorize") && is_plain_path("/.well-known/oauth-protected-resource/mcp"));
    for odd in ["//evil", "/a;b", "/a/../b", "/a/./b", "/a%2fb", "/a%5Cb", "/a%00", "/%2e%2e/", "/a\\b"] {
        assert!(!is_plain_path(odd), "{odd}");
    }
}
