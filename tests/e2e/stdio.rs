//! Servers behind the gate that are programs (`kind = "mcp-stdio"`): started, confined, shared and ended by the gateway.

mod canary;
mod eras;
mod hostile;
mod kills;
mod misbehaving;
mod pools;
mod program;
mod real;
