//! What the broker has to show, as figures for Prometheus.

use super::serve::About;
use mqtt_session::broker::{Counters, Denials, Drops, Endings, Refusals};
use mqtt_tokio::broker::{BrokerHandle, Ended, Stats, TransportStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

/// Everything at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) stats: Stats,
    pub(super) transports: TransportStats,
    pub(super) storage: Option<mqtt_io::broker::StorageStats>,
    /// How long the broker's threads took to answer.
    pub(super) answered_in: Duration,
    /// Bytes of memory.
    pub(super) memory: Option<u64>,
    pub(super) uptime: Duration,
    pub(super) started_at: SystemTime,
    /// Listeners, what is spoken there, and when their certificates end.
    pub(super) listeners: Vec<(String, &'static str, Option<SystemTime>)>,
    pub(super) shards: usize,
}

/// Bytes of memory that this process uses, where the system tells.
pub(crate) fn memory() -> Option<u64> {
    memory_stats::memory_stats().map(|stats| stats.physical_mem as u64)
}

/// Seconds since 1970.
pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Snapshot {
    pub(super) async fn take(broker: &BrokerHandle, about: &About) -> Result<Self, Ended> {
        let asked = Instant::now();
        let stats = broker.stats().await?;
        let answered_in = asked.elapsed();
        let listeners = about.listeners.iter().map(|(address, transport)| {
            let transport = transport.get();
            let ends = transport.tls.as_ref().and_then(mqtt_io::tls::TlsServer::not_after);
            (address.clone(), crate::run::protocol(&transport), ends)
        });
        Ok(Self {
            stats,
            transports: broker.transport_stats().await?,
            storage: broker.storage_stats(),
            answered_in,
            memory: memory(),
            uptime: about.started.elapsed(),
            started_at: about.started_at,
            listeners: listeners.collect(),
            shards: broker.shards(),
        })
    }

    pub(super) fn to_text(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Figures(self.clone())));
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut out, &registry);
        out
    }
}

#[derive(Debug)]
struct Figures(Snapshot);

/// Writes figures.
struct Writer<'a>(DescriptorEncoder<'a>);

type Written = Result<(), fmt::Error>;

impl Writer<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) -> Written {
        self.family(name, help, None, MetricType::Gauge)?.encode_gauge(&(value as u64))
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> Written {
        self.family(name, help, Some(&Unit::Bytes), MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Written {
        let mut encoder = self.family(name, help, None, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    fn counters(&mut self, name: &str, help: &str, label: &'static str, values: &[(&str, u64)]) -> Written {
        let mut encoder = self.family(name, help, None, MetricType::Counter)?;
        for &(which, value) in values {
            let labels = [(label, which)];
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }
}

/// Two directions of the same.
fn both(received: u64, sent: u64) -> [(&'static str, u64); 2] {
    [("received", received), ("sent", sent)]
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Written {
        let Snapshot { stats, transports, storage, answered_in, memory, listeners, shards, .. } = &self.0;
        let mut w = Writer(encoder);
        let info = [("version", env!("CARGO_PKG_VERSION"))];
        w.family("mqtt_broker", "The program", None, MetricType::Info)?.encode_info(&info)?;
        w.gauge("mqtt_shards", "Threads that serve clients", *shards)?;
        w.family(
            "mqtt_start_time",
            "When the broker started, in seconds since 1970",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?
        .encode_gauge(&unix(self.0.started_at))?;
        w.family(
            "mqtt_answer",
            "How long the broker's threads took to answer this request",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?
        .encode_gauge(&answered_in.as_secs_f64())?;
        if let Some(memory) = memory {
            w.bytes("mqtt_resident_memory", "Memory of the process", *memory)?;
        }
        state(&mut w, stats)?;
        traffic(&mut w, &stats.counters)?;
        let TransportStats { opened, proxy_failed, tls_failed, websocket_failed, .. } = *transports;
        let outcomes = [
            ("opened", opened),
            ("proxy_failed", proxy_failed),
            ("tls_failed", tls_failed),
            ("websocket_failed", websocket_failed),
        ];
        w.counters(
            "mqtt_layered_connections",
            "Connections with TLS, WebSocket or a PROXY header",
            "outcome",
            &outcomes,
        )?;
        if let Some(storage) = storage {
            store(&mut w, storage)?;
        }
        let mut ends = w.family(
            "mqtt_certificate_not_after",
            "When the certificate of a listener ends, in seconds since 1970",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (address, _, not_after) in listeners {
            if let Some(not_after) = not_after {
                ends.encode_family(&[("listener", address.as_str())])?.encode_gauge(&unix(*not_after))?;
            }
        }
        Ok(())
    }
}

/// What there is.
fn state(w: &mut Writer<'_>, stats: &Stats) -> Written {
    w.gauge("mqtt_connections", "Open connections", stats.connections)?;
    w.gauge("mqtt_clients_connected", "Connections whose CONNECT was accepted", stats.connected)?;
    w.gauge("mqtt_sessions", "Sessions, connected or not", stats.sessions)?;
    w.gauge("mqtt_subscriptions", "Subscriptions, shared ones included", stats.subscriptions)?;
    w.gauge("mqtt_shared_subscriptions", "Shared subscriptions", stats.shared_subscriptions)?;
    w.gauge("mqtt_retained_messages", "Retained messages", stats.retained)?;
    w.gauge(
        "mqtt_held_messages",
        "Messages held: retained, queued, or under way to sessions that may have to get them again, each counted once",
        stats.messages,
    )?;
    w.bytes("mqtt_held", "Memory of the messages held", stats.message_bytes as u64)?;
    w.gauge("mqtt_unsent_packets", "Packets that wait for sockets", stats.unsent_packets)?;
    w.bytes("mqtt_unsent", "Bytes that wait for sockets", stats.unsent_bytes as u64)
}

/// What happened.
fn traffic(w: &mut Writer<'_>, counters: &Counters) -> Written {
    let c = counters;
    w.counter("mqtt_connections_opened", "Connections that peers opened", c.connections)?;
    let Refusals { credentials, not_authorized, client_id, version, busy, other, .. } = c.refusals;
    w.counters(
        "mqtt_connects",
        "CONNECTs, by what became of them",
        "outcome",
        &[
            ("accepted", c.accepted),
            ("credentials", credentials),
            ("not_authorized", not_authorized),
            ("client_id", client_id),
            ("version", version),
            ("busy", busy),
            ("other", other),
        ],
    )?;
    let Endings {
        disconnected,
        lost,
        keep_alive,
        taken_over,
        protocol,
        administrative,
        slow,
        shutdown,
        other,
        ..
    } = c.endings;
    w.counters(
        "mqtt_disconnects",
        "Clients that were connected, by how that ended",
        "reason",
        &[
            ("disconnected", disconnected),
            ("lost", lost),
            ("keep_alive", keep_alive),
            ("taken_over", taken_over),
            ("protocol", protocol),
            ("administrative", administrative),
            ("slow", slow),
            ("shutdown", shutdown),
            ("other", other),
        ],
    )?;
    w.counter("mqtt_malformed_packets", "Packets that broke a rule", c.malformed)?;
    w.counters(
        "mqtt_packets",
        "Packets of all kinds",
        "direction",
        &both(c.packets_received, c.packets_sent),
    )?;
    let bytes = both(c.bytes_received, c.bytes_sent);
    let mut encoder =
        w.family("mqtt_traffic", "Bytes of packets", Some(&Unit::Bytes), MetricType::Counter)?;
    for (direction, value) in bytes {
        encoder
            .encode_family(&[("direction", direction)])?
            .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
    }
    let payload = both(c.payload_received, c.payload_sent);
    let mut encoder =
        w.family("mqtt_payload", "Bytes of payload", Some(&Unit::Bytes), MetricType::Counter)?;
    for (direction, value) in payload {
        encoder
            .encode_family(&[("direction", direction)])?
            .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
    }
    let mut encoder = w.family("mqtt_publishes", "PUBLISH packets", None, MetricType::Counter)?;
    for (direction, by_qos) in [("received", c.publish_received), ("sent", c.publish_sent)] {
        for (qos, value) in ["0", "1", "2"].into_iter().zip(by_qos) {
            let labels = [("direction", direction), ("qos", qos)];
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
    }
    let Drops {
        queue_full, memory_full, expired, too_large, not_authorized, no_member, not_retained, ..
    } = c.dropped;
    w.counters(
        "mqtt_dropped",
        "Deliveries that were dropped, and messages that were not retained",
        "reason",
        &[
            ("queue_full", queue_full),
            ("memory_full", memory_full),
            ("expired", expired),
            ("too_large", too_large),
            ("not_authorized", not_authorized),
            ("no_member", no_member),
            ("not_retained", not_retained),
        ],
    )?;
    let Denials { publish, subscribe, will, .. } = c.denied;
    let denied = [("publish", publish), ("subscribe", subscribe), ("will", will)];
    w.counters("mqtt_denied", "What clients wanted and may not", "what", &denied)?;
    w.counter("mqtt_sessions_expired", "Sessions whose time without a connection passed", c.sessions_expired)
}

/// How storing goes.
fn store(w: &mut Writer<'_>, storage: &mqtt_io::broker::StorageStats) -> Written {
    w.gauge("mqtt_store_failed", "1 while nothing can be stored", usize::from(storage.failed))?;
    w.gauge(
        "mqtt_store_waiting_groups",
        "Groups of changes that wait to be stored",
        usize::try_from(storage.waiting).unwrap_or(usize::MAX),
    )?;
    w.counter("mqtt_store_commits", "Commits", storage.commits)?;
    w.counter("mqtt_store_syncs", "Commits that waited for the disk", storage.fsyncs)?;
    w.counter("mqtt_store_operations", "Changes that were stored", storage.ops)?;
    w.counter("mqtt_store_failures", "Commits and steps of tidying that failed", storage.failures)?;
    w.counter("mqtt_store_reopens", "Attempts to open the store again", storage.reopens)?;
    w.bytes("mqtt_store_disk", "Disk space, when it was last looked at", storage.disk_space)?;
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    let buckets = |histogram: &mqtt_store::Histogram, scale: f64| {
        let mut before = 0;
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for (bound, below) in histogram.cumulative() {
            buckets.push((bound as f64 * scale, below - before));
            before = below;
        }
        buckets.push((f64::INFINITY, histogram.count().saturating_sub(before)));
        buckets
    };
    for (name, help, unit, histogram, scale) in [
        ("mqtt_store_commit", "How long commits took", Some(&Unit::Seconds), &storage.commit_micros, 1e-6),
        ("mqtt_store_commit_groups", "Groups of changes in a commit", None, &storage.commit_groups, 1.0),
    ] {
        #[allow(clippy::cast_precision_loss, reason = "figures for people")]
        let sum = histogram.sum() as f64 * scale;
        w.family(name, help, unit, MetricType::Histogram)?.encode_histogram::<NoLabelSet>(
            sum,
            histogram.count(),
            &buckets(histogram, scale),
            None,
        )?;
    }
    Ok(())
}
