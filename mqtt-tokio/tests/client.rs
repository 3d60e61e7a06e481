//! The client's suite on Tokio, with virtual time, and what only Tokio has.

use mqtt_tokio as adapter;
mod rt;
#[path = "../../mqtt-testkit/suites/client.rs"]
mod suite;

use mqtt_tokio::client::Error;
use suite::{Result, at_least_once, pair};

#[test]
fn it_works_on_a_multi_threaded_runtime_and_ends_with_it() -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (client, link) = runtime.block_on(async {
        let (client, mut link) = pair().await?;
        link.settle(&client).await;
        Result::Ok((client, link))
    })?;
    drop(runtime);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let published = runtime.block_on(client.publish(at_least_once("a", "")));
    assert!(matches!(published, Err(Error::Closed(_))), "nobody waits for a driver that is gone");
    drop(link);
    Ok(())
}
