//! Where pollers do not nest there are none: types without values.

use super::node::Node;
use super::sockets::{ListeningSocket, MovingSocket};
use crate::runtime::LocalRuntime;
use mqtt_session::broker::ConnectionId;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::rc::Rc;

pub(super) enum Poller {}

pub(super) enum Watching {}

impl Poller {
    pub(super) fn new<L: LocalRuntime>() -> io::Result<Option<(Self, Watching)>> {
        Ok(None)
    }

    pub(super) fn watch(&self, _: ConnectionId, _: &mut Polled) {
        match *self {}
    }

    pub(super) fn forget(&self, _: &mut Polled) -> io::Result<()> {
        match *self {}
    }

    pub(super) async fn run<L: LocalRuntime>(_: Rc<Node<L>>, poller: Rc<Self>, _: Watching) {
        match *poller {}
    }
}

#[derive(Debug)]
pub(super) enum Polled {}

impl Polled {
    pub(super) fn write(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }
}

impl TryFrom<MovingSocket> for Polled {
    type Error = io::Error;

    fn try_from(_: MovingSocket) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl From<Polled> for MovingSocket {
    fn from(socket: Polled) -> Self {
        match socket {}
    }
}

pub(super) struct Entrance<L> {
    never: Polled,
    runtime: PhantomData<L>,
}

impl<L: LocalRuntime> Entrance<L> {
    pub(super) fn new(_: ListeningSocket) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn port(&self) -> u16 {
        match self.never {}
    }

    pub(super) async fn accept(&self) -> io::Result<(Polled, Option<SocketAddr>)> {
        match self.never {}
    }
}
