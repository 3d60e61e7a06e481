use crate::{PeerId, World};
use mqtt_session::Client;
use mqtt_session::client::{ClientConfig, Event, LinkDown, Output};
use std::time::Duration;

/// A client machine and a broker machine on virtual time, with a link between them that can be cut
/// after any byte.
///
/// The broker is a whole [`World`], so other peers can take part.
#[derive(Debug)]
pub struct Pair {
    /// The broker and its other peers.
    pub world: World,
    /// The client.
    pub client: Client,
    /// What the client told and nobody looked at.
    pub events: Vec<Event>,
    /// How many bytes the link still carries, both directions together, before it is cut. It is
    /// endless once it was cut.
    pub carries: usize,
    link: Option<PeerId>,
    /// Bytes that were carried.
    pub carried: usize,
}

impl Pair {
    /// A client of `world`'s broker that is not connected yet.
    ///
    /// # Panics
    /// If the settings are refused.
    #[must_use]
    pub fn new(world: World, config: ClientConfig) -> Self {
        let client = Client::new(config, world.now).expect("settings");
        Self { world, client, events: Vec::new(), carries: usize::MAX, link: None, carried: 0 }
    }

    /// Has the client connect, and lets everything happen that follows.
    pub fn connect(&mut self) {
        self.client.connect(self.world.now);
        self.drive();
    }

    /// Lets both go on until neither wants anything.
    pub fn drive(&mut self) {
        loop {
            let mut busy = false;
            while let Some(output) = self.client.poll_output() {
                busy = true;
                match output {
                    Output::Dial { .. } => {
                        self.link = Some(self.world.open(self.client.version()));
                        self.client.handle_link_up(self.world.now);
                    }
                    Output::Flush => self.carry_to_broker(),
                    Output::HangUp => {
                        self.carry_to_broker();
                        self.cut();
                    }
                    Output::Event(event) => self.events.push(event),
                    Output::Store(seq, _) => self.client.handle_stored(self.world.now, seq),
                    _ => {}
                }
            }
            self.world.settle();
            busy |= self.carry_to_client();
            if !busy {
                return;
            }
        }
    }

    /// Lets time pass for both, stopping at each deadline on the way.
    pub fn advance(&mut self, time: Duration) {
        let end = self.world.now + time;
        loop {
            self.drive();
            let next = [self.client.poll_timeout(), self.world.broker.poll_timeout()];
            let Some(due) = next.into_iter().flatten().min().filter(|due| *due <= end) else { break };
            self.world.advance(due.max(self.world.now).since(self.world.now));
            self.client.handle_timeout(self.world.now);
        }
        self.world.advance(end.since(self.world.now));
        self.client.handle_timeout(self.world.now);
        self.drive();
    }

    /// Cuts the link without a word.
    pub fn cut(&mut self) {
        if let Some(peer) = self.link.take() {
            self.world.cut(peer);
            self.client.handle_link_down(self.world.now, LinkDown::Failed);
        }
    }

    /// Takes what the link still carries of `bytes`; false if it is cut behind that.
    fn carry(&mut self, bytes: &mut Vec<u8>) -> bool {
        let whole = bytes.len() <= self.carries;
        bytes.truncate(self.carries);
        self.carried += bytes.len();
        if whole {
            if self.carries != usize::MAX {
                self.carries -= bytes.len();
            }
        } else {
            self.carries = usize::MAX;
        }
        whole
    }

    fn carry_to_broker(&mut self) {
        let Some(peer) = self.link else { return };
        let mut outbox = self.client.outbox(self.world.now, 1 << 16);
        let mut slices = [&[][..]; 64];
        let used = outbox.fill_slices(&mut slices);
        let mut bytes = slices[..used].concat();
        outbox.consume(bytes.len());
        let whole = self.carry(&mut bytes);
        self.world.send_raw(peer, &bytes);
        if !whole {
            self.cut();
        }
    }

    fn carry_to_client(&mut self) -> bool {
        let Some(peer) = self.link else { return false };
        let mut bytes = self.world.got_raw(peer);
        let hung_up = self.world.is_hung_up(peer);
        if bytes.is_empty() && !hung_up {
            return false;
        }
        let whole = self.carry(&mut bytes);
        self.client.handle_read(self.world.now, &bytes);
        if !whole || hung_up {
            self.cut();
        }
        true
    }
}
