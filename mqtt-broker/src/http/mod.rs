//! Figures, health, administration and a page for people, by HTTP.
//!
//! It stands beside the broker's threads: whoever asks here waits for them, and they never wait for
//! whoever asks.

#[cfg(feature = "http")]
mod api;
#[cfg(feature = "http")]
mod console;
#[cfg(feature = "http")]
mod door;
#[cfg(feature = "http")]
mod metrics;
#[cfg(feature = "http")]
mod pages;
#[cfg(feature = "http")]
mod reply;
#[cfg(feature = "http")]
mod serve;
mod settings;

#[cfg(feature = "http")]
pub(crate) use serve::{Bound, Served};
pub(crate) use settings::HttpSettings;

#[cfg(all(test, feature = "http"))]
mod tests;
