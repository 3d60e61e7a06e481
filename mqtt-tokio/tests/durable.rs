//! The suite of broker and client with stores, on Tokio.

use mqtt_tokio as adapter;
mod rt;
#[path = "../../mqtt-testkit/suites/durable.rs"]
mod suite;
