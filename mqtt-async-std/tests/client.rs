//! The client's suite on the default executor.

use mqtt_async_std as adapter;
mod rt;
#[path = "../../mqtt-testkit/suites/client.rs"]
mod suite;
