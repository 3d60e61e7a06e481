//! What the clients of a benchmark do.

use super::report::Counters;
use super::{Abort, Load, Mode, Worker};
use crate::stop::Stop;
use bytes::Bytes;
use mqtt_proto::{QoS, TopicName, Version};
use mqtt_session::Message;
use mqtt_tokio::client::{Client, Completion, Item};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// So many a second, evenly.
pub(super) struct Pace {
    each: Duration,
    next: Instant,
}

impl Pace {
    /// `rate` 0: as fast as it goes.
    pub(super) fn new(rate: u32) -> Self {
        let each = Duration::from_secs(1).checked_div(rate).unwrap_or_default();
        Self { each, next: Instant::now() }
    }

    pub(super) async fn wait(&mut self) {
        if self.each.is_zero() {
            return;
        }
        let now = Instant::now();
        if self.next > now {
            tokio::time::sleep_until(self.next.into()).await;
        }
        // What is late is made up for, so that the rate holds.
        self.next += self.each;
    }
}

/// A task that works, or a subscription that waits.
pub(super) struct Task {
    task: Abort<()>,
    /// Whether it ends by itself.
    ends: bool,
}

/// Starts what the mode wants.
pub(super) async fn start(
    mode: &Mode,
    workers: &[Worker],
    version: Version,
    counters: &Arc<Counters>,
) -> Result<Vec<Task>, Stop> {
    let qos = mode.common().connection.qos;
    let epoch = Instant::now();
    let mut tasks = Vec::new();
    let mut publishers = Vec::new();
    match mode {
        Mode::Connect(_) => {}
        Mode::Publish(options) => {
            for worker in workers {
                let topic = worker.topic(&options.topic, worker.number);
                publishers.push((worker, topic, &options.load, None));
            }
        }
        Mode::Subscribe(options) => {
            for worker in workers {
                let filter = worker.topic(&options.topic, worker.number);
                tasks.push(subscriber(worker, &filter, qos, version, counters, None).await?);
            }
        }
        Mode::Latency(options) => {
            for pair in workers.chunks_exact(2) {
                let [from, to] = pair else { continue };
                let topic = from.topic(&options.topic, from.number.div_ceil(2));
                tasks.push(subscriber(to, &topic, qos, version, counters, Some(epoch)).await?);
                publishers.push((from, topic, &options.load, Some(epoch)));
            }
        }
    }
    // Nobody publishes before all have subscribed.
    counters.measure();
    for (worker, topic, load, epoch) in publishers {
        tasks.push(publisher(worker, topic, load, qos, counters, epoch)?);
    }
    Ok(tasks)
}

/// Until everything that ends by itself has ended, and what it sent has arrived.
pub(super) async fn finished(tasks: &mut [Task], counters: &Counters) {
    if !tasks.iter().any(|task| task.ends) {
        std::future::pending::<()>().await;
    }
    for task in tasks.iter_mut().filter(|task| task.ends) {
        // A task that failed has ended, too.
        let _ = (&mut task.task.0).await;
    }
    let mut patience = 200;
    while tasks.iter().any(|task| !task.ends) && counters.on_the_way() && patience > 0 {
        patience -= 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A payload begins with the time at which it was sent, where that is asked for.
fn payload(size: usize, epoch: Option<Instant>) -> Bytes {
    let Some(epoch) = epoch else { return vec![b'x'; size].into() };
    let mut payload = vec![b'x'; size.max(8)];
    let nanos = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
    if let Some(head) = payload.first_chunk_mut() {
        *head = nanos.to_be_bytes();
    }
    payload.into()
}

fn publisher(
    worker: &Worker,
    topic: String,
    load: &Load,
    qos: QoS,
    counters: &Arc<Counters>,
    epoch: Option<Instant>,
) -> Result<Task, Stop> {
    TopicName::new(&topic).map_err(|e| Stop::new(format!("{topic}: {e}")))?;
    let (client, counters) = (worker.client.clone(), Arc::clone(counters));
    let (size, rate, count, window, retain) = (load.size, load.rate, load.count, load.window, load.retain);
    let plain = payload(size, None);
    let task = tokio::spawn(async move {
        let (open, answers) = mpsc::channel(usize::from(window));
        let timed = qos > QoS::AtMostOnce && epoch.is_none();
        let answered = tokio::spawn(answered(answers, size, timed, counters));
        let mut pace = Pace::new(rate);
        let mut left = count;
        loop {
            pace.wait().await;
            let Ok(place) = open.reserve().await else { break };
            let payload = if epoch.is_some() { payload(size, epoch) } else { plain.clone() };
            let mut message = Message::new(topic.as_str(), payload).with_qos(qos);
            message.retain = retain;
            let begun = Instant::now();
            // Its end is told with the reason.
            let Ok(completion) = client.enqueue(message).await else { break };
            place.send((begun, completion));
            if count != 0 {
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        drop(open);
        let _ = answered.await;
    });
    Ok(Task { task: Abort(task), ends: count != 0 })
}

/// Sees what becomes of each message. Answers come in order.
async fn answered(
    mut open: mpsc::Receiver<(Instant, Completion)>,
    size: usize,
    timed: bool,
    counters: Arc<Counters>,
) {
    while let Some((begun, completion)) = open.recv().await {
        match completion.await {
            Ok(_) => counters.sent(size, timed.then(|| begun.elapsed())),
            Err(_) => counters.refused(),
        }
    }
}

async fn subscriber(
    worker: &Worker,
    filter: &str,
    qos: QoS,
    version: Version,
    counters: &Arc<Counters>,
    epoch: Option<Instant>,
) -> Result<Task, Stop> {
    let client: &Client = &worker.client;
    let mut stream = client.subscribe(filter, qos).await.map_err(|e| Stop::client(&e, version))?;
    let counters = Arc::clone(counters);
    let task = tokio::spawn(async move {
        while let Some(item) = stream.recv().await {
            match item {
                Item::Message(delivery) => {
                    let message = delivery.into_message();
                    let sent = epoch.zip(message.payload.first_chunk()).map(|(epoch, head)| {
                        epoch.elapsed().saturating_sub(Duration::from_nanos(u64::from_be_bytes(*head)))
                    });
                    counters.received(message.payload.len(), sent);
                }
                Item::Lagged(messages) => counters.lagged(messages),
                _ => {}
            }
        }
    });
    Ok(Task { task: Abort(task), ends: false })
}
