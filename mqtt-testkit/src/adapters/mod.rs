//! One script for every adapter: its client against its own broker, over TCP on 127.0.0.1.
//!
//! An adapter says in a [`Harness`] how it runs a future and starts a broker, and
//! [`adapter_script!`](crate::adapter_script) makes a test of each step. So adapters cannot drift apart:
//! a step that fails under one runtime alone is that adapter's mistake.
//!
//! Nothing here sleeps. Whoever waits, waits for a message, a state or an end; [`PATIENCE`] only turns
//! a test that hangs into one that fails.

mod busy;
mod duplex;
mod memory;
mod script;
mod server;
mod trace;

pub use busy::Busy;
pub use duplex::{Duplex, duplex};
pub use memory::{Memory, Never, Wire};
pub use script::{
    back_pressure, connect, every_qos, keep_alive_of_the_broker, keep_alive_of_the_client, resumed_session,
    shutdown,
};
pub use trace::trace;

use mqtt_io::broker::{BindError, BrokerHandle, Config};
use mqtt_io::client::{Server, Tcp};
use mqtt_io::runtime::{Connect, Runtime, Timer};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

/// Longer than any step takes, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a script needs of an adapter.
pub trait Harness {
    /// The adapter's runtime.
    type Runtime: Runtime + Connect<Server> + Connect<Tcp> + Default;

    /// On what clients run.
    #[must_use]
    fn runtime() -> Self::Runtime {
        Self::Runtime::default()
    }

    /// Runs a future on the runtime, to its end.
    fn block_on<T>(future: impl Future<Output = T>) -> T;

    /// Starts a broker.
    fn bind(config: Config) -> impl Future<Output = Result<BrokerHandle<Self::Runtime>, BindError>>;

    /// Runs one step.
    ///
    /// # Panics
    /// If the step fails or takes longer than [`PATIENCE`].
    fn step(step: impl Future<Output = ()>) {
        Self::block_on(within::<Self::Runtime, _>(step));
    }
}

/// What `future` gives.
///
/// # Panics
/// If that takes longer than [`PATIENCE`].
pub async fn within<R: Runtime, F: Future>(future: F) -> F::Output {
    let late = R::now() + PATIENCE;
    let mut timer = R::Timer::default();
    let mut future = pin!(future);
    poll_fn(|cx| {
        let done = future.as_mut().poll(cx);
        assert!(done.is_ready() || timer.poll_until(cx, late).is_pending(), "it hangs");
        done
    })
    .await
}

/// A test for each step of the script, driven by a [`Harness`](crate::adapters::Harness).
#[macro_export]
macro_rules! adapter_script {
    ($harness:ty: $($step:ident)*) => {
        $(
            #[test]
            fn $step() {
                <$harness as $crate::adapters::Harness>::step($crate::adapters::$step::<$harness>());
            }
        )*
    };
    ($harness:ty) => {
        $crate::adapter_script! {
            $harness: connect every_qos resumed_session keep_alive_of_the_broker keep_alive_of_the_client
            back_pressure shutdown trace
        }
    };
}
