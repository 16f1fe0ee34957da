//! Recent events between the gate and one source, for `source log` (SRC-14): connections, failures, walks. In
//! memory and bounded; nothing from the content of calls.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use shared::Timestamp;

/// The most entries.
const MOST: usize = 200;
/// The most characters of an entry.
const LONGEST: usize = 400;

/// The latest entries. Cheap to clone.
#[derive(Clone, Default, Debug)]
pub(crate) struct Journal(Arc<Mutex<VecDeque<Entry>>>);

/// An event that happened once or several times in a row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The last time.
    pub at: Timestamp,
    pub kind: Kind,
    pub text: String,
    /// The number of times in a row.
    pub times: u32,
}

/// The kind of event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The source's revision was determined.
    Probed,
    /// A connection works again, or a session was started.
    Connected,
    /// Its lists were read.
    Walked,
    /// It failed to answer correctly.
    Failed,
    /// A call ended without a result.
    CallFailed,
    /// A process of it ended that nobody had asked to end, or could not be started.
    Crashed,
    /// It crashed too often to be started again automatically.
    Quarantined,
    /// An administrator restarted it.
    Restarted,
}

impl Kind {
    /// Its name in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probed => "probed",
            Self::Connected => "connected",
            Self::Walked => "walked",
            Self::Failed => "failed",
            Self::CallFailed => "call_failed",
            Self::Crashed => "crashed",
            Self::Quarantined => "quarantined",
            Self::Restarted => "restarted",
        }
    }
}

impl Journal {
    /// Adds an entry; a repeated event only raises the last entry's count.
    pub(crate) fn note(&self, at: Timestamp, kind: Kind, text: impl Into<String>) {
        let text: String = text.into();
        let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        let mut entries = self.lock();
        if let Some(last) = entries.back_mut()
            && last.kind == kind
            && last.text == text
        {
            (last.at, last.times) = (at, last.times.saturating_add(1));
            return;
        }
        if entries.len() >= MOST {
            entries.pop_front();
        }
        entries.push_back(Entry { at, kind, text, times: 1 });
    }

    /// The latest entries, oldest first.
    pub(crate) fn latest(&self, most: usize) -> Vec<Entry> {
        let entries = self.lock();
        entries.iter().skip(entries.len().saturating_sub(most)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SRC-14: a server that fails for a week does not fill the journal, and its message stays on one line.
    #[test]
    fn a_journal_is_bounded() {
        let journal = Journal::default();
        for second in 0..100_000 {
            journal.note(Timestamp(second), Kind::Failed, "it cannot be reached");
        }
        assert_eq!(journal.latest(10).len(), 1);
        assert_eq!((journal.latest(1)[0].times, journal.latest(1)[0].at), (100_000, Timestamp(99_999)));
        for number in 0..1000 {
            journal.note(
                Timestamp(number),
                Kind::Walked,
                format!("{number}\n\u{1b}[31m{}", "x".repeat(9000)),
            );
        }
        let latest = journal.latest(usize::MAX);
        assert_eq!(latest.len(), MOST);
        assert!(latest.iter().all(|entry| entry.text.len() <= LONGEST));
        assert!(latest.last().unwrap().text.starts_with("999[31mx"));
        assert_eq!(journal.latest(2).iter().map(|entry| entry.at.0).collect::<Vec<_>>(), [998, 999]);
    }
}
