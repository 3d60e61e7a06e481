//! A proxy that prints the packets in both directions: one [`ServerConnection`] for each client, and no
//! broker behind it.
//!
//! ```text
//! cargo run -p mqtt-session --example proxy -- 127.0.0.1:1884 127.0.0.1:1883
//! mosquitto_sub -p 1884 -t '#'
//! ```
//!
//! The connection keeps the rules that concern one client: packet sizes, CONNECT first, the version,
//! aliases, keep alive. The proxy sees packets only, and passes them on.
#![allow(clippy::disallowed_methods, reason = "an adapter has a clock")]

use mqtt_proto::{ConnectRef, EncodeError, MAX_PACKET_SIZE, PacketRef, PropertiesBuf, PropertyId};
use mqtt_proto::{ReasonCode, Version};
use mqtt_session::server::{Output, ServerConfig, ServerConnection};
use mqtt_session::{Seed, Timestamp};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let listener = TcpListener::bind(args.next().unwrap_or_else(|| "127.0.0.1:1884".into()))?;
    let server = args.next().unwrap_or_else(|| "127.0.0.1:1883".into());
    println!("listening on {}", listener.local_addr()?);
    for client in listener.incoming() {
        let (client, server) = (client?, server.clone());
        std::thread::spawn(move || {
            let ended = TcpStream::connect(server).and_then(|server| Proxy::new(client, server).run());
            println!("the end: {ended:?}");
        });
    }
    Ok(())
}

struct Proxy {
    client: TcpStream,
    server: TcpStream,
    connection: Mutex<ServerConnection>,
    start: Instant,
}

impl Proxy {
    fn new(client: TcpStream, server: TcpStream) -> Self {
        // A secret, for the table of topics that others choose.
        let mut seed = [0; 16];
        seed[..8].copy_from_slice(&RandomState::new().hash_one(0).to_le_bytes());
        // PINGREQ is the server's to answer.
        let config = ServerConfig { seed: Seed(seed), answer_pings: false, ..ServerConfig::default() };
        let connection = Mutex::new(ServerConnection::new(config, Timestamp::ZERO));
        Self { client, server, connection, start: Instant::now() }
    }

    /// Two threads, one for each direction. When one ends, both do.
    fn run(&self) -> io::Result<()> {
        let end = |ended| {
            let _ = self.server.shutdown(Shutdown::Both);
            let _ = self.client.shutdown(Shutdown::Both);
            ended
        };
        std::thread::scope(|scope| {
            let back = scope.spawn(|| end(self.server_speaks()));
            let there = end(self.client_speaks());
            there.and(back.join().unwrap_or(Ok(())))
        })
    }

    fn client_speaks(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let wait = self.lock().poll_timeout().map(|at| at.since(self.now()));
            self.client.set_read_timeout(wait.map(|wait| wait.max(Duration::from_millis(1))))?;
            let read = (&self.client).read(&mut buffer);
            let mut connection = self.lock();
            match read {
                Ok(0) => connection.handle_close(self.now()),
                Ok(n) => connection.handle_read(self.now(), &buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    connection.handle_timeout(self.now());
                }
                Err(e) => return Err(e),
            }
            if self.pass_on(&mut connection)? {
                return Ok(());
            }
        }
    }

    fn server_speaks(&self) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let n = (&self.server).read(&mut buffer)?;
            bytes.extend_from_slice(&buffer[..n]);
            let mut connection = self.lock();
            let version = connection.version();
            while let Some((packet, len)) =
                PacketRef::decode_next(&bytes, version, MAX_PACKET_SIZE).map_err(io::Error::other)?
            {
                println!("server -> client  {packet:#.40}");
                connection.send(self.now(), &packet).map_err(io::Error::other)?;
                bytes.drain(..len);
            }
            if n == 0 {
                connection.hang_up(self.now(), ReasonCode::ServerUnavailable);
            }
            // CONNACK lets go what the client sent right behind CONNECT.
            if self.pass_on(&mut connection)? || n == 0 {
                return Ok(());
            }
        }
    }

    /// Passes packets of the client on to the server, and does what the connection says. True if it is
    /// over.
    fn pass_on(&self, connection: &mut ServerConnection) -> io::Result<bool> {
        let mut bytes = Vec::new();
        loop {
            let version = connection.version();
            let Some(packet) = connection.poll_packet(self.now()) else { break };
            println!("client -> server  {packet:#.40}");
            forward(packet, version, &mut bytes).map_err(io::Error::other)?;
        }
        // (A client that has closed may have said goodbye before.)
        let _ = (&self.server).write_all(&bytes);
        let mut over = false;
        while let Some(output) = connection.poll_output() {
            match output {
                Output::Flush => {
                    (&self.client).write_all(connection.outbox())?;
                    let sent = connection.outbox().len();
                    connection.consume(self.now(), sent);
                }
                Output::Hangup { .. } => over = true,
                other => println!("{other:?}"),
            }
        }
        Ok(over)
    }

    fn lock(&self) -> MutexGuard<'_, ServerConnection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.start.elapsed()
    }
}

/// Encodes a packet for the server. In CONNECT the client says how many aliases it takes: these belong
/// to a connection, so the server is told nothing of them.
fn forward(packet: PacketRef<'_>, version: Version, bytes: &mut Vec<u8>) -> Result<usize, EncodeError> {
    let PacketRef::Connect(connect) = packet else { return packet.encode(version, bytes) };
    let mut properties = PropertiesBuf::new();
    properties.extend_except(connect.properties, &[PropertyId::TopicAliasMaximum]);
    let properties = properties.as_properties();
    PacketRef::Connect(ConnectRef { properties, ..connect }).encode(version, bytes)
}
