//! The last part of what a child, or several of one source, wrote to standard error.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::program::SecretValue;

/// How much is kept of each source.
const KEPT: usize = 64 << 10;
/// A line is kept whole up to this length. Lines of several children do not mix.
const LONGEST_LINE: usize = 4 << 10;
/// What stands in the place of a secret.
const REDACTED: &[u8] = b"[secret]";
/// A shorter value is not treated as a secret, because it may be part of any word.
const SHORTEST_SECRET: usize = 4;

/// Keeps the last 64 KiB. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ring(Arc<Mutex<VecDeque<u8>>>);

impl Ring {
    /// What is kept, oldest first. It begins with a whole line.
    pub fn tail(&self) -> String {
        let kept: Vec<u8> = self.kept().iter().copied().collect();
        let is_cut = kept.len() == KEPT;
        let start = if is_cut { memchr::memchr(b'\n', &kept).map_or(0, |end| end + 1) } else { 0 };
        String::from_utf8_lossy(kept.get(start..).unwrap_or_default()).into_owned()
    }

    fn push(&self, text: &[u8]) {
        let text = text.get(text.len().saturating_sub(KEPT)..).unwrap_or_default();
        let mut kept = self.kept();
        let surplus = (kept.len() + text.len()).saturating_sub(KEPT);
        kept.drain(..surplus);
        kept.extend(text);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last line that is not empty.
    pub fn last_line(&self) -> Option<String> {
        self.tail().lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }

    /// Reads to the end, whatever comes, so that the writer never waits (SRC-11). Secrets that the child prints are not
    /// kept (SRC-10).
    pub(crate) async fn drain(self, mut from: impl AsyncRead + Unpin, secrets: Vec<SecretValue>) {
        let mut line = Vec::new();
        let mut read = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut read).await {
            for part in read.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.ends_with(b"\n") || line.len() > LONGEST_LINE {
                    self.push(&without(&line, &secrets));
                    line.clear();
                }
            }
        }
        self.push(&without(&line, &secrets));
    }
}

/// A line in which each of these values is replaced.
fn without<'l>(line: &'l [u8], secrets: &[SecretValue]) -> Cow<'l, [u8]> {
    let mut line = Cow::Borrowed(line);
    for secret in secrets.iter().map(|secret| secret.value().as_bytes()) {
        if secret.len() < SHORTEST_SECRET || memchr::memmem::find(&line, secret).is_none() {
            continue;
        }
        let (mut redacted, mut end) = (Vec::with_capacity(line.len()), 0);
        for start in memchr::memmem::find_iter(&line, secret) {
            redacted.extend_from_slice(line.get(end..start).unwrap_or_default());
            redacted.extend_from_slice(REDACTED);
            end = start + secret.len();
        }
        redacted.extend_from_slice(line.get(end..).unwrap_or_default());
        line = Cow::Owned(redacted);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRC-11: of a flood the last 64 KiB are kept, from the beginning of a line.
    #[tokio::test]
    async fn the_end_of_a_flood_is_kept() {
        let ring = Ring::default();
        let flood: Vec<String> = (0..100_000).map(|number| format!("line {number}\n")).collect();
        ring.clone().drain(flood.concat().as_bytes(), Vec::new()).await;
        let tail = ring.tail();
        assert!(tail.len() <= KEPT && tail.len() > KEPT - 20, "{}", tail.len());
        assert!(tail.starts_with("line ") && tail.ends_with("line 99999\n"));
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_kept_too() {
        let ring = Ring::default();
        ring.clone().drain(&b"first\nlast words"[..], Vec::new()).await;
        assert_eq!(ring.tail(), "first\nlast words");
        ring.clone().drain(&vec![b'x'; 1 << 20][..], Vec::new()).await;
        assert_eq!(ring.kept().len(), KEPT);
    }

    /// SRC-10: a secret that a child prints is not kept.
    #[tokio::test]
    async fn a_secret_is_not_kept() {
        let ring = Ring::default();
        let secrets = ["hunter22", "abc", "s3cret-token"].map(|secret| SecretValue::from(secret.to_owned()));
        let printed = b"abc: hunter22, hunter22!\nAuthorization: s3cret-token\n\n";
        ring.clone().drain(&printed[..], secrets.to_vec()).await;
        assert_eq!(ring.tail(), "abc: [secret], [secret]!\nAuthorization: [secret]\n\n");
        assert_eq!(ring.last_line().as_deref(), Some("Authorization: [secret]"));
    }
}
