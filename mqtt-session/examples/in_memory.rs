//! A client and a broker in one process: no sockets, virtual time, every packet printed.
//!
//! ```text
//! cargo run -p mqtt-session --example in_memory
//! ```

use mqtt_proto::{PacketRef, PropertiesBuf, QoS, Version};
use mqtt_session::broker::{BrokerConfig, Closed, ConnectionId, Outbox, Output as BrokerOutput};
use mqtt_session::client::{Client, ClientConfig, Event, Output as ClientOutput};
use mqtt_session::{Broker, Message, Timestamp};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut now = Timestamp::ZERO;
    let mut broker = Broker::new(BrokerConfig::default(), now)?;
    let mut client = Client::new(ClientConfig::new("meter-17"), now)?;

    client.connect(now);
    client.subscribe(now, &[("meters/#", QoS::ExactlyOnce.into())], &PropertiesBuf::new())?;
    client.publish(now, Message::new("meters/17", "230.1").with_qos(QoS::ExactlyOnce))?;

    let mut link: Option<ConnectionId> = None;
    loop {
        let mut busy = false;
        while let Some(output) = client.poll_output() {
            busy = true;
            match output {
                ClientOutput::Dial { .. } => {
                    link = Some(broker.handle_accept(now));
                    client.handle_link_up(now);
                }
                ClientOutput::Flush => {
                    let mut outbox = client.outbox(now, 65_536);
                    let mut slices = [&[][..]; 16];
                    let used = outbox.fill_slices(&mut slices);
                    let bytes = slices[..used].concat();
                    outbox.consume(bytes.len());
                    show("client -> broker", &bytes);
                    if let Some(conn) = link {
                        // With nothing to ask and nothing to store, reading is never paused.
                        let _ = broker.handle_read(now, conn, &bytes);
                    }
                }
                ClientOutput::HangUp => {
                    if let Some(conn) = link.take() {
                        broker.handle_close(now, conn, Closed::Eof);
                    }
                }
                ClientOutput::Event(Event::Message(received)) => {
                    println!("{now:?}  the application got {:?}", received.message.payload);
                    client.disconnect(now, Default::default());
                }
                _ => {}
            }
        }
        while let Some(output) = broker.poll_output() {
            busy = true;
            if let BrokerOutput::Flush(conn) = output {
                let outbox = broker.outbox(now, conn, 65_536);
                let mut slices = [&[][..]; Outbox::MOST_SLICES];
                let used = outbox.fill_slices(&mut slices);
                let bytes = slices[..used].concat();
                outbox.consume(bytes.len());
                show("broker -> client", &bytes);
                client.handle_read(now, &bytes);
            }
        }
        if client.is_stopped() {
            return Ok(());
        }
        if !busy {
            // Nobody wants anything: time passes until somebody does.
            let next = [client.poll_timeout(), broker.poll_timeout()];
            now = next.into_iter().flatten().min().ok_or("nothing will ever happen")?.max(now);
            client.handle_timeout(now);
            broker.handle_timeout(now);
        }
    }
}

fn show(direction: &str, mut bytes: &[u8]) {
    while let Ok(Some((packet, len))) = PacketRef::decode_next(bytes, Version::V5, u32::MAX) {
        println!("{direction}  {packet:#.40}");
        bytes = &bytes[len..];
    }
}
