//! What is counted, the line that tells it meanwhile, and the report in the end.

use crate::stop::Stop;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is longer counts as this.
const LONGEST: Duration = Duration::from_secs(600);

/// What the clients do, counted.
pub(super) struct Counters {
    connected: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    lagged: AtomicU64,
    times: Mutex<Times>,
}

struct Times {
    connect: Histogram<u64>,
    message: Histogram<u64>,
}

#[allow(clippy::expect_used, reason = "the bounds are constants that the library accepts, as each run shows")]
fn histogram() -> Histogram<u64> {
    let most = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, most, 3).expect("three digits up to ten minutes in microseconds")
}

impl Default for Counters {
    fn default() -> Self {
        let count = AtomicU64::default;
        Self {
            connected: count(),
            sent: count(),
            received: count(),
            bytes: count(),
            refused: count(),
            lagged: count(),
            times: Mutex::new(Times { connect: histogram(), message: histogram() }),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Counters {
    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(&self, took: Duration) {
        self.connected.fetch_add(1, Relaxed);
        self.times().connect.saturating_record(micros(took));
    }

    /// A message was sent and, above QoS 0, acknowledged.
    pub(super) fn sent(&self, bytes: usize, took: Option<Duration>) {
        self.sent.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        if let Some(took) = took {
            self.times().message.saturating_record(micros(took));
        }
    }

    pub(super) fn received(&self, bytes: usize, took: Option<Duration>) {
        self.received.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        if let Some(took) = took {
            self.times().message.saturating_record(micros(took));
        }
    }

    /// The server did not take a message.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// This side was too slow for so many messages.
    pub(super) fn lagged(&self, messages: u64) {
        self.lagged.fetch_add(messages, Relaxed);
    }

    /// Whether less has arrived than was sent. Only where each message goes to one subscriber.
    pub(super) fn on_the_way(&self) -> bool {
        self.received.load(Relaxed) + self.lagged.load(Relaxed) < self.sent.load(Relaxed)
    }

    /// From here on it counts; connecting is over.
    pub(super) fn measure(&self) {
        for count in [&self.sent, &self.received, &self.bytes, &self.refused, &self.lagged] {
            count.store(0, Relaxed);
        }
        self.times().message.reset();
    }
}

/// Tells once a second how far it is.
pub(super) async fn progress(counters: Arc<Counters>) {
    let (mut sent, mut received, mut at) = (0, 0, Instant::now());
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    loop {
        tick.tick().await;
        let now = [counters.sent.load(Relaxed), counters.received.load(Relaxed)];
        let secs = at.elapsed().as_secs_f64();
        // Counting begins anew when all are connected.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / secs;
        eprint!(
            "\r{} clients; {:.0} messages/s sent, {:.0} messages/s received   ",
            counters.connected.load(Relaxed),
            rate(now[0], sent),
            rate(now[1], received)
        );
        ([sent, received], at) = (now, Instant::now());
    }
}

/// Times in microseconds.
#[derive(Debug, Serialize)]
struct Percentiles {
    min: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Percentiles {
    /// `None` if nothing was measured.
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Self {
            min: histogram.min(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        })
    }

    fn line(&self) -> String {
        let ms = |us: u64| us as f64 / 1000.0;
        format!(
            "min {:.3}, p50 {:.3}, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, max {:.3} ms",
            ms(self.min),
            ms(self.p50),
            ms(self.p90),
            ms(self.p99),
            ms(self.p999),
            ms(self.max)
        )
    }
}

/// What came out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    mode: &'static str,
    clients: u32,
    connected: u64,
    connect_seconds: f64,
    connect_us: Option<Percentiles>,
    seconds: f64,
    sent: u64,
    sent_per_second: f64,
    received: u64,
    received_per_second: f64,
    payload_bytes_per_second: f64,
    refused: u64,
    lagged: u64,
    message_us: Option<Percentiles>,
}

impl Report {
    pub(super) fn new(
        mode: &'static str,
        clients: u32,
        connecting: Duration,
        took: Duration,
        counters: &Counters,
    ) -> Self {
        let seconds = took.as_secs_f64();
        let count = |count: &AtomicU64| count.load(Relaxed);
        let rate = |of: &AtomicU64| count(of) as f64 / seconds;
        let times = counters.times();
        Self {
            mode,
            clients,
            connected: count(&counters.connected),
            connect_seconds: connecting.as_secs_f64(),
            connect_us: Percentiles::of(&times.connect),
            seconds,
            sent: count(&counters.sent),
            sent_per_second: rate(&counters.sent),
            received: count(&counters.received),
            received_per_second: rate(&counters.received),
            payload_bytes_per_second: rate(&counters.bytes),
            refused: count(&counters.refused),
            lagged: count(&counters.lagged),
            message_us: Percentiles::of(&times.message),
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Stop> {
        let mut out = io::stdout().lock();
        let text = if json {
            serde_json::to_string_pretty(self).map_err(|e| Stop::new(e.to_string()))? + "\n"
        } else {
            self.text()
        };
        out.write_all(text.as_bytes()).map_err(|e| Stop::new(format!("standard output: {e}")))
    }

    fn text(&self) -> String {
        let mut lines = vec![format!(
            "connected  {} clients in {:.2} s ({:.0}/s)",
            self.connected,
            self.connect_seconds,
            self.connected as f64 / self.connect_seconds
        )];
        if let Some(times) = &self.connect_us {
            lines.push(format!("connecting {}", times.line()));
        }
        if self.mode != "connect" {
            lines.push(format!("measured   {:.2} s", self.seconds));
        }
        for (what, count, rate) in [
            ("sent      ", self.sent, self.sent_per_second),
            ("received  ", self.received, self.received_per_second),
        ] {
            if count > 0 {
                lines.push(format!("{what} {count} messages, {rate:.0}/s"));
            }
        }
        if self.payload_bytes_per_second > 0.0 {
            lines.push(format!("payloads   {:.2} MB/s", self.payload_bytes_per_second / 1e6));
        }
        for (what, count) in [("refused   ", self.refused), ("dropped   ", self.lagged)] {
            if count > 0 {
                lines.push(format!("{what} {count} messages"));
            }
        }
        if let Some(times) = &self.message_us {
            let what = if self.mode == "latency" { "latency   " } else { "answered  " };
            lines.push(format!("{what} {}", times.line()));
        }
        lines.join("\n") + "\n"
    }
}
