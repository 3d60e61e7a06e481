//! How cost grows: the broker machine without sockets, on one core, with more and more of something.
//!
//! ```text
//! cargo run --profile dist -p mqtt-benches --example scale -- docs/scale.svg
//! ```
//!
//! Prints nanoseconds for each message and draws them; the best of five rounds each, because what disturbs only
//! adds.

use mqtt_proto::{
    ConnectRef, PacketId, PacketRef, Properties, PublishRef, QoS, SubscribeFiltersBuf, SubscribeRef,
    SubscriptionOptions, Version,
};
use mqtt_session::broker::{BrokerConfig, ConnectionId, Output, Peer};
use mqtt_session::{Broker, Timestamp};
use plotters::prelude::*;
use std::error::Error;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NOW: Timestamp = Timestamp::ZERO;
const ROUNDS: usize = 5;

/// A broker, and whoever is to be written to.
struct Site {
    broker: Broker,
    dirty: Vec<ConnectionId>,
    written: usize,
}

impl Site {
    fn new() -> Result<Self> {
        let mut config = BrokerConfig::default();
        config.max_queued_messages = u32::MAX;
        config.max_queued_bytes = usize::MAX;
        config.max_message_bytes = usize::MAX;
        config.max_retained = u32::MAX;
        config.work_budget = u32::MAX;
        Ok(Self { broker: Broker::new(config, NOW)?, dirty: Vec::new(), written: 0 })
    }

    fn connect(&mut self, client_id: &str) -> Result<ConnectionId> {
        let conn = self.broker.handle_accept(NOW);
        self.broker.handle_identified(NOW, conn, Peer::default());
        let connect =
            ConnectRef { client_id, version: Version::V311, clean_start: true, ..Default::default() };
        self.read(conn, &encode(&PacketRef::Connect(connect))?);
        Ok(conn)
    }

    fn subscribe(&mut self, conn: ConnectionId, filter: &str) -> Result<()> {
        let mut filters = SubscribeFiltersBuf::new();
        filters.push(filter, SubscriptionOptions::from(QoS::AtMostOnce))?;
        let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
        let packet = SubscribeRef { packet_id, properties, filters: filters.as_filters() };
        self.read(conn, &encode(&PacketRef::Subscribe(packet))?);
        Ok(())
    }

    /// A read of a socket, and the writes that come of it.
    fn read(&mut self, conn: ConnectionId, bytes: &[u8]) {
        let _ = self.broker.handle_read(NOW, conn, bytes);
        loop {
            while let Some(output) = self.broker.poll_output() {
                if let Output::Flush(conn) = output {
                    self.dirty.push(conn);
                }
            }
            let Some(conn) = self.dirty.pop() else { return };
            let outbox = self.broker.outbox(NOW, conn, 64 << 10);
            let len = outbox.len();
            self.written += len;
            outbox.consume(len);
        }
    }
}

fn encode(packet: &PacketRef<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    packet.encode(Version::V311, &mut bytes)?;
    Ok(bytes)
}

fn publish(topic: &str, payload: &[u8], retain: bool) -> Result<Vec<u8>> {
    encode(&PacketRef::Publish(PublishRef { topic, payload, retain, ..Default::default() }))
}

/// Nanoseconds for each of `count` things, at best.
fn time(count: usize, mut round: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round()?;
        best = best.min(start.elapsed());
    }
    Ok(best.as_secs_f64() * 1e9 / count as f64)
}

/// One line of one picture.
struct Curve {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

impl Curve {
    fn new(name: &'static str, counts: &[usize], cost: impl Fn(usize) -> Result<f64>) -> Result<Self> {
        let mut points = Vec::new();
        for &count in counts {
            let ns = cost(count)?;
            println!("{name}\t{count}\t{ns:.1}");
            points.push((count.max(1) as f64, ns));
        }
        Ok(Self { name, points })
    }
}

/// One message at a time to one subscriber, while `filters` others match nothing. With several topics they
/// come one after another, so that none is remembered.
fn filters(filters: usize, topics: usize) -> Result<f64> {
    let mut site = Site::new()?;
    let (publisher, subscriber) = (site.connect("publisher")?, site.connect("subscriber")?);
    site.subscribe(subscriber, "site/+/device/#")?;
    for n in 0..filters {
        site.subscribe(subscriber, &format!("elsewhere/{}/device/{n:06}", n % 100))?;
    }
    let packets: Result<Vec<_>> = (0..topics)
        .map(|n| publish(&format!("site/{}/device/{n:06}", n % 100), &[b'x'; 64], false))
        .collect();
    let packets = packets?;
    let count = 100_000;
    time(count, || {
        packets.iter().cycle().take(count).for_each(|packet| site.read(publisher, packet));
        Ok(())
    })
}

/// To so many subscribers of one topic, for each delivery.
fn subscribers(subscribers: usize) -> Result<f64> {
    let mut site = Site::new()?;
    let publisher = site.connect("publisher")?;
    for n in 0..subscribers {
        let conn = site.connect(&format!("subscriber-{n}"))?;
        site.subscribe(conn, "news")?;
    }
    let batch = publish("news", &[b'x'; 64], false)?.repeat(32);
    let reads = (100_000 / subscribers).max(4);
    time(reads * 32 * subscribers, || {
        (0..reads).for_each(|_| site.read(publisher, &batch));
        Ok(())
    })
}

/// So many connections, each publishing to itself, one after another.
fn connections(connections: usize) -> Result<f64> {
    let mut site = Site::new()?;
    let mut clients = Vec::new();
    for n in 0..connections {
        let (conn, topic) = (site.connect(&format!("client-{n}"))?, format!("client/{n}/self"));
        site.subscribe(conn, &topic)?;
        clients.push((conn, publish(&topic, &[b'x'; 64], false)?));
    }
    let count = 200_000;
    time(count, || {
        clients.iter().cycle().take(count).for_each(|(conn, packet)| site.read(*conn, packet));
        Ok(())
    })
}

/// So many retained messages: setting one anew, or reading them all.
fn retained(messages: usize, read: bool) -> Result<f64> {
    let mut site = Site::new()?;
    let publisher = site.connect("publisher")?;
    let topic = |n: usize| format!("site/{}/device/{n:07}", n % 100);
    for n in 0..messages {
        let packet = publish(&topic(n), &[b'x'; 64], true)?;
        site.read(publisher, &packet);
    }
    if read {
        let reader = site.connect("reader")?;
        return time(messages, || site.subscribe(reader, "#"));
    }
    let count = messages.min(100_000);
    let step = messages / count;
    let packets: Result<Vec<_>> = (0..count).map(|n| publish(&topic(n * step), &[b'y'; 64], true)).collect();
    let packets = packets?;
    let repeat = (100_000 / count).max(1);
    time(count * repeat, || {
        (0..repeat).for_each(|_| packets.iter().for_each(|packet| site.read(publisher, packet)));
        Ok(())
    })
}

/// A payload of so many bytes to one subscriber.
fn payload(bytes: usize) -> Result<f64> {
    let mut site = Site::new()?;
    let (publisher, subscriber) = (site.connect("publisher")?, site.connect("subscriber")?);
    site.subscribe(subscriber, "t")?;
    let packet = publish("t", &vec![b'x'; bytes], false)?;
    let count = (64 << 20) / (bytes + 1000);
    time(count, || {
        (0..count).for_each(|_| site.read(publisher, &packet));
        Ok(())
    })
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).ok_or("usage: scale FILE.svg")?;
    let tens = |most: usize| -> Vec<usize> {
        let tens = std::iter::successors(Some(1), |n| Some(n * 10)).take_while(|&n| n < most);
        tens.flat_map(|n| [n, 3 * n]).take_while(|&n| n < most).chain([most]).collect()
    };
    let bytes: Vec<usize> = [0].into_iter().chain((2..=20).step_by(2).map(|n| 1 << n)).collect();
    let pictures = [
        (
            "filters that match nothing",
            "ns for a message",
            vec![
                Curve::new("one topic", &tens(100_000), |n| filters(n, 1))?,
                Curve::new("10,000 topics in turn", &tens(100_000), |n| filters(n, 10_000))?,
            ],
        ),
        ("subscribers of one topic", "ns for a delivery", vec![Curve::new("", &tens(10_000), subscribers)?]),
        (
            "connections, each with its own topic",
            "ns for a message",
            vec![Curve::new("", &tens(19_000), connections)?],
        ),
        (
            "retained messages",
            "ns for each",
            vec![
                Curve::new("set anew", &tens(1_000_000), |n| retained(n, false))?,
                Curve::new("read", &tens(1_000_000), |n| retained(n, true))?,
            ],
        ),
        ("bytes of payload", "ns for a message", vec![Curve::new("", &bytes, payload)?]),
    ];
    draw(&path, &pictures)
}

fn draw(path: &str, pictures: &[(&str, &str, Vec<Curve>)]) -> Result<()> {
    let area = SVGBackend::new(path, (960, 900)).into_drawing_area();
    area.fill(&WHITE)?;
    for (place, (title, unit, curves)) in area.split_evenly((3, 2)).iter().zip(pictures) {
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(1.0, f64::max);
        let (x, y) = (most(|point| point.0), most(|point| point.1));
        let least = points().map(|point| point.1).fold(y, f64::min);
        let mut chart = ChartBuilder::on(place)
            .caption(*title, ("sans-serif", 17))
            .margin(12)
            .margin_right(30)
            .x_label_area_size(34)
            .y_label_area_size(58)
            .build_cartesian_2d((1.0..x).log_scale(), (least / 2.0..y * 2.0).log_scale())?;
        let short = |value: &f64| match *value {
            v if v >= 1e6 => format!("{}M", v / 1e6),
            v if v >= 1e3 => format!("{}k", v / 1e3),
            v => v.to_string(),
        };
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT).y_labels(8).y_desc(*unit).label_style(("sans-serif", 13));
        mesh.x_label_formatter(&short).y_label_formatter(&short).draw()?;
        for (curve, color) in curves.iter().zip([BLUE, RED]) {
            let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2)).point_size(3);
            let series = chart.draw_series(line)?;
            if !curve.name.is_empty() {
                series.label(curve.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color));
            }
        }
        if curves.len() > 1 {
            let mut labels = chart.configure_series_labels();
            labels.position(SeriesLabelPosition::UpperLeft).label_font(("sans-serif", 13));
            labels.background_style(WHITE.mix(0.8)).draw()?;
        }
    }
    area.present()?;
    Ok(())
}
