//! A deterministic simulation: many client machines and a broker machine on virtual time, with a
//! network, a store and authorisation that do what real ones do at their worst.
//!
//! Everything that happens follows from one number, the seed. [`run`] first lets faults happen and
//! checks after every step that nothing is wrong (safety); then it switches the faults off and checks
//! that everything comes to an end (liveness). A failure names its seed; the same seed fails again in
//! the same way, and a second run with a trace tells the story.
//!
//! The checkers are derived from the standard, not from the machines: `checks` judges one end of a
//! session by its packets, `store` judges what may leave before it is safe, and `oracle` judges what
//! was delivered to whom.
//!
//! Broker and clients crash between any two of their outputs, and start again from what their stores
//! confirmed, or from a little more.
//!
//! ```
//! let report = mqtt_sim::run(7, 500).unwrap_or_else(|failure| panic!("{failure}"));
//! assert_eq!(report.hash, mqtt_sim::run(7, 500).unwrap().hash, "the same seed, the same run");
//! ```
#![forbid(unsafe_code)]

pub mod checks;
pub mod disk;
pub mod model;
pub mod network;
pub mod node;
pub mod options;
pub mod oracle;
pub mod random;
mod run;
mod sim;
pub mod store;
pub mod trace;
pub mod wire;

pub use oracle::Counts;
pub use run::{Failure, Report, run, run_traced, run_with};
pub use sim::Sim;
