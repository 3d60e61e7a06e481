//! What the tests of the workspace share.
//!
//! [`World`] runs a broker machine on virtual time with peers that send whatever packets a test
//! wants, well formed or not. [`brief`] writes a packet in a few characters, so that a test can list
//! what it expects. `adapters` (feature `adapters`) is one script for every runtime adapter.
#![forbid(unsafe_code)]

#[cfg(feature = "adapters")]
pub mod adapters;
mod brief;
mod pair;
mod world;

pub use brief::{brief, brief_all};
pub use pair::Pair;
pub use world::{PeerId, World, packets};
