//! From one outbox to one socket.

use crate::Wire;
use crate::link::Link;
use crate::stack::Layers;
use crate::trace::{Drain, Machine};
use mqtt_session::Timestamp;
use mqtt_session::broker::{ConnectionId, Outbox};
use std::io::{ErrorKind, IoSlice};

/// Bytes that one drain of an outbox builds at most.
const FLUSH_BYTES: usize = 64 << 10;

pub(super) enum Written {
    /// The outbox was empty.
    Nothing,
    /// The socket took the whole outbox.
    All,
    /// It took less, or less was offered.
    Part,
    /// It takes nothing now.
    Blocked,
    /// It takes nothing any more.
    Failed,
}

/// One drain of one outbox into one write.
pub(super) fn write<W: Wire>(broker: &mut Machine, link: &mut Link<W>, now: Timestamp) -> Written {
    let Link { conn, wire, stack, .. } = link;
    if let Some(layers) = stack.layers_mut() {
        return write_layered(broker, *conn, wire, layers, now);
    }
    let outbox = broker.outbox(now, *conn, FLUSH_BYTES);
    if outbox.is_empty() {
        return Written::Nothing;
    }
    let written = match outbox.in_one_piece() {
        Some(bytes) => wire.write(&[IoSlice::new(bytes)]),
        None => write_pieces(&outbox, |pieces| wire.write(pieces)),
    };
    match written {
        Ok(taken) => {
            let all = taken == outbox.len();
            outbox.consume(taken);
            if all { Written::All } else { Written::Part }
        }
        Err(e) => {
            // The machine counts the time from the first byte that was not taken.
            outbox.consume(0);
            match e.kind() {
                ErrorKind::WouldBlock => Written::Blocked,
                ErrorKind::Interrupted => Written::Part,
                _ => Written::Failed,
            }
        }
    }
}

/// Has `write` write all pieces of an outbox.
fn write_pieces<R>(outbox: &Drain<'_>, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
    let mut slices = [&[][..]; Outbox::MOST_SLICES];
    let used = outbox.fill_slices(&mut slices);
    let mut plain = [IoSlice::new(&[]); Outbox::MOST_SLICES];
    for (io, slice) in plain.iter_mut().zip(&slices[..used]) {
        *io = IoSlice::new(slice);
    }
    write(&plain[..used])
}

/// The same through layers, which take only so much at once, and keep what the socket does not take.
fn write_layered<W: Wire>(
    broker: &mut Machine,
    conn: ConnectionId,
    wire: &mut W,
    layers: &mut Layers,
    now: Timestamp,
) -> Written {
    let mut all = true;
    let room = layers.room();
    if room > 0 {
        let outbox = broker.outbox(now, conn, room);
        let taken = write_pieces(&outbox, |pieces| layers.write_plain(pieces));
        all = taken == outbox.len();
        outbox.consume(taken);
    }
    let out = layers.wire_out();
    if out.is_empty() {
        return if all { Written::Nothing } else { Written::Part };
    }
    match wire.write(&[IoSlice::new(out)]) {
        Ok(taken) => {
            layers.consume(taken);
            if all && room > 0 && layers.wire_out().is_empty() { Written::All } else { Written::Part }
        }
        Err(e) => match e.kind() {
            ErrorKind::WouldBlock => {
                if layers.room() == 0 {
                    // One packet is built and not taken, and with it the machine begins to count.
                    broker.outbox(now, conn, 1).consume(0);
                }
                Written::Blocked
            }
            ErrorKind::Interrupted => Written::Part,
            _ => Written::Failed,
        },
    }
}

/// Whether there is something to say yet.
pub(super) fn says_goodbye(layers: &mut Layers) -> bool {
    layers.close();
    !layers.wire_out().is_empty()
}
