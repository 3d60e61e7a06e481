//! What stands at the other end in a script: blocking sockets on threads, which no runtime drives.

use mqtt_proto::{ConnackRef, MAX_PACKET_SIZE, PacketRef, Version};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// Carries connections to a broker, until they are cut.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    links: Arc<Mutex<Vec<TcpStream>>>,
    closed: Arc<AtomicBool>,
}

impl Relay {
    pub(super) fn to(target: SocketAddr) -> Self {
        let (listener, address) = listen();
        let links: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let closed = Arc::new(AtomicBool::new(false));
        let relay = Self { address, links: Arc::clone(&links), closed: Arc::clone(&closed) };
        thread::spawn(move || {
            for near in listener.incoming() {
                // One that is not carried is closed.
                let Ok(near) = near else { return };
                if closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(target) else { continue };
                let (near_too, far_too) = (near.try_clone(), far.try_clone());
                let (Ok(near_too), Ok(far_too)) = (near_too, far_too) else { continue };
                {
                    let mut links = links.lock().unwrap_or_else(PoisonError::into_inner);
                    links.extend([near.try_clone(), far.try_clone()].into_iter().flatten());
                }
                thread::spawn(move || carry(near, far));
                thread::spawn(move || carry(far_too, near_too));
            }
        });
        relay
    }

    /// Cuts all connections, and lets no new one through until [`Relay::mend`].
    pub(super) fn cut(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for link in self.links.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = link.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn mend(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// A server that accepts connections and says nothing after CONNACK.
pub(super) fn mute_server() -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let Some(mut stream) = welcome(stream) else { return };
                let _ = io::copy(&mut stream, &mut io::sink());
            });
        }
    });
    address
}

/// A server that accepts one connection, and reads no further until `gate` opens. Then it reads to the
/// end, and gives the payloads of all messages.
pub(super) fn slow_server(
    gate: std::sync::mpsc::Receiver<()>,
) -> (SocketAddr, thread::JoinHandle<Vec<Vec<u8>>>) {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut stream = welcome(stream).expect("CONNECT");
        gate.recv().expect("the gate opens");
        let (mut bytes, mut payloads) = (Vec::new(), Vec::new());
        stream.read_to_end(&mut bytes).expect("everything");
        let mut rest = &bytes[..];
        while let Some((packet, len)) =
            PacketRef::decode_next(rest, Version::V5, MAX_PACKET_SIZE).expect("packets")
        {
            if let PacketRef::Publish(publish) = packet {
                payloads.push(publish.payload.to_vec());
            }
            rest = &rest[len..];
        }
        payloads
    });
    (address, server)
}

/// Reads CONNECT, byte by byte so that nothing behind it is taken, and answers it.
fn welcome(mut stream: TcpStream) -> Option<TcpStream> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while PacketRef::decode_next(&bytes, Version::V5, MAX_PACKET_SIZE).ok()?.is_none() {
        stream.read_exact(&mut byte).ok()?;
        bytes.extend(byte);
    }
    let mut connack = Vec::new();
    PacketRef::Connack(ConnackRef::default()).encode(Version::V5, &mut connack).ok()?;
    stream.write_all(&connack).ok()?;
    Some(stream)
}
