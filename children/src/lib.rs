//! Programs as children of the gateway (SRC-11): started without inheriting anything, confined, watched, and gone when the
//! gateway is. It knows lines of JSON-RPC and nothing of MCP, of people or of policy.
//!
//! ```text
//! gateway --socket--> supervisor (child subreaper) --> launcher (limits, Landlock) = the program, after exec
//!    \______________________ stdin, stdout, stderr ______________________________/
//! ```
//!
//! [`child::start`] starts one program. [`conversation`] speaks JSON-RPC with it. [`pool`] keeps as many as are needed.
//! `main` of the program calls [`role()`] before all else, because it executes itself in the other two roles.

#![forbid(unsafe_code)]

mod answered_id;
mod cgroup;
pub mod child;
pub mod conversation;
mod descendants;
mod executable;
mod handover;
mod launch;
mod lines;
mod outbox;
pub mod pool;
mod privileges;
pub mod program;
mod report;
mod ring;
mod role;
mod room;
mod sandbox;
mod sockets;
mod supervise;
mod temporary;

pub use executable::Executable;
pub use report::Ended;
pub use ring::Ring;
pub use role::{Role, role};
pub use room::{NoRoom, Room, Unlimited};
