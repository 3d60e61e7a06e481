//! The broker's suite on the default executor.

use mqtt_async_std as adapter;
mod rt;
#[path = "../../mqtt-testkit/suites/broker/mod.rs"]
mod suite;
