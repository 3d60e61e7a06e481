//! WebSocket (RFC 6455): MQTT in binary frames.
//!
//! The handshake and the headers of frames are tungstenite's. What tungstenite has above that collects
//! whole messages and keeps the memory of the largest; MQTT does not care where messages begin and end
//! ([MQTT-6.0.0-2]), so here bytes are passed on as they come, and an idle connection holds none.
//! Extensions are not negotiated, and with them no compression.

mod frames;
mod handshake;

pub use handshake::{WebSocketClient, WebSocketServer};

use super::{StackError, WebSocketError};
use frames::{Frames, Item};
use handshake::{Answer, Asked, Asking, Taken};
use std::io::IoSlice;
use std::sync::Arc;

/// Pongs wait for the socket together with what they answer; beyond this no ping is answered until
/// they are gone.
const MAX_PONGS: usize = 4 << 10;
/// Data taken out of frames before it is passed on.
const PIECE: usize = 16 << 10;

/// One side of a WebSocket connection.
pub(crate) struct WebSocket {
    state: State,
    frames: Frames,
    /// Data out of frames.
    data: Vec<u8>,
    /// What is to be sent of its own accord.
    out: Vec<u8>,
    ended: bool,
    closed: bool,
    /// A rule was broken behind data that has to be passed on first.
    broken: Option<WebSocketError>,
}

enum State {
    /// A server waits for the request.
    Request(Asking, Arc<WebSocketServer>),
    /// A client waits for the answer.
    Answer(Box<Answer>),
    Open,
}

impl WebSocket {
    pub(super) fn server(settings: Arc<WebSocketServer>) -> Self {
        let frames = Frames::server(settings.max_message);
        Self::new(State::Request(Asking::default(), settings), frames, Vec::new())
    }

    /// The handshake is done.
    pub(super) fn accepted(max_message: u64) -> Self {
        Self::new(State::Open, Frames::server(max_message), Vec::new())
    }

    pub(super) fn client(request: &WebSocketClient) -> Self {
        let Asked { request: out, answer } = request.ask();
        Self::new(State::Answer(Box::new(answer)), Frames::client(request.max_message), out)
    }

    const fn new(state: State, frames: Frames, out: Vec<u8>) -> Self {
        Self { state, frames, data: Vec::new(), out, ended: false, closed: false, broken: None }
    }

    /// Takes some of `input`, which is everything unless there is data, or the handshake is done.
    pub(super) fn feed(&mut self, input: &mut &[u8]) -> Result<(), StackError> {
        let result = match &mut self.state {
            State::Request(request, settings) => match request.take(input, settings) {
                Ok(None) => Ok(()),
                Ok(Some(Taken { answer, is_ours })) => {
                    self.out.extend_from_slice(&answer);
                    match is_ours {
                        Ok(()) => {
                            self.state = State::Open;
                            return Ok(());
                        }
                        Err(error) => {
                            // The answer said it: there is no WebSocket to close.
                            self.closed = true;
                            Err(error)
                        }
                    }
                }
                Err(error) => {
                    self.closed = true;
                    Err(error)
                }
            },
            State::Answer(answer) => match answer.take(input) {
                Ok(false) => Ok(()),
                Ok(true) => {
                    self.state = State::Open;
                    return Ok(());
                }
                Err(error) => {
                    self.closed = true;
                    Err(error)
                }
            },
            State::Open => self.feed_frames(input),
        };
        result.map_err(|error| {
            self.close_with(error.code());
            error.into()
        })
    }

    fn feed_frames(&mut self, input: &mut &[u8]) -> Result<(), WebSocketError> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        while !input.is_empty() && !self.ended && self.data.len() < PIECE {
            let item = match self.frames.take(input, &mut self.data) {
                Err(error) if !self.data.is_empty() => {
                    self.broken = Some(error);
                    *input = &[];
                    return Ok(());
                }
                other => other?,
            };
            match item {
                Some(Item::Ping(payload)) if self.out.len() < MAX_PONGS && !self.closed => {
                    self.frames.pong(&payload, &mut self.out);
                }
                // A flood of pings is answered now and then only.
                None | Some(Item::Ping(_)) => {}
                Some(Item::Close(code)) => {
                    // The answer has the same code; a close without one is answered without one.
                    if !std::mem::replace(&mut self.closed, true) {
                        self.frames.close(code, &mut self.out);
                    }
                    self.ended = true;
                }
            }
        }
        Ok(())
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether the peer has said that nothing more comes.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Data that came in frames; it stays until it is cleared.
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(super) fn clear(&mut self) {
        self.data = Vec::new();
    }

    /// Makes a frame of the first `len` bytes.
    pub(super) fn frame(&mut self, plain: &[IoSlice<'_>], len: usize) {
        self.frames.data(plain, len, &mut self.out);
    }

    /// Says goodbye, if that was not done.
    pub(super) fn close(&mut self) {
        self.close_with(1000);
    }

    fn close_with(&mut self, code: u16) {
        if self.is_open() && !std::mem::replace(&mut self.closed, true) {
            self.frames.close(Some(code), &mut self.out);
        }
    }

    pub(super) fn take_out(&mut self) -> Option<Vec<u8>> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out))
    }
}
