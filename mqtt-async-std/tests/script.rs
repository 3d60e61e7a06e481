//! The script that every adapter passes: on async-std's executor, on smol's, and on this crate's own
//! thread.

use mqtt_async_std::AsyncIo;
use mqtt_async_std::broker::{BindError, Broker, BrokerHandle, Config};
use mqtt_testkit::adapters::Harness;
use std::future::Future;

macro_rules! script {
    ($executor:ident: $runtime:path, $block_on:path) => {
        mod $executor {
            use super::*;

            struct Executor;

            impl Harness for Executor {
                type Runtime = AsyncIo;

                fn runtime() -> AsyncIo {
                    $runtime()
                }

                fn block_on<T>(future: impl Future<Output = T>) -> T {
                    $block_on(future)
                }

                fn bind(config: Config) -> impl Future<Output = Result<BrokerHandle, BindError>> {
                    Broker::bind_with($runtime(), config)
                }
            }

            mqtt_testkit::adapter_script!(Executor);
        }
    };
}

script!(own_thread: AsyncIo::own_thread, async_io::block_on);
#[cfg(feature = "async-std")]
script!(on_async_std: AsyncIo::async_std, async_std::task::block_on);
#[cfg(feature = "smol")]
script!(on_smol: AsyncIo::smol, smol::block_on);
