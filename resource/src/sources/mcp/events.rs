//! A bounded parser of event streams (`text/event-stream`) (SRC-12).

use std::time::Duration;

use shared::outbound::make_room;

/// The longest pause before reconnecting.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// The longest event id in bytes.
const LONGEST_ID: usize = 1024;

/// The state of a stream's parser.
#[derive(Debug)]
pub(super) struct Events {
    most: usize,
    line: Vec<u8>,
    after_cr: bool,
    begun: bool,
    data: Option<Vec<u8>>,
    other_kind: bool,
    /// The last event's id, for resuming.
    pub(super) last_id: Option<String>,
    /// The pause that the server requests before reconnecting.
    pub(super) retry: Option<Duration>,
}

/// An event exceeds the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong(pub(super) usize);

impl Events {
    /// A stream whose events have at most this many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            line: Vec::new(),
            after_cr: false,
            begun: false,
            data: None,
            other_kind: false,
            last_id: None,
            retry: None,
        }
    }

    /// Continues on another connection: an incomplete event is dropped.
    pub(super) fn reconnected(&mut self) {
        self.line.clear();
        (self.after_cr, self.begun, self.data, self.other_kind) = (false, false, None, false);
    }

    /// Parses the next bytes; returns the data of completed events.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut events = Vec::new();
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let more = &bytes[..end.unwrap_or(bytes.len())];
            let held = self.held() + more.len();
            if held > self.most {
                return Err(TooLong(held));
            }
            make_room(&mut self.line, more.len(), self.most);
            self.line.extend_from_slice(more);
            let Some(end) = end else { break };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            events.extend(self.line_ended());
        }
        Ok(events)
    }

    /// How many bytes it holds.
    pub(super) fn held(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, Vec::len)
    }

    fn line_ended(&mut self) -> Option<Vec<u8>> {
        let mut whole = std::mem::take(&mut self.line);
        let mut line = whole.as_slice();
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            let data = self.data.take();
            // Only events without a type, or of type `message`, are MCP's.
            return data.filter(|_| !std::mem::take(&mut self.other_kind)).filter(|data| !data.is_empty());
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                // The line's own memory is kept, so that a large event is held once.
                none => {
                    let before = whole.len() - value.len();
                    whole.drain(..before);
                    *none = Some(whole);
                }
            },
            b"event" => self.other_kind = !value.is_empty() && value != b"message",
            b"id" => {
                let id = std::str::from_utf8(value).ok().filter(|id| id.len() <= LONGEST_ID);
                if let Some(id) = id.filter(|id| !id.contains('\0')) {
                    self.last_id = (!id.is_empty()).then(|| id.to_owned());
                }
            }
            b"retry" => {
                let digits =
                    std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
                if let Some(wait) = digits.and_then(|digits| digits.parse().ok()) {
                    self.retry = Some(Duration::from_millis(wait).min(LONGEST_RETRY));
                }
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(stream: &[u8], step: usize) -> Vec<String> {
        let mut events = Events::new(100);
        let fed = stream.chunks(step).flat_map(|chunk| events.feed(chunk).unwrap());
        fed.map(|data| String::from_utf8(data).unwrap()).collect()
    }

    /// SRC-12: the rules of the format (WHATWG HTML, server-sent events), with any split of the bytes.
    #[test]
    fn a_stream_is_read_in_pieces() {
        let stream = b"\xef\xbb\xbf: hello\r\ndata: a\r\ndata:b\r\n\r\nevent: other\ndata: no\n\nevent: message\rdata:  c\r\rdata\n\nid: 7\n\ndata: half";
        for step in 1..stream.len() {
            assert_eq!(read(stream, step), ["a\nb", " c"], "{step}");
        }
        let mut events = Events::new(100);
        let _ = events.feed(b"id: 7\nretry: 250\ndata: x\n\ndata: half").unwrap();
        assert_eq!((events.last_id.as_deref(), events.retry), (Some("7"), Some(Duration::from_millis(250))));
        events.reconnected();
        assert_eq!(events.feed(b"data: y\n\n").unwrap(), [b"y".to_vec()]);
        for odd in ["id: a\0b", "retry: -1", "retry: soon", "retry: 99999999999999999999"] {
            let _ = events.feed(format!("{odd}\n\n").as_bytes()).unwrap();
            assert_eq!(events.last_id.as_deref(), Some("7"), "{odd}");
            assert_eq!(events.retry, Some(Duration::from_millis(250)), "{odd}");
        }
        let _ = events.feed(b"retry: 999999999\n").unwrap();
        assert_eq!(events.retry, Some(LONGEST_RETRY));
    }

    /// SRC-12: lines and events without an end are bounded.
    #[test]
    fn an_event_has_bounds() {
        assert_eq!(Events::new(100).feed(&[b'x'; 101]), Err(TooLong(101)));
        let mut events = Events::new(100);
        let fed =
            std::iter::repeat_n(b"data: 0123456789\n", 20).try_for_each(|line| events.feed(line).map(drop));
        assert!(fed.is_err());
        let mut events = Events::new(100);
        assert!(
            std::iter::repeat_n(b"data: 0123456789\n\n", 20)
                .all(|event| events.feed(event).unwrap().len() == 1)
        );
    }

    proptest! {
        /// SRC-12: no bytes make it fail or exceed its bound.
        #[test]
        fn any_bytes_are_read(stream in proptest::collection::vec(any::<u8>(), 0..400), step in 1..50_usize) {
            let mut events = Events::new(100);
            for chunk in stream.chunks(step) {
                if events.feed(chunk).is_err() {
                    break;
                }
                prop_assert!(events.held() <= 100);
            }
        }
    }
}
