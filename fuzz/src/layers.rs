//! What lies between a socket and MQTT, with peers that send whatever they like: PROXY headers and WebSocket.

use mqtt_io::stack::WebSocketServer;
use mqtt_io::{Effect, Shard, Stack, Wire};
use mqtt_session::Timestamp;
use mqtt_session::broker::{BrokerConfig, Peer, Stats};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

/// The bodies by the name of their target.
#[allow(dead_code, reason = "the targets call the bodies themselves")]
#[allow(clippy::type_complexity, reason = "a list of names and functions")]
pub const ALL: [(&str, fn(&[u8])); 1] = [("layers", layers)];

const HANDSHAKE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";

/// Takes everything and keeps it.
struct Socket(Rc<RefCell<Vec<u8>>>);

impl Wire for Socket {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut kept = self.0.borrow_mut();
        slices.iter().for_each(|slice| kept.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
}

/// What a peer sees and what the broker counted.
struct Outcome {
    written: Vec<u8>,
    closed: bool,
    stats: Stats,
}

/// Has a connection with these layers read `input`, cut into pieces of `size`.
fn talk(kind: u8, input: &[u8], size: usize) -> Outcome {
    let now = Timestamp::ZERO;
    let mut shard = match Shard::new(BrokerConfig::default(), now) {
        Ok(shard) => shard,
        Err(error) => panic!("the default settings are wrong: {error:?}"),
    };
    let settings = WebSocketServer::default();
    let stack = match kind % 4 {
        0 => Stack::plain().behind_proxy(),
        1 => Stack::plain().websocket_accepted(settings.max_message),
        2 => Stack::plain().websocket_server(Arc::new(settings)),
        _ => Stack::plain().behind_proxy().websocket_server(Arc::new(settings)),
    };
    let written = Rc::default();
    let socket = Socket(Rc::clone(&written));
    let conn = shard.accept(now, Peer::default(), stack, |_| socket);
    let mut closed = false;
    for piece in input.chunks(size.max(1)) {
        let _ = shard.read(now, conn, piece, Waker::noop());
        shard.flush(now);
        let mut effects = Vec::new();
        shard.take_effects(&mut effects);
        closed |= effects.iter().any(|effect| matches!(effect, Effect::Close { .. }));
    }
    let stats = shard.stats();
    Outcome { written: written.take(), closed, stats }
}

/// The first byte picks the layers and what comes before the rest, the second how it is cut.
pub fn layers(data: &[u8]) {
    let [kind, cut, rest @ ..] = data else { return };
    // Half of the time the peer gets past what is hard to guess.
    let mut input = Vec::new();
    if kind & 8 != 0 {
        if kind % 4 == 3 {
            input.extend_from_slice(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
        }
        if kind % 4 >= 2 {
            input.extend_from_slice(HANDSHAKE);
        }
        if kind & 16 != 0 && kind % 4 != 0 {
            // A frame of its own, with a mask of zeros.
            input.extend_from_slice(&[0x82, 0x80 | CONNECT.len() as u8, 0, 0, 0, 0]);
            input.extend_from_slice(CONNECT);
        }
    }
    input.extend_from_slice(rest);
    let whole = talk(*kind, &input, input.len());
    let pieces = talk(*kind, &input, usize::from(*cut) + 1);
    // Where a stream is cut means nothing.
    let counted = |outcome: &Outcome| {
        let c = outcome.stats.counters;
        (outcome.closed, c.connects, c.accepted, c.malformed, c.packets_received, c.publish_received)
    };
    assert_eq!(counted(&whole), counted(&pieces), "the same bytes, cut differently");
    for outcome in [&whole, &pieces] {
        let most = 20 * input.len() + 4096;
        assert!(outcome.written.len() <= most, "{} bytes for {}", outcome.written.len(), input.len());
    }
}
