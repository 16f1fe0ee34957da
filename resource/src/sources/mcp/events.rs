//! Event streams (`text/event-stream`), read bit by bit and within bounds: no event is longer than it may be, whatever
//! becomes of the stream (SRC-12).

use std::time::Duration;

use shared::outbound::make_room;

/// A longer wait than this before reconnecting is not waited.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// No event id is longer.
const LONGEST_ID: usize = 1024;

/// Where a stream has got to.
#[derive(Debug)]
pub(super) struct Events {
    most: usize,
    line: Vec<u8>,
    after_cr: bool,
    begun: bool,
    data: Option<Vec<u8>>,
    other_kind: bool,
    /// The last event's id, for resuming after it.
    pub(super) last_id: Option<String>,
    /// How long the server wants to be left alone before the stream is resumed.
    pub(super) retry: Option<Duration>,
}

/// An event is longer than it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong(pub(super) usize);

impl Events {
    /// A stream whose events have this many bytes at most.
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

    /// Begins another connection of the same stream: half an event is forgotten.
    pub(super) fn reconnected(&mut self) {
        self.line.clear();
        (self.after_cr, self.begun, self.data, self.other_kind) = (false, false, None, false);
    }

    /// Takes the next bytes of the stream, and gives the data of the events that they complete.
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
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            let data = self.data.take();
            // An event without a kind is a message; no other kind is one of MCP's.
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
                none => *none = Some(value.to_vec()),
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

    /// SRC-12: the format's own rules (WHATWG HTML, server-sent events), whatever the pieces it comes in.
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

    /// SRC-12: a line without an end and an event without an end are both bounded.
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
        /// SRC-12: no bytes make it fail or hold more than it may.
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
