//! In the place of layers that were not built in: types without values.

use super::{Secured, StackError};
use std::io::IoSlice;

/// There is no TLS.
#[cfg(not(feature = "tls"))]
pub(crate) enum Tls {}

#[cfg(not(feature = "tls"))]
impl Tls {
    pub(super) fn feed(&mut self, _: &mut &[u8], _: &mut Vec<u8>) -> Result<(), StackError> {
        match *self {}
    }

    pub(super) fn is_open(&self) -> bool {
        match *self {}
    }

    pub(super) fn has_ended(&self) -> bool {
        match *self {}
    }

    pub(super) fn chunk(&mut self) -> &[u8] {
        match *self {}
    }

    pub(super) fn consume(&mut self, _: usize) {
        match *self {}
    }

    pub(super) fn write(&mut self, _: &[u8], _: &mut Vec<u8>) {
        match *self {}
    }

    pub(super) fn flush(&mut self, _: &mut Vec<u8>) {
        match *self {}
    }

    pub(super) fn close(&mut self, _: &mut Vec<u8>) {
        match *self {}
    }

    pub(super) fn secured(&self) -> Secured {
        match *self {}
    }
}

/// There is no WebSocket.
#[cfg(not(feature = "websocket"))]
pub(crate) enum WebSocket {}

#[cfg(not(feature = "websocket"))]
impl WebSocket {
    pub(super) fn feed(&mut self, _: &mut &[u8]) -> Result<(), StackError> {
        match *self {}
    }

    pub(super) fn is_open(&self) -> bool {
        match *self {}
    }

    pub(super) fn has_ended(&self) -> bool {
        match *self {}
    }

    pub(super) fn data(&self) -> &[u8] {
        match *self {}
    }

    pub(super) fn clear(&mut self) {
        match *self {}
    }

    pub(super) fn frame(&mut self, _: &[IoSlice<'_>], _: usize) {
        match *self {}
    }

    pub(super) fn close(&mut self) {
        match *self {}
    }

    pub(super) fn take_out(&mut self) -> Option<Vec<u8>> {
        match *self {}
    }
}

#[cfg(all(not(feature = "tls"), feature = "websocket"))]
const _: Option<IoSlice<'static>> = None;
#[cfg(all(feature = "tls", not(feature = "websocket")))]
const _: Option<Secured> = None;
