//! What a message costs in a client: ours beside rumqttc, each by itself on one thread.
//!
//! `clients ours|rumqttc pub|sub QOS COUNT PORT [PAYLOAD]` publishes to, or subscribes to `bench/out/topic` at,
//! 127.0.0.1 and prints the CPU time of this process for each message. The server should cost nothing that
//! matters and give at most 100 messages at once.

use mqtt_proto::QoS;
use mqtt_session::Message;
use mqtt_tokio::client::{Item, Options};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::error::Error;
use std::time::Instant;

const TOPIC: &str = "bench/out/topic";
/// Messages under way, as far as a library asks.
const CAPACITY: usize = 1000;
const INFLIGHT: u16 = 100;

#[derive(Clone, Copy)]
struct Job {
    publish: bool,
    at_least_once: bool,
    count: usize,
    port: u16,
    payload: usize,
}

struct Clock(Instant, f64);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), cpu())
    }

    fn report(&self, library: &str, job: Job) {
        let (wall, cpu, count) = (self.0.elapsed().as_secs_f64(), cpu() - self.1, job.count as f64);
        let what = if job.publish { "pub" } else { "sub" };
        let qos = u8::from(job.at_least_once);
        println!(
            "{library} {what} q{qos} {}B: {:.3} us/msg, {:.0} msg/s",
            job.payload,
            cpu / count * 1e6,
            count / wall
        );
    }
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

async fn ours(job: Job) -> Result<(), Box<dyn Error>> {
    let qos = if job.at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    let options =
        Options::from_url(&format!("mqtt://127.0.0.1:{}", job.port))?.version(mqtt_proto::Version::V311);
    let client = options
        .stream_capacity(1_000_000)
        .configure(|config| config.max_in_flight_3x = INFLIGHT)
        .connect()
        .await?;
    let mut clock = Clock::start();
    if job.publish {
        let payload = vec![b'x'; job.payload];
        let mut open = VecDeque::new();
        for _ in 0..job.count {
            if open.len() == CAPACITY
                && let Some(oldest) = open.pop_front()
            {
                let oldest: mqtt_tokio::client::Completion = oldest;
                oldest.await?;
            }
            open.push_back(client.enqueue(Message::new(TOPIC, payload.clone()).with_qos(qos)).await?);
        }
        for completion in open {
            completion.await?;
        }
    } else {
        let mut messages = client.subscribe(TOPIC, qos).await?;
        eprintln!("subscribed");
        let (mut seen, mut dropped) = (0, 0);
        while seen < job.count {
            match messages.recv().await {
                Some(Item::Message(_)) => {
                    if seen == 0 {
                        clock = Clock::start();
                    }
                    seen += 1;
                }
                // A full stream drops what is of QoS 0, and counts it: that work was done, too.
                Some(Item::Lagged(n)) => dropped += n,
                Some(_) => {}
                None => return Err("the connection ended".into()),
            }
        }
        if dropped > 0 {
            println!("dropped: {dropped} of {}", dropped + job.count as u64);
        }
    }
    clock.report("ours", job);
    Ok(())
}

async fn rumqttc(job: Job) -> Result<(), Box<dyn Error>> {
    use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, Outgoing, QoS};
    let mut options = MqttOptions::new("bench", "127.0.0.1", job.port);
    options.set_inflight(INFLIGHT).set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = AsyncClient::new(options, CAPACITY);
    let qos = if job.at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    let mut clock = Clock::start();
    let sender = tokio::spawn(async move {
        if job.publish {
            let payload = vec![b'x'; job.payload];
            for _ in 0..job.count {
                client.publish(TOPIC, qos, false, payload.clone()).await?;
            }
        } else {
            client.subscribe(TOPIC, qos).await?;
        }
        Ok::<_, rumqttc::ClientError>(client)
    });
    let mut seen = 0;
    while seen < job.count {
        match events.poll().await? {
            Event::Outgoing(Outgoing::Publish(_)) if job.publish && !job.at_least_once => seen += 1,
            Event::Incoming(Incoming::PubAck(_)) if job.publish => seen += 1,
            Event::Incoming(Incoming::Publish(_)) if !job.publish => {
                if seen == 0 {
                    clock = Clock::start();
                }
                seen += 1;
            }
            Event::Incoming(Incoming::SubAck(_)) => eprintln!("subscribed"),
            _ => {}
        }
    }
    clock.report("rumqttc", job);
    sender.await??;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: clients ours|rumqttc pub|sub QOS COUNT PORT [PAYLOAD]";
    let [library, what, qos, count, port, payload @ ..] = &args[..] else { return Err(usage.into()) };
    let job = Job {
        publish: what == "pub",
        at_least_once: qos != "0",
        count: count.parse()?,
        port: port.parse()?,
        payload: payload.first().map_or(Ok(64), |p| p.parse())?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match library.as_str() {
        "ours" => runtime.block_on(ours(job)),
        "rumqttc" => runtime.block_on(rumqttc(job)),
        _ => Err(usage.into()),
    }
}
