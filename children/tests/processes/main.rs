//! Real processes: the supervisor, the launcher, and servers that misbehave.

mod harness;
mod hostile;
mod kills;
mod misbehaving;
mod without_landlock;
