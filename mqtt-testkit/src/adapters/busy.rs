//! A client that receives or publishes the same again and again, for those who count what a message costs it.

use super::memory::{Memory, Wire};
use mqtt_io::client::{Client, Completion, Item, Options, Server, Subscription};
use mqtt_proto::{AckRef, ConnackRef, PacketId, PacketRef, Properties, PublishRef, QoS, SubackRef, Version};
use mqtt_session::Message;
use std::error::Error;
use std::future::poll_fn;
use std::task::Poll;

/// A client on [`Memory`], and the server beside it.
pub struct Busy {
    runtime: Memory,
    wire: Wire,
    client: Client<Memory>,
    stream: Option<Subscription>,
    qos: QoS,
    /// What the server sends in each round.
    batch: Vec<u8>,
    sent: Vec<u8>,
    open: Vec<Completion>,
}

const TOPIC: &str = "bench/out/topic";
const PAYLOAD: [u8; 64] = [b'x'; 64];
const VERSION: Version = Version::V311;
/// Where the identifier of a PUBLISH above QoS 0 is.
const ID_AT: usize = 2 + 2 + TOPIC.len();

impl Busy {
    /// Messages of a round: as many as a client reads at once.
    pub const MESSAGES: usize = 192;

    /// A client that receives.
    ///
    /// # Errors
    /// If it does not come about.
    pub fn receiving(qos: QoS) -> Result<Self, Box<dyn Error>> {
        let mut this = Self::new(qos)?;
        let (client, wire) = (this.client.clone(), this.wire.clone());
        let mut subscribing = Box::pin(client.subscribe(TOPIC, qos));
        this.runtime.run(poll_fn(|cx| {
            let waits = subscribing.as_mut().poll(cx).is_pending();
            if waits { Poll::Ready(()) } else { Poll::Pending }
        }));
        this.until_sent(1);
        let suback =
            SubackRef { packet_id: PacketId::MIN, properties: Properties::EMPTY, codes: &[qos.as_u8()] };
        wire.send(&encode(&PacketRef::Suback(suback))?);
        this.stream = Some(this.runtime.run(subscribing)?);
        for id in 1..=u16::try_from(Self::MESSAGES)? {
            let packet_id = PacketId::new(id).filter(|_| qos > QoS::AtMostOnce);
            let publish =
                PublishRef { qos, topic: TOPIC, packet_id, payload: &PAYLOAD, ..Default::default() };
            PacketRef::Publish(publish).encode(VERSION, &mut this.batch)?;
        }
        Ok(this)
    }

    /// A client that publishes.
    ///
    /// # Errors
    /// If it does not come about.
    pub fn publishing(qos: QoS) -> Result<Self, Box<dyn Error>> {
        Self::new(qos)
    }

    fn new(qos: QoS) -> Result<Self, Box<dyn Error>> {
        let (runtime, wire) = (Memory::default(), Wire::default());
        let connack = ConnackRef { session_present: false, ..ConnackRef::default() };
        wire.send(&encode(&PacketRef::Connack(connack))?);
        let options = Options::<Memory, _>::to(Server::tcp("memory", 1)).runtime(runtime.clone());
        let options = options.version(VERSION).client_id("busy").connector(wire.clone());
        let options = options.configure(|config| config.max_in_flight_3x = u16::MAX);
        let client = runtime.run(options.connect())?;
        let mut this = Self {
            runtime,
            wire,
            client,
            stream: None,
            qos,
            batch: Vec::new(),
            sent: Vec::new(),
            open: Vec::new(),
        };
        this.until_sent(1);
        Ok(this)
    }

    /// One round.
    ///
    /// # Errors
    /// If something else comes than what was sent.
    pub fn round(&mut self) -> Result<(), Box<dyn Error>> {
        match self.stream.take() {
            Some(mut stream) => {
                let done = self.receive(&mut stream);
                self.stream = Some(stream);
                done
            }
            None => self.publish(),
        }
    }

    fn receive(&mut self, stream: &mut Subscription) -> Result<(), Box<dyn Error>> {
        self.wire.send(&self.batch);
        self.runtime.run(async {
            for _ in 0..Self::MESSAGES {
                match stream.recv().await {
                    Some(Item::Message(message)) if message.payload.len() == PAYLOAD.len() => {}
                    other => return Err(format!("{other:?} came")),
                }
            }
            Ok(())
        })?;
        if self.qos > QoS::AtMostOnce {
            self.until_sent(Self::MESSAGES * 4);
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<(), Box<dyn Error>> {
        let (client, qos) = (self.client.clone(), self.qos);
        let open = &mut self.open;
        self.runtime.run(async {
            for _ in 0..Self::MESSAGES {
                let message = Message::new(TOPIC, PAYLOAD.to_vec()).with_qos(qos);
                open.push(client.enqueue(message).await?);
            }
            Ok::<_, mqtt_io::client::Error>(())
        })?;
        let with_id = usize::from(qos > QoS::AtMostOnce) * 2;
        let size = ID_AT + with_id + PAYLOAD.len();
        self.until_sent(Self::MESSAGES * size);
        if qos > QoS::AtMostOnce {
            for packet in self.sent.chunks_exact(size) {
                let id = packet.get(ID_AT..ID_AT + 2).unwrap_or_default();
                let id = PacketId::new(u16::from_be_bytes(id.try_into()?)).ok_or("identifier 0")?;
                PacketRef::Puback(AckRef::from(id)).encode(VERSION, &mut self.batch)?;
            }
            self.wire.send(&self.batch);
            self.batch.clear();
        }
        let open = &mut self.open;
        self.runtime.run(async {
            for completion in open.drain(..) {
                completion.await?;
            }
            Ok::<_, mqtt_io::client::Error>(())
        })?;
        Ok(())
    }

    /// Lets the client send, at least so many bytes, and looks at all of them.
    fn until_sent(&mut self, bytes: usize) {
        self.sent.clear();
        let (wire, sent) = (&self.wire, &mut self.sent);
        let mut piece = Vec::new();
        self.runtime.run(poll_fn(|cx| {
            wire.swap_sent(&mut piece);
            sent.append(&mut piece);
            if sent.len() >= bytes {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
    }
}

fn encode(packet: &PacketRef<'_>) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    packet.encode(VERSION, &mut bytes)?;
    Ok(bytes)
}
