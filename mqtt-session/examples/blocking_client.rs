//! The client machine over a blocking socket: subscribe, publish, print what comes back.
//!
//! `cargo run -p mqtt-session --example blocking_client -- 127.0.0.1:1883`
//!
//! The machine decides everything; this only opens a connection, moves bytes and keeps time.
#![allow(clippy::disallowed_methods, reason = "an adapter has a clock")]

use mqtt_proto::{PropertiesBuf, QoS};
use mqtt_session::client::{Client, ClientConfig, DisconnectOptions, Event, LinkDown, Output};
use mqtt_session::{Message, Timestamp};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".into());
    let start = Instant::now();
    let now = || Timestamp::ZERO + start.elapsed();
    let mut client = Client::new(ClientConfig { reconnect: None, ..ClientConfig::new("example") }, now())?;
    client.subscribe(now(), &[("hello/#", QoS::AtLeastOnce.into())], &PropertiesBuf::new())?;
    client.publish(now(), Message::new("hello/world", "Hello!").with_qos(QoS::AtLeastOnce))?;
    client.connect(now());
    let mut socket: Option<TcpStream> = None;
    let mut buffer = [0; 4096];
    loop {
        while let Some(output) = client.poll_output() {
            match output {
                Output::Dial { .. } => match TcpStream::connect(&address).map(|stream| socket = Some(stream))
                {
                    Ok(()) => client.handle_link_up(now()),
                    Err(_) => client.handle_link_down(now(), LinkDown::DialFailed),
                },
                Output::Flush => send(&mut client, now(), &mut socket),
                Output::HangUp => {
                    send(&mut client, now(), &mut socket);
                    socket = None;
                    client.handle_link_down(now(), LinkDown::Closed);
                }
                Output::Event(Event::Message(received)) => {
                    println!("{}: {:?}", received.message.topic, received.message.payload);
                    client.disconnect(now(), DisconnectOptions::default());
                }
                Output::Event(Event::Disconnected(why)) => {
                    println!("{}", why.cause);
                    return Ok(());
                }
                _ => {}
            }
        }
        let Some(stream) = &mut socket else { continue };
        let wait = client.poll_timeout().map(|at| at.since(now()).max(Duration::from_millis(1)));
        stream.set_read_timeout(wait)?;
        match stream.read(&mut buffer) {
            Ok(0) => client.handle_link_down(now(), LinkDown::Closed),
            Ok(n) => client.handle_read(now(), &buffer[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                client.handle_timeout(now());
            }
            Err(_) => client.handle_link_down(now(), LinkDown::Failed),
        }
    }
}

fn send(client: &mut Client, now: Timestamp, socket: &mut Option<TcpStream>) {
    let Some(stream) = socket else { return };
    loop {
        let mut outbox = client.outbox(now, 64 * 1024);
        let mut slices = [&[][..]; 1];
        if outbox.fill_slices(&mut slices) == 0 {
            return;
        }
        match stream.write(slices[0]) {
            Ok(n) => outbox.consume(n),
            // The next read tells what is the matter.
            Err(_) => return,
        }
    }
}
