//! Parses one head: whether it is complete and unambiguous, and the length of the following body (RFC 9112
//! §6.3).

use std::mem::MaybeUninit;

use http::{Method, StatusCode, Uri};

use super::BadHead;

/// The longest request target in bytes (standards §1).
pub(crate) const LONGEST_TARGET: usize = 8 * 1024;
/// The most bytes of a request's headers, and their number.
pub(crate) const MOST_HEADERS: usize = 100;
pub(crate) const LARGEST_HEADERS: usize = 16 * 1024;
/// The most bytes of a head: target and headers, with room for method and version.
pub(crate) const LARGEST_HEAD: usize = LONGEST_TARGET + LARGEST_HEADERS + 64;

/// What a buffer begins with.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Found {
    Nothing,
    Incomplete,
    Head { length: usize, body: Body },
}

/// How the end of a body is found.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Body {
    Length(u64),
    Chunked,
}

/// The state of a head's scan, so that no byte is scanned twice.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The length of the empty line before the head, which some clients send after a body (RFC 9112 §2.2).
    empty: usize,
    at: usize,
    /// Where the line with `at` begins.
    line: usize,
    /// Where the first line ends.
    first: Option<usize>,
}

impl Scan {
    /// Looks for a head at the beginning of the buffer. Call it again with more bytes.
    pub(super) fn find(&mut self, held: &[u8]) -> Result<Found, BadHead> {
        if self.at == 0 && held.starts_with(b"\r\n") {
            *self = Self { empty: 2, at: 2, line: 2, first: None };
        }
        let end = self.end(held)?;
        let so_far = end.unwrap_or(held.len());
        self.check_size(&held[..so_far])?;
        match end {
            Some(end) => Ok(Found::Head { length: end, body: read(&held[self.empty..end])? }),
            None if held.len() == self.empty => Ok(Found::Nothing),
            None => Ok(Found::Incomplete),
        }
    }

    /// The end of the head. Lines end with CR LF: parsers disagree about a bare LF or CR.
    fn end(&mut self, held: &[u8]) -> Result<Option<usize>, BadHead> {
        while let Some(found) = memchr::memchr2(b'\r', b'\n', &held[self.at..]) {
            let (line, at) = (self.line, self.at + found);
            match (held[at], held.get(at + 1)) {
                (b'\r', Some(b'\n')) => {}
                (b'\r', None) => {
                    self.at = at;
                    return Ok(None);
                }
                _ => return Err(MALFORMED),
            }
            (self.line, self.at) = (at + 2, at + 2);
            if at == line {
                return Ok(Some(self.at));
            }
            self.first.get_or_insert(self.at);
        }
        self.at = held.len();
        Ok(None)
    }

    fn check_size(&self, lines: &[u8]) -> Result<(), BadHead> {
        let first = self.first.unwrap_or(lines.len());
        if first - self.empty > LONGEST_TARGET {
            let target = lines[self.empty..first].split(|b| *b == b' ').nth(1).unwrap_or_default();
            if target.len() > LONGEST_TARGET {
                return Err(BadHead::new(
                    StatusCode::URI_TOO_LONG,
                    "the request target is longer than 8 KiB",
                ));
            }
            if first - self.empty > LONGEST_TARGET + 64 {
                return Err(MALFORMED);
            }
        }
        if lines.len() - first > LARGEST_HEADERS { Err(HEADERS_TOO_LARGE) } else { Ok(()) }
    }
}

const MALFORMED: BadHead = BadHead::MALFORMED;
const HEADERS_TOO_LARGE: BadHead = BadHead::new(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "the headers are larger than 16 KiB, or more than 100",
);

/// How the body of a complete head ends. Uses hyper's own parser, so that hyper does not refuse what was
/// accepted here.
fn read(lines: &[u8]) -> Result<Body, BadHead> {
    let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(lines, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length == lines.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(HEADERS_TOO_LARGE),
        _ => return Err(MALFORMED),
    }
    let method = request.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    // RFC 9112 §3.2: a target has no fragment, which the parser would silently drop.
    let target = request.path.filter(|path| !path.contains('#')).and_then(|path| path.parse::<Uri>().ok());
    let (Some(_), Some(_), Some(version)) = (method, target, request.version) else { return Err(MALFORMED) };
    let mut framing = Framing::default();
    for field in request.headers.iter() {
        // What the parser accepts as a name or a value is one: see `names_and_values_are_as_the_parser_has_them`.
        if field.name.eq_ignore_ascii_case("content-length") {
            framing.length(field.value)?;
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            framing.encoding(field.value, version)?;
        }
    }
    framing.body()
}

/// The headers about the body, each at most once.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    fn length(&mut self, value: &[u8]) -> Result<(), BadHead> {
        const BAD: BadHead =
            BadHead::new(StatusCode::BAD_REQUEST, "Content-Length is not a number, or there are two");
        // hyper uses the largest values for itself.
        const MOST: u64 = u64::MAX >> 1;
        // Digits only: no sign and no list, not even of equal values.
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let length =
            digits.and_then(|digits| digits.parse().ok()).filter(|length| *length <= MOST).ok_or(BAD)?;
        if self.length.replace(length).is_some() { Err(BAD) } else { Ok(()) }
    }

    fn encoding(&mut self, value: &[u8], version: u8) -> Result<(), BadHead> {
        if !value.eq_ignore_ascii_case(b"chunked") || self.chunked || version == 0 {
            let words = "Transfer-Encoding must be chunked, once, and only in HTTP/1.1";
            return Err(BadHead::new(StatusCode::BAD_REQUEST, words));
        }
        self.chunked = true;
        Ok(())
    }

    fn body(&self) -> Result<Body, BadHead> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(BadHead::new(
                StatusCode::BAD_REQUEST,
                "Content-Length and Transfer-Encoding cannot be combined",
            )),
            (None, true) => Ok(Body::Chunked),
            (length, false) => Ok(Body::Length(length.unwrap_or(0))),
        }
    }
}
