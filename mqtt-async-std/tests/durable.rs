//! The suite of broker and client with stores, on the default executor.

use mqtt_async_std as adapter;
mod rt;
#[path = "../../mqtt-testkit/suites/durable.rs"]
mod suite;
