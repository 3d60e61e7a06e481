//! rumqttc against a broker: `interop-rumqttc PORT VERSION SCENARIO`, where the version is 4 (which is
//! MQTT 3.1.1) or 5. A scenario that does not go as it should panics.

mod client;

use client::{Client, Event, Message, Setup};
use std::time::Duration;

/// What one scenario does, whatever the version.
struct Run {
    port: u16,
    version: u8,
    scenario: String,
}

impl Run {
    fn client(&self, setup: Setup) -> Client {
        match self.version {
            4 => client::v4::start(self.port, &setup),
            5 => client::v5::start(self.port, &setup),
            other => panic!("no version {other}"),
        }
    }

    fn named(&self, name: &str) -> Setup {
        Setup { name: format!("rumqttc-{}-{}-{name}", self.version, self.scenario), ..Setup::default() }
    }

    fn topic(&self, last: &str) -> String {
        format!("rumqttc/{}/{}/{last}", self.version, self.scenario)
    }

    async fn connected(&self, setup: Setup, session_present: bool) -> Client {
        let mut client = self.client(setup);
        assert_eq!(client.next().await, Event::Connected { session_present });
        client
    }

    /// What each QoS on each side makes of 50 messages.
    async fn qos(&self) {
        let mut publisher = self.connected(self.named("publisher"), false).await;
        let mut subscriber = self.connected(self.named("subscriber"), false).await;
        for published in 0..3 {
            for subscribed in 0..3 {
                let topic = self.topic(&format!("{published}{subscribed}"));
                subscriber.subscribe(&topic, subscribed).await;
                for n in 0..50_u8 {
                    publisher.publish(&topic, published, false, &[n]);
                }
                for n in 0..50_u8 {
                    let expected = Message::new(&topic, &[n], published.min(subscribed));
                    assert_eq!(subscriber.message().await, expected);
                    if published > 0 {
                        publisher.done().await;
                    }
                }
            }
        }
    }

    async fn retained(&self) {
        let mut client = self.connected(self.named("a"), false).await;
        let topic = self.topic("t");
        for payload in ["one", "two"] {
            client.publish(&topic, 1, true, payload.as_bytes());
            client.done().await;
        }
        client.subscribe(&topic, 1).await;
        assert_eq!(client.message().await, Message { retain: true, ..Message::new(&topic, b"two", 1) });
        client.publish(&topic, 1, true, b"");
        assert_eq!(client.message().await, Message::new(&topic, b"", 1));
        let mut late = self.connected(self.named("late"), false).await;
        late.subscribe(&topic, 1).await;
        late.publish(&topic, 1, false, b"end");
        assert_eq!(late.message().await, Message::new(&topic, b"end", 1));
    }

    async fn will(&self) {
        let topic = self.topic("t");
        let mut watcher = self.connected(self.named("watcher"), false).await;
        watcher.subscribe(&topic, 2).await;
        let setup = Setup { will: Some((topic.clone(), 2)), ..self.named("victim") };
        self.connected(setup, false).await.tear();
        assert_eq!(watcher.message().await, Message::new(&topic, b"gone", 2));
    }

    /// Messages wait for a client that was torn off; what it did not acknowledge comes again.
    async fn session(&self) {
        let topic = self.topic("t");
        let setup = Setup { keep_session: true, ..self.named("a") };
        let mut publisher = self.connected(self.named("publisher"), false).await;
        let mut client = self.connected(setup.clone(), false).await;
        client.subscribe(&topic, 1).await;
        client.tear();
        for round in 0..3_u8 {
            for n in 0..50 {
                publisher.publish(&topic, 1, false, &[round, n]);
                publisher.done().await;
            }
            let mut client = self.connected(setup.clone(), true).await;
            for n in 0..50 {
                assert_eq!(client.message().await, Message::new(&topic, &[round, n], 1));
            }
            client.leave().await;
        }
        let lazy = Setup { manual_acks: true, ..setup.clone() };
        let mut client = self.connected(lazy, true).await;
        publisher.publish(&topic, 1, false, b"unacknowledged");
        assert_eq!(client.message().await, Message::new(&topic, b"unacknowledged", 1));
        client.tear();
        let mut client = self.connected(setup, true).await;
        let again = Message { dup: true, ..Message::new(&topic, b"unacknowledged", 1) };
        assert_eq!(client.message().await, again);
    }

    /// rumqttc comes back by itself, and its session is still there.
    async fn reconnect(&self) {
        let topic = self.topic("t");
        let setup = Setup { keep_session: true, ..self.named("a") };
        let mut client = self.connected(setup.clone(), false).await;
        client.subscribe(&topic, 2).await;
        // Its name in another's hands ends its connection; the other leaves before it is back.
        let mut thief = self.client(setup);
        assert_eq!(thief.next().await, Event::Connected { session_present: true });
        thief.tear();
        assert_eq!(client.next_but_loss().await, Event::Connected { session_present: true });
        client.publish(&topic, 2, false, b"x");
        assert_eq!(client.message().await, Message::new(&topic, b"x", 2));
    }

    /// 5,000 messages under way in both directions at the same time.
    async fn flood(&self) {
        let topics = [self.topic("a"), self.topic("b")];
        let mut clients = Vec::new();
        for (name, topic) in ["a", "b"].iter().zip(&topics) {
            let mut client = self.connected(self.named(name), false).await;
            client.subscribe(topic, 2).await;
            clients.push(client);
        }
        for n in 0..5000_u16 {
            clients[0].publish(&topics[1], (n % 3) as u8, false, &n.to_be_bytes());
            clients[1].publish(&topics[0], (n % 3) as u8, false, &n.to_be_bytes());
        }
        for (client, topic) in clients.iter_mut().zip(&topics) {
            // Each QoS keeps its own order.
            let mut next = [0_u16, 1, 2];
            for _ in 0..5000 {
                let message = client.message().await;
                let number = &mut next[usize::from(message.qos)];
                assert_eq!(message, Message::new(topic, &number.to_be_bytes(), message.qos));
                *number += 3;
            }
        }
    }

    async fn run(&self) {
        match self.scenario.as_str() {
            "qos" => self.qos().await,
            "retained" => self.retained().await,
            "will" => self.will().await,
            "session" => self.session().await,
            "reconnect" => self.reconnect().await,
            "flood" => self.flood().await,
            other => panic!("no scenario {other}"),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: interop-rumqttc PORT VERSION SCENARIO");
    let port = next().parse().expect("a port");
    let version = next().parse().expect("a version");
    let run = Run { port, version, scenario: next() };
    tokio::time::timeout(Duration::from_secs(60), run.run()).await.expect("takes too long");
}
