//! What decoding and encoding one packet costs.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mqtt_benches::samples;
use mqtt_proto::{MAX_PACKET_SIZE, PacketRef, Properties, PropertyContext, TopicFilter, TopicName};
use std::hint::black_box;

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for sample in samples() {
        group.throughput(Throughput::Bytes(sample.wire.len() as u64));
        group.bench_function(sample.name, |b| {
            b.iter(|| {
                let next = PacketRef::decode_next(black_box(&sample.wire), sample.version, MAX_PACKET_SIZE);
                // By reference: copying the packet is not part of decoding it.
                black_box(&next);
            });
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for sample in samples() {
        let packet = PacketRef::decode(&sample.wire, sample.version).expect("samples keep to the rules");
        let mut out = Vec::with_capacity(sample.wire.len());
        group.throughput(Throughput::Bytes(sample.wire.len() as u64));
        group.bench_function(sample.name, |b| {
            b.iter(|| {
                out.clear();
                let encoded = black_box(&packet).encode(sample.version, &mut out);
                black_box((encoded.is_ok(), &out));
            });
        });
    }
    group.finish();
}

fn topics(c: &mut Criterion) {
    let mut group = c.benchmark_group("topic");
    let topic = TopicName::new("site/7/device/000123/temperature").expect("a name");
    for (name, filter) in [
        ("match-exact", "site/7/device/000123/temperature"),
        ("match-plus", "site/+/device/+/temperature"),
        ("match-hash", "site/#"),
        ("match-not", "plant/#"),
    ] {
        let filter = TopicFilter::new(filter).expect("a filter");
        group.bench_function(name, |b| b.iter(|| black_box(filter).matches(black_box(topic))));
    }
    group.bench_function("check-name", |b| b.iter(|| TopicName::new(black_box(topic.as_str()))));
    group.bench_function("check-filter", |b| {
        b.iter(|| TopicFilter::new(black_box("site/+/device/+/temperature")));
    });
    group.finish();
}

fn properties(c: &mut Criterion) {
    let mut group = c.benchmark_group("properties");
    let wire = samples()
        .into_iter()
        .find(|sample| sample.name == "publish-v5-five-properties")
        .expect("it is there");
    let PacketRef::Publish(publish) = PacketRef::decode(&wire.wire, wire.version).expect("it is valid")
    else {
        unreachable!("it is a PUBLISH");
    };
    let bytes = publish.properties.as_bytes();
    group.bench_function("check-five", |b| {
        b.iter(|| Properties::parse(black_box(bytes), PropertyContext::Publish));
    });
    group.bench_function("walk-five", |b| b.iter(|| black_box(publish.properties).iter().count()));
    group.bench_function("get-third", |b| b.iter(|| black_box(publish.properties).content_type()));
    group.finish();
}

criterion_group!(benches, decode, encode, topics, properties);
criterion_main!(benches);
