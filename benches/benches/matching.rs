//! Finding the subscribers of a topic: does it slow down with filters that do not match?
//!
//! `tree` publishes through the broker machine to one subscriber of the topic, while 10, 1,000 or
//! 100,000 other filters do not match; `naive` looks at every filter.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mqtt_proto::{QoS, TopicFilter, TopicName};
use mqtt_session::broker::{BrokerConfig, Output};
use mqtt_session::{Broker, Message, Timestamp};
use std::hint::black_box;

const TOPIC: &str = "site/7/device/000123/temperature";

/// Filters that share levels with the topic and do not match it.
fn filters(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| match n % 4 {
            0 => format!("site/{}/device/{n:06}/temperature", 8 + n % 50),
            1 => format!("site/+/device/{:06}/#", 1000 + n),
            2 => format!("site/7/+/{:06}/humidity", 1000 + n),
            _ => format!("+/{n}/alarm/#"),
        })
        .collect()
}

fn matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("matching");
    for count in [10, 1_000, 100_000] {
        let filters = filters(count);
        let now = Timestamp::ZERO;
        let mut broker = Broker::new(BrokerConfig::default(), now).expect("settings");
        for filter in &filters {
            broker.subscribe(now, filter, QoS::AtMostOnce.into()).expect("a filter");
        }
        broker.subscribe(now, "site/+/device/000123/#", QoS::AtMostOnce.into()).expect("a filter");
        let message = Message::new(TOPIC, "x");
        group.bench_with_input(BenchmarkId::new("tree", count), &count, |b, _| {
            b.iter(|| {
                let matched = broker.publish(now, message.clone()).expect("it is taken");
                while let Some(output) = broker.poll_output() {
                    assert!(!matches!(black_box(output), Output::Hangup { .. }));
                }
                assert_eq!(matched, 1);
            });
        });
        let checked: Vec<_> = filters.iter().map(|f| TopicFilter::new(f).expect("a filter")).collect();
        let topic = TopicName::new(TOPIC).expect("a name");
        group.bench_with_input(BenchmarkId::new("naive", count), &count, |b, _| {
            b.iter(|| checked.iter().filter(|filter| filter.matches(black_box(topic))).count());
        });
    }
    group.finish();
}

criterion_group!(benches, matching);
criterion_main!(benches);
