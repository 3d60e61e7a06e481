//! The thread of a broker, without the runtime that drives it.
//!
//! [`bind`] binds the listeners, starts the thread and gives the [`BrokerHandle`]; the adapter drives
//! the [`Life`] that it gets there on a [`LocalRuntime`](crate::runtime::LocalRuntime). Programs use
//! this through an adapter, which says how it is used.
//!
//! # Cost
//!
//! Nobody is woken to write, all connections share one read buffer, and an idle connection owns none. Where the
//! runtime can watch a descriptor, all connections share one task, too, over a poller of the shard's own; elsewhere
//! each has a task that waits for bytes to read.
#![deny(clippy::await_holding_refcell_ref)]

#[cfg(feature = "access")]
mod access;
mod auth;
mod bind;
mod foreign;
mod handle;
mod link;
mod listen;
mod log;
mod node;
mod observe;
#[cfg_attr(not(unix), path = "poller/absent.rs")]
mod poller;
mod run;
mod sockets;
mod store;
mod transport;

pub use crate::trace::TraceOptions;
#[cfg(feature = "access")]
pub use access::{Gate, GateConfig};
pub use auth::{Authorizer, Decision};
pub use bind::{BindError, Config, Listener, OpenStore, bind};
pub use handle::{BrokerHandle, Ended, Events, Lagged, Messages, PublishFailed, ServeError, SubscribeFailed};
pub use log::LogStyle;
pub use mqtt_session::broker::{
    Answer, Ask, AskFor, BrokerConfig, ClientInfo, Denied, Event, Grant, Overflow, Peer, Question, Rates,
    RefusedFilter31, RetainedInfo, Stats, SubscriptionInfo,
};
pub use mqtt_store::{StorageStats, Store, StoreError};
pub use observe::{Listed, Place, PlaceError};
pub use run::Life;
pub use sockets::{Address, Inherited, ListeningSocket, MovingSocket};
pub use transport::{Network, NetworkError, SharedTransport, Transport};
