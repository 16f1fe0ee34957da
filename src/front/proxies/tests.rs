use http::HeaderValue;
use proptest::prelude::*;
use shared::network::NotANetwork;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn proxies(naming: ClientHeader) -> Proxies {
    let networks = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).into();
    Proxies { networks, naming }
}

fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn networks_are_read_strictly() {
    let network = Network::or_address;
    for (text, within, without) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("fd00::/8", "fdff::1", "fe00::1"),
        ("::1", "::1", "::2"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("::/0", "2001:db8::1", "127.0.0.1"),
    ] {
        let network = network(text).unwrap();
        assert!(network.contains(ip(within)) && !network.contains(ip(without)), "{text}");
    }
    for bad in
        ["", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0/8", "example.com", "10.0.0.0/8/8"]
    {
        assert_eq!(network(bad), Err(NotANetwork::Syntax), "{bad}");
    }
    assert_eq!(
        network("10.1.2.3/8").unwrap_err().to_string(),
        "it has bits set after its prefix; write 10.0.0.0/8"
    );
}

/// HTTP-02, RATE-01: the right-most hop that is not trusted, and only if a trusted proxy named it.
#[test]
fn the_client_is_the_nearest_hop_that_is_not_trusted() {
    let proxies = proxies(ClientHeader::XForwardedFor);
    let client = |peer: &str, said: &[&str]| proxies.client(ip(peer), &headers("x-forwarded-for", said));
    for (peer, said, expected) in [
        // A stranger's header is ignored.
        ("192.0.2.9", &["198.51.100.1"][..], "192.0.2.9"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
        // Entries further left were written by an untrusted hop.
        ("10.0.0.1", &["127.0.0.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", &["127.0.0.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", &["203.0.113.5, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        // All are trusted: the farthest.
        ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        // Ports and brackets.
        ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
        // Not an address: the last known one.
        ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &[""], "10.0.0.1"),
        ("10.0.0.1", &["198.51.100.1,"], "10.0.0.1"),
    ] {
        assert_eq!(client(peer, said), ip(expected), "{peer} {said:?}");
    }
    // Only the configured header.
    assert_eq!(proxies.client(ip("10.0.0.1"), &headers("forwarded", &["for=198.51.100.1"])), ip("10.0.0.1"));
    assert_eq!(proxies.client(ip("10.0.0.1"), &headers("x-real-ip", &["198.51.100.1"])), ip("10.0.0.1"));
}

/// HTTP-02: the same for RFC 7239.
#[test]
fn forwarded_is_read_in_the_same_way() {
    let proxies = proxies(ClientHeader::Forwarded);
    let client = |said: &[&str]| proxies.client(ip("10.0.0.1"), &headers("forwarded", said));
    for (said, expected) in [
        (&["for=198.51.100.1"][..], "198.51.100.1"),
        (&["For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1"], "2001:db8::1"),
        (&["for=127.0.0.1, for=198.51.100.1;host=evil, proto=http;for=10.0.0.2"], "198.51.100.1"),
        (&["for=127.0.0.1", "for=198.51.100.1"], "198.51.100.1"),
        (&["for=_hidden"], "10.0.0.1"),
        (&["for=unknown"], "10.0.0.1"),
        (&["proto=https"], "10.0.0.1"),
        (&["for=198.51.100.1;for=198.51.100.2"], "10.0.0.1"),
        (&["for=\"198.51.100.1, for=198.51.100.2\""], "10.0.0.1"),
    ] {
        assert_eq!(client(said), ip(expected), "{said:?}");
    }
    assert_eq!(
        proxies.client(ip("10.0.0.1"), &headers("x-forwarded-for", &["198.51.100.1"])),
        ip("10.0.0.1")
    );
}

/// RATE-01: a warning about a peer is logged once a minute, and the number of peers is limited.
#[test]
fn a_peer_is_complained_about_once_a_minute() {
    let (complaints, begun) = (Complaints::default(), Instant::now());
    let peer = ip("192.0.2.9");
    assert!(complaints.is_new(peer, begun));
    assert!(!complaints.is_new(peer, begun + Duration::from_secs(59)));
    assert!(complaints.is_new(peer, begun + Duration::from_mins(1)));
    for n in 0..10_000u32 {
        complaints.is_new(IpAddr::V4(n.into()), begun + Duration::from_secs(61));
    }
    assert!(complaints.0.lock().unwrap().len() <= MOST_PEERS);
    assert!(complaints.is_new(ip("198.51.100.9"), begun + Duration::from_mins(5)));
}

proptest! {
    /// HTTP-02: whatever a client behind the proxy sends, the proxy's own entry is used.
    #[test]
    fn a_client_cannot_override_the_headers_of_a_proxy(said in "[ -~]{0,80}") {
        let peer = ip("10.0.0.1");
        let chain = format!("{said}, 198.51.100.1");
        let client = proxies(ClientHeader::XForwardedFor).client(peer, &headers("x-forwarded-for", &[&chain]));
        prop_assert_eq!(client, ip("198.51.100.1"));
        let chain = format!("{said}, for=198.51.100.1");
        let client = proxies(ClientHeader::Forwarded).client(peer, &headers("forwarded", &[&chain]));
        prop_assert_eq!(client, ip("198.51.100.1"));
    }
}
