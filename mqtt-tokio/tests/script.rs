//! The script that every adapter passes, inside both kinds of runtime.

use mqtt_testkit::adapters::Harness;
use mqtt_tokio::Tokio;
use mqtt_tokio::broker::{BindError, Broker, BrokerHandle, Config};
use std::future::Future;
use tokio::runtime::Builder;

struct CurrentThread;

impl Harness for CurrentThread {
    type Runtime = Tokio;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn bind(config: Config) -> impl Future<Output = Result<BrokerHandle, BindError>> {
        Broker::bind(config)
    }
}

struct MultiThread;

impl Harness for MultiThread {
    type Runtime = Tokio;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
    }

    fn bind(config: Config) -> impl Future<Output = Result<BrokerHandle, BindError>> {
        Broker::bind(config)
    }
}

mod current_thread {
    mqtt_testkit::adapter_script!(super::CurrentThread);
}

mod multi_thread {
    mqtt_testkit::adapter_script!(super::MultiThread);
}
