//! What a browser calls itself, for people (SESSION-06): "Firefox on Linux", from its `User-Agent` header. Any program can
//! claim anything in that header, so only the words of the two tables below are stored and shown.

use http::{HeaderMap, header};
use memchr::memmem;

/// The number of bytes of the header that are read; browsers send fewer than 200.
const READ: usize = 512;

/// Browsers by what their header contains. Most also claim to be Chrome or Safari, so these come last.
const BROWSERS: [(&str, &str); 15] = [
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("OPR/", "Opera"),
    ("Vivaldi/", "Vivaldi"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("HeadlessChrome/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Epiphany/", "GNOME Web"),
    ("Safari/", "Safari"),
];

/// Systems by what the header contains. An iPhone also claims to be a Mac, and Android to be Linux.
const SYSTEMS: [(&str, &str); 10] = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("Mac OS X", "macOS"),
    ("FreeBSD", "FreeBSD"),
    ("OpenBSD", "OpenBSD"),
    ("Linux", "Linux"),
];

/// The name of the browser that sent these headers; `None` if it says neither its name nor its system.
pub(crate) fn name(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::USER_AGENT)?.as_bytes();
    let text = &text[..text.len().min(READ)];
    let find = |table: &[(&str, &'static str)]| {
        table.iter().find(|(part, _)| memmem::find(text, part.as_bytes()).is_some()).map(|(_, name)| *name)
    };
    match (find(&BROWSERS), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => Some(format!("{browser} on {system}")),
        (Some(browser), None) => Some(browser.to_owned()),
        (None, Some(system)) => Some(format!("A browser on {system}")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn named(text: &[u8]) -> Option<String> {
        let value = HeaderValue::from_bytes(text).unwrap();
        name(&[(header::USER_AGENT, value)].into_iter().collect())
    }

    /// SESSION-06: common browsers are recognised, although each claims to be several others.
    #[test]
    fn browsers_are_named_by_their_header() {
        for (text, expected) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
                "Chrome on Windows",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
                "Safari on macOS",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0.7444.77 Mobile/15E148 Safari/604.1",
                "Chrome on iPhone",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
                "Samsung Internet on Android",
            ),
            ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) Chrome/142.0.0.0 Safari/537.36", "Chrome on ChromeOS"),
            ("Firefox/145.0", "Firefox"),
            ("Mozilla/5.0 (X11; Linux x86_64)", "A browser on Linux"),
        ] {
            assert_eq!(named(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
    }

    /// SESSION-06, RATE-05: nothing of the header is shown but the words of the tables, whatever it contains; only its
    /// beginning is read.
    #[test]
    fn a_header_never_becomes_a_name() {
        for nothing in
            [&b"curl/8.14.1"[..], b"", b"<b>Ada</b> on her laptop", b"\xff\xfe", b"firefox/145 linux"]
        {
            assert_eq!(named(nothing), None, "{nothing:?}");
        }
        assert_eq!(
            named(b"<script>Firefox/</script> Linux \xe2\x80\xae").as_deref(),
            Some("Firefox on Linux")
        );
        assert_eq!(named(format!("{}Firefox/145.0", "x".repeat(READ)).as_bytes()), None);
        assert_eq!(name(&HeaderMap::new()), None);
        let longest = |table: &[(&str, &str)]| table.iter().map(|(_, name)| name.len()).max().unwrap();
        assert!(longest(&BROWSERS) + " on ".len() + longest(&SYSTEMS) <= 64, "a name fits a passkey's label");
    }
}
