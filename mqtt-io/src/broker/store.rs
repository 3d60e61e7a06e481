//! From a store, or from nothing, to the machines of all shards.

use super::bind::{BindError, OpenStore};
use crate::trace::{Recorder, TraceOptions};
use crate::{Clock, Command};
use mqtt_session::broker::{BrokerConfig, Restoration, Restore, Restored};
use mqtt_session::{Broker, Durability, ShardId, StoreSeq, Timestamp};
use mqtt_store::{Report, Storage, StorageHandle};
use std::time::Instant;
use tokio::sync::mpsc;

/// The machines, their clock, and who writes for them.
pub(super) struct Made {
    pub(super) shards: Vec<Broker>,
    pub(super) clock: Clock,
    pub(super) storage: Option<StorageHandle>,
    /// Of the only shard.
    pub(super) trace: Option<Recorder>,
}

/// Makes the shards of what is stored, or empty ones without a store. Blocks while it reads. `reports` are the ways to
/// the shards.
pub(super) fn make(
    config: BrokerConfig,
    store: Option<OpenStore>,
    trace: Option<TraceOptions>,
    reports: Vec<mpsc::UnboundedSender<Command>>,
) -> Result<Made, BindError> {
    let Some(open) = store else {
        let clock = Clock::start();
        let trace = record(trace, &config, clock.now(), false)?;
        let shards = (0..config.shards).map(|shard| {
            let mut config = config.clone();
            config.shard = ShardId(shard);
            Broker::new(config, clock.now())
        });
        return Ok(Made { shards: shards.collect::<Result<_, _>>()?, clock, storage: None, trace });
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
    let Restoration { shards, first, restored, .. } = restore.finish(unix_ms);
    if let Some(trace) = &mut trace {
        trace.restored(restored.now, unix_ms);
    }
    if !first.is_empty() {
        store.write(&first, durability == Durability::Synced)?;
    }
    let clock = Clock::from(restored.now);
    tell(&restored, begun, shards.len());
    tracing::debug!("The store had {} records of {} bytes.", loaded.records, loaded.bytes);
    let storage = Storage::default().start(store, durability, shards.len(), move |shard, report| {
        let command = match report {
            Report::Stored { through } => Command::Stored(through),
            Report::Failed { from, error } => {
                // Once for all.
                if shard == 0 {
                    tracing::error!(
                        "The store failed: {error}. Until it works again nothing is acknowledged that has to be \
                         stored; QoS 0 goes on."
                    );
                }
                Command::StoreFailed(from)
            }
            Report::Recovered => {
                if shard == 0 {
                    tracing::info!("The store works again.");
                }
                Command::Stored(StoreSeq(0))
            }
        };
        if let Some(reports) = reports.get(shard) {
            // Nobody takes it if the shard has ended.
            let _ = reports.send(command);
        }
    });
    Ok(Made { shards, clock, storage: Some(storage), trace })
}

fn tell(restored: &Restored, begun: Instant, shards: usize) {
    tracing::info!(
        "Restored {} sessions, {} subscriptions, {} messages ({} of them retained) and {} wills in {:.1} s.",
        restored.sessions,
        restored.subscriptions,
        restored.messages,
        restored.retained,
        restored.wills,
        begun.elapsed().as_secs_f32()
    );
    if let Some(before) = restored.shards_before {
        tracing::info!(
            "The number of shards is {shards} and was {before}: sessions and messages are spread anew."
        );
    }
    if restored.handed_over > 0 {
        let messages = restored.handed_over;
        tracing::info!("{messages} messages were on their way from shard to shard, and are delivered now.");
    }
    if restored.dropped > 0 {
        tracing::warn!("{} records of the store referred to nothing and were dropped.", restored.dropped);
    }
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
