//! The layers above one another: bytes go up and down.

use super::{Opened, Proxy, Received, StackError, Tls, WebSocket};
use std::io::IoSlice;

/// While more bytes than this wait for the socket, no more of MQTT is taken: what waits in the machine
/// can still expire, and what waits here cannot.
const UNSENT: usize = 16 << 10;
/// So much of MQTT is taken at once.
const PIECE: usize = 16 << 10;

/// The layers of one connection that has some.
#[derive(Default)]
pub(crate) struct Layers {
    pub(super) proxy: Option<Proxy>,
    pub(super) tls: Option<Tls>,
    pub(super) ws: Option<WebSocket>,
    /// Bytes for the socket; those before `sent` are gone. It holds no memory while it is empty.
    out: Vec<u8>,
    sent: usize,
    /// Bytes at the front of TLS's plain text that were given away.
    given: usize,
    /// What is known so far; taken when everything is open.
    opened: Option<Box<Opened>>,
    told: bool,
    failed: Option<StackError>,
    failure_told: bool,
    /// The peer said that nothing more comes.
    ended: bool,
    closed: bool,
}

impl Layers {
    /// Whether no layer is left.
    pub(super) fn has_served(&self) -> bool {
        self.told && self.proxy.is_none() && self.tls.is_none() && self.ws.is_none() && self.failed.is_none()
    }

    /// The next thing that comes of `wire`, which is empty when there is no more.
    pub(super) fn next<'s>(&'s mut self, wire: &mut &[u8]) -> Option<Received<'s>> {
        match self.advance(wire) {
            Ok(Step::Open) => return Some(Received::Open(self.opened.take().unwrap_or_default())),
            Ok(Step::Data) => {}
            Ok(Step::Done) => return None,
            Err(error) => {
                *wire = &[];
                self.fail(error);
                return None;
            }
        }
        match (&self.ws, &mut self.tls) {
            (Some(ws), _) => Some(Received::Bytes(ws.data())),
            (None, Some(tls)) => {
                let chunk = tls.chunk();
                self.given = chunk.len();
                Some(Received::Bytes(chunk))
            }
            (None, None) => None,
        }
    }

    /// Goes on until there is something to tell.
    fn advance(&mut self, wire: &mut &[u8]) -> Result<Step, StackError> {
        if let Some(ws) = &mut self.ws {
            ws.clear();
        }
        if let Some(tls) = &mut self.tls {
            tls.consume(std::mem::take(&mut self.given));
        }
        loop {
            if self.failed.is_some() || self.ended {
                *wire = &[];
                return Ok(Step::Done);
            }
            if let Some(proxy) = &mut self.proxy {
                match proxy.take(wire)? {
                    None => return Ok(Step::Done),
                    Some(source) => {
                        self.opened.get_or_insert_default().proxied = source;
                        self.proxy = None;
                    }
                }
            }
            if !self.told && self.is_open() {
                self.told = true;
                if let Some(tls) = &self.tls {
                    self.opened.get_or_insert_default().tls = Some(tls.secured());
                }
                return Ok(Step::Open);
            }
            let before = wire.len();
            match (&mut self.tls, &mut self.ws) {
                (Some(tls), None) => {
                    if self.told && !tls.chunk().is_empty() {
                        return Ok(Step::Data);
                    }
                    if tls.has_ended() {
                        self.end();
                        continue;
                    }
                    if !wire.is_empty() {
                        tls.feed(wire, &mut self.out)?;
                    }
                }
                (tls, Some(ws)) => {
                    let mut fed = false;
                    match tls {
                        None => ws.feed(wire)?,
                        Some(tls) => {
                            let mut chunk = tls.chunk();
                            let len = chunk.len();
                            fed = len > 0;
                            // What is behind the handshake of WebSocket, or comes after its end, stays.
                            let result = ws.feed(&mut chunk);
                            let used = len - chunk.len();
                            tls.consume(used);
                            result?;
                            if !fed && tls.has_ended() {
                                self.end();
                                continue;
                            }
                            if !fed && !wire.is_empty() {
                                tls.feed(wire, &mut self.out)?;
                            }
                        }
                    }
                    let Some(ws) = &self.ws else { continue };
                    let (data, ended) = (!ws.data().is_empty(), ws.has_ended());
                    self.descend();
                    if data {
                        // An end that comes with it is found when it was taken.
                        return Ok(Step::Data);
                    }
                    if ended {
                        self.end();
                        continue;
                    }
                    if fed {
                        continue;
                    }
                }
                (None, None) => return Ok(Step::Done),
            }
            if !self.told && self.is_open() {
                continue;
            }
            if wire.len() == before {
                return Ok(Step::Done);
            }
        }
    }

    fn is_open(&self) -> bool {
        self.proxy.is_none()
            && self.tls.as_ref().is_none_or(Tls::is_open)
            && self.ws.as_ref().is_none_or(WebSocket::is_open)
    }

    /// The peer will say nothing more: it is answered in kind.
    fn end(&mut self) {
        self.ended = true;
        self.close();
    }

    fn fail(&mut self, error: StackError) {
        // What the layers have to say about it: an alert, a status, a close frame.
        self.descend();
        self.failed = Some(error);
        self.close();
    }

    /// Passes down what a layer has to say of its own accord.
    pub(super) fn descend(&mut self) {
        if let Some(bytes) = self.ws.as_mut().and_then(WebSocket::take_out) {
            match &mut self.tls {
                Some(tls) => tls.write(&bytes, &mut self.out),
                None if self.out.is_empty() => self.out = bytes,
                None => self.out.extend_from_slice(&bytes),
            }
        }
        if let Some(tls) = &mut self.tls {
            tls.flush(&mut self.out);
        }
    }

    /// Why the connection cannot go on, once.
    pub(crate) fn take_failure(&mut self) -> Option<StackError> {
        let told = std::mem::replace(&mut self.failure_told, self.failed.is_some());
        self.failed.clone().filter(|_| !told)
    }

    /// Whether nothing more comes from the peer.
    pub(crate) const fn has_ended(&self) -> bool {
        self.ended || self.failed.is_some()
    }

    /// How many bytes of MQTT are taken: none while too many wait for the socket.
    pub(crate) fn room(&self) -> usize {
        if self.wire_out().len() > UNSENT || self.closed || !self.told { 0 } else { PIECE }
    }

    /// Takes bytes of MQTT, and tells how many: some may be left.
    pub(crate) fn write_plain(&mut self, plain: &[IoSlice<'_>]) -> usize {
        let total: usize = plain.iter().map(|slice| slice.len()).sum();
        let taken = total.min(self.room());
        if taken == 0 {
            return 0;
        }
        if let Some(ws) = &mut self.ws {
            ws.frame(plain, taken);
            self.descend();
            return taken;
        }
        let mut left = taken;
        for slice in plain {
            let piece = slice.get(..left.min(slice.len())).unwrap_or_default();
            left -= piece.len();
            if let Some(tls) = &mut self.tls {
                tls.write(piece, &mut self.out);
            }
        }
        taken
    }

    /// What the socket is to write.
    #[inline]
    pub(crate) fn wire_out(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// The socket took the first `n` bytes.
    pub(crate) fn consume(&mut self, n: usize) {
        self.sent = self.sent.saturating_add(n);
        if self.sent >= self.out.len() {
            self.out = Vec::new();
            self.sent = 0;
        }
    }

    /// Says goodbye on every layer, once. What is to be written then are the last bytes.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if let Some(ws) = &mut self.ws {
            ws.close();
        }
        self.descend();
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.out);
        }
    }
}

/// How far [`Layers::advance`] came.
enum Step {
    /// Every layer is open.
    Open,
    /// There is data.
    Data,
    /// There is nothing more to do.
    Done,
}
