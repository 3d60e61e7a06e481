//! One face for the two clients that rumqttc has.

use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

/// How to connect.
#[derive(Clone, Default)]
pub struct Setup {
    pub name: String,
    pub keep_session: bool,
    pub manual_acks: bool,
    /// Topic and QoS of a will that says `gone`.
    pub will: Option<(String, u8)>,
}

#[derive(Debug, PartialEq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
}

impl Message {
    pub fn new(topic: &str, payload: &[u8], qos: u8) -> Self {
        Self { topic: topic.to_owned(), payload: payload.to_vec(), qos, retain: false, dup: false }
    }
}

/// What the event loop reports.
#[derive(Debug, PartialEq)]
pub enum Event {
    Connected {
        session_present: bool,
    },
    Lost(String),
    Subscribed(u8),
    Message(Message),
    /// A message of ours with QoS 1 or 2 is acknowledged.
    Done,
}

/// What a client is asked to do.
pub enum Request {
    Subscribe(String, u8),
    Publish(String, u8, bool, Vec<u8>),
    Disconnect,
}

pub struct Client {
    requests: mpsc::UnboundedSender<Request>,
    events: mpsc::UnboundedReceiver<Event>,
    messages: Vec<Message>,
    done: usize,
    tasks: Vec<JoinHandle<()>>,
}

impl Client {
    pub async fn next(&mut self) -> Event {
        timeout(LIMIT, self.events.recv()).await.expect("nothing happens").expect("an event loop that lives")
    }

    pub async fn next_but_loss(&mut self) -> Event {
        loop {
            match self.next().await {
                Event::Lost(_) => {}
                event => return event,
            }
        }
    }

    pub async fn message(&mut self) -> Message {
        if !self.messages.is_empty() {
            return self.messages.remove(0);
        }
        loop {
            match self.next().await {
                Event::Message(message) => return message,
                Event::Done => self.done += 1,
                other => panic!("{other:?} instead of a message"),
            }
        }
    }

    pub async fn done(&mut self) {
        while self.done == 0 {
            match self.next().await {
                Event::Message(message) => self.messages.push(message),
                Event::Done => self.done += 1,
                other => panic!("{other:?} instead of an acknowledgement"),
            }
        }
        self.done -= 1;
    }

    pub async fn subscribe(&mut self, topic: &str, qos: u8) {
        self.requests.send(Request::Subscribe(topic.to_owned(), qos)).unwrap();
        loop {
            match self.next().await {
                Event::Subscribed(granted) => return assert_eq!(granted, qos),
                Event::Done => self.done += 1,
                Event::Message(message) => self.messages.push(message),
                other => panic!("{other:?} instead of a SUBACK"),
            }
        }
    }

    pub fn publish(&mut self, topic: &str, qos: u8, retain: bool, payload: &[u8]) {
        self.requests.send(Request::Publish(topic.to_owned(), qos, retain, payload.to_vec())).unwrap();
    }

    pub async fn leave(mut self) {
        self.requests.send(Request::Disconnect).unwrap();
        while !matches!(self.next().await, Event::Lost(_)) {}
    }

    /// Ends the connection without a word.
    pub fn tear(self) {}
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Both modules of rumqttc look alike and share no type.
macro_rules! version {
    ($name:ident, $($root:ident)::+, $packets:path, |$o:ident, $setup:ident| $more:block, $will:expr, $code:path) => {
        pub mod $name {
            use super::*;
            use $packets as packets;
            use packets::Packet;
            use $($root)::+::mqttbytes::QoS;
            use $($root)::+::{AsyncClient, Event as Polled, MqttOptions};

            fn qos(level: u8) -> QoS {
                [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(level)]
            }

            pub fn start(port: u16, $setup: &Setup) -> Client {
                let mut $o = MqttOptions::new(&$setup.name, "127.0.0.1", port);
                $o.set_keep_alive(Duration::from_secs(30)).set_manual_acks($setup.manual_acks);
                $more
                if let Some((topic, level)) = &$setup.will {
                    $o.set_last_will($will(topic, qos(*level)));
                }
                let (client, mut polled) = AsyncClient::new($o, 100);
                let (requests, mut requested) = mpsc::unbounded_channel();
                let (event, events) = mpsc::unbounded_channel();
                let asking = tokio::spawn(async move {
                    while let Some(request) = requested.recv().await {
                        let asked = match request {
                            Request::Subscribe(topic, level) => client.subscribe(topic, qos(level)).await,
                            Request::Publish(topic, level, retain, payload) => {
                                client.publish(topic, qos(level), retain, payload).await
                            }
                            Request::Disconnect => client.disconnect().await,
                        };
                        asked.expect("a request");
                    }
                });
                let polling = tokio::spawn(async move {
                    loop {
                        let happened = match polled.poll().await {
                            Ok(Polled::Incoming(Packet::ConnAck(ack))) => {
                                Event::Connected { session_present: ack.session_present }
                            }
                            Ok(Polled::Incoming(Packet::SubAck(ack))) => Event::Subscribed(
                                match ack.return_codes.as_slice() {
                                    [$code(granted)] => *granted as u8,
                                    other => panic!("not subscribed: {other:?}"),
                                },
                            ),
                            Ok(Polled::Incoming(Packet::Publish(message))) => Event::Message(Message {
                                topic: String::from_utf8(message.topic.into()).expect("a topic"),
                                payload: message.payload.to_vec(),
                                qos: message.qos as u8,
                                retain: message.retain,
                                dup: message.dup,
                            }),
                            Ok(Polled::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => Event::Done,
                            Ok(_) => continue,
                            Err(e) => {
                                let _ = event.send(Event::Lost(e.to_string()));
                                tokio::time::sleep(Duration::from_millis(300)).await;
                                continue;
                            }
                        };
                        let _ = event.send(happened);
                    }
                });
                Client { requests, events, messages: Vec::new(), done: 0, tasks: vec![asking, polling] }
            }
        }
    };
}

version!(
    v4,
    rumqttc,
    rumqttc,
    |options, setup| {
        options.set_clean_session(!setup.keep_session);
        options.set_inflight(50);
    },
    |topic: &String, qos| packets::LastWill::new(topic, "gone", qos, false),
    packets::SubscribeReasonCode::Success
);

version!(
    v5,
    rumqttc::v5,
    rumqttc::v5::mqttbytes::v5,
    |options, setup| {
        options.set_clean_start(!setup.keep_session);
        if setup.keep_session {
            options.set_session_expiry_interval(Some(600));
        }
    },
    |topic: &String, qos| packets::LastWill::new(topic.clone(), "gone", qos, false, None),
    packets::SubscribeReasonCode::Success
);
