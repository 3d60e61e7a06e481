use alloc::string::String;
use bytes::Bytes;
use core::fmt;
use mqtt_proto::{Properties, PropertiesBuf, PublishRef, QoS, Violation};

/// An application message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// The topic name: 1 to 65,535 bytes, no wildcards.
    pub topic: String,
    /// The application's bytes. Cloning them copies nothing.
    pub payload: Bytes,
    /// How often the message may arrive.
    pub qos: QoS,
    /// When publishing: keep it as the topic's retained message. When received: see the
    /// subscription's options.
    pub retain: bool,
    /// Properties; a peer below 5.0 does not see them.
    pub properties: PropertiesBuf,
}

impl Message {
    /// A message at QoS 0, not retained, without properties.
    #[must_use]
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), payload: payload.into(), ..Self::default() }
    }

    /// The same message at `qos`.
    #[must_use]
    pub fn with_qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// The same message, to be retained.
    #[must_use]
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Bytes that it occupies while it waits, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }
}

impl From<&PublishRef<'_>> for Message {
    /// Copies the packet's content. Topic Alias belongs to a connection; resolve it first.
    fn from(publish: &PublishRef<'_>) -> Self {
        Self {
            topic: publish.topic.into(),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            properties: Properties::into(publish.properties),
        }
    }
}

/// Why a message was not taken. It is handed back, so that nothing is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishError {
    /// What is the matter.
    pub kind: PublishErrorKind,
    message: alloc::boxed::Box<Message>,
}

/// What is the matter with a message that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishErrorKind {
    /// It breaks a rule of the protocol, whoever the peer is.
    #[error("the message breaks a rule: {} [{}]: {}", .0.rule(mqtt_proto::Version::V5).text(),
        .0.rule(mqtt_proto::Version::V5).id(), .0.rule(mqtt_proto::Version::V5).remedy())]
    Invalid(Violation),
    /// The queue is full: wait until something in it is done.
    #[error("the queue is full: wait for an earlier message to be done")]
    QueueFull,
    /// The server does not support this QoS [MQTT-3.2.2-11].
    #[error("the server supports QoS up to {} only", .0.as_u8())]
    QosNotSupported(QoS),
    /// The server does not support retained messages [MQTT-3.2.2-14].
    #[error("the server does not support retained messages")]
    RetainNotSupported,
    /// The packet would be larger than the server takes [MQTT-3.2.2-15].
    #[error("the packet would be {size} bytes, the server takes {max}")]
    TooLarge {
        /// The size of the packet in bytes.
        size: usize,
        /// What the peer takes, in bytes.
        max: u32,
    },
    /// `disconnect` was called, or the machine gave up.
    #[error("the client is closed")]
    Closed,
    /// The store failed, and nothing above QoS 0 is taken until it works again.
    #[error("the store is not working, so nothing above QoS 0 is taken")]
    StoreFailed,
}

impl PublishError {
    pub(crate) fn new(kind: PublishErrorKind, message: Message) -> Self {
        Self { kind, message: alloc::boxed::Box::new(message) }
    }

    /// The message that was not taken.
    #[must_use]
    pub fn into_message(self) -> Message {
        *self.message
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl core::error::Error for PublishError {}
