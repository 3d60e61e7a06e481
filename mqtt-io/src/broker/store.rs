//! From a store to a shard.

use super::bind::{BindError, OpenStore};
use crate::trace::{Recorder, TraceOptions};
use crate::{Clock, Command, Shard, Wire};
use mqtt_session::broker::{BrokerConfig, Restore};
use mqtt_session::{Broker, StoreSeq, Timestamp};
use mqtt_store::{Report, Storage, StorageHandle};
use std::time::Instant;
use tokio::sync::mpsc;

/// A shard, its clock, and who writes for it.
pub(super) struct Made<W> {
    pub(super) shard: Shard<W>,
    pub(super) clock: Clock,
    pub(super) storage: Option<StorageHandle>,
}

/// Makes a shard of what is stored, or an empty one without a store. Blocks while it reads.
pub(super) fn make<W: Wire>(
    config: BrokerConfig,
    store: Option<OpenStore>,
    trace: Option<TraceOptions>,
    clock: Clock,
    reports: mpsc::UnboundedSender<Command>,
) -> Result<Made<W>, BindError> {
    let Some(open) = store else {
        let trace = record(trace, &config, clock.now(), false)?;
        let broker = Broker::new(config, clock.now())?;
        return Ok(Made { shard: Shard::recorded(broker, clock.now(), None, trace), clock, storage: None });
    };
    let begun = Instant::now();
    let durability = config.durability;
    let mut trace = record(trace, &config, Timestamp::ZERO, true)?;
    let mut restore = Restore::new(config)?;
    let mut store = open()?;
    let loaded = store.load(&mut |record| {
        if let Some(trace) = &mut trace {
            trace.stored(&record);
        }
        restore.record(record);
    })?;
    let unix_ms = Clock::unix_ms();
    let (broker, restored) = restore.finish(unix_ms);
    if let Some(trace) = &mut trace {
        trace.restored(restored.now, unix_ms);
    }
    let clock = Clock::from(restored.now);
    tracing::info!(
        "Restored {} sessions, {} subscriptions, {} messages ({} of them retained) and {} wills in {:.1} s.",
        restored.sessions,
        restored.subscriptions,
        restored.messages,
        restored.retained,
        restored.wills,
        begun.elapsed().as_secs_f32()
    );
    tracing::debug!("The store had {} records of {} bytes.", loaded.records, loaded.bytes);
    if restored.dropped > 0 {
        tracing::warn!("{} records of the store referred to nothing and were dropped.", restored.dropped);
    }
    let storage = Storage::default().start(store, durability, 1, move |_, report| {
        let command = match report {
            Report::Stored { through } => Command::Stored(through),
            Report::Failed { from, error } => {
                tracing::error!(
                    "The store failed: {error}. Until it works again nothing is acknowledged that has to be \
                     stored; QoS 0 goes on."
                );
                Command::StoreFailed(from)
            }
            Report::Recovered => {
                tracing::info!("The store works again.");
                Command::Stored(StoreSeq(0))
            }
        };
        // Nobody takes it if the shard has ended.
        let _ = reports.send(command);
    });
    let shard = Shard::recorded(broker, restored.now, Some(storage.clone()), trace);
    Ok(Made { shard, clock, storage: Some(storage) })
}

fn record(
    options: Option<TraceOptions>,
    config: &BrokerConfig,
    now: Timestamp,
    restored: bool,
) -> Result<Option<Recorder>, BindError> {
    let Some(options) = options else { return Ok(None) };
    match Recorder::create(&options, config, now, restored) {
        Ok(trace) => Ok(Some(trace)),
        Err(source) => Err(BindError::Trace { path: options.path, source }),
    }
}
