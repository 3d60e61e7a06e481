//! Dialling, losing, waiting, dialling again; and all timers.

use super::event::{Cause, Disconnected, Event, LinkDown, Outcome, Output};
use super::link::{Link, Stage};
use super::{CleanStart, Client};
use crate::Timestamp;
use alloc::boxed::Box;
use core::time::Duration;
use mqtt_proto::{DisconnectRef, PacketRef, PacketType, Properties, PropertiesBuf, ReasonCode};

/// What the client is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// `connect` was not called yet; what is published waits.
    New,
    /// Disconnected, or given up.
    Stopped,
    /// The next attempt is due then.
    Waiting(Timestamp),
    /// `Dial` is out; link and CONNACK are awaited until then.
    Dialing(Timestamp),
    /// CONNECT is out; CONNACK is awaited until then.
    Connecting(Timestamp),
    /// CONNACK arrived.
    Online,
}

impl Phase {
    pub(super) const fn deadline(self) -> Option<Timestamp> {
        match self {
            Self::Waiting(at) | Self::Dialing(at) | Self::Connecting(at) => Some(at),
            Self::New | Self::Stopped | Self::Online => None,
        }
    }
}

/// Why a link ends, and what the server is told.
pub(super) struct Fault {
    pub(super) cause: Cause,
    /// Sent in DISCONNECT, where the version has one with a reason.
    pub(super) tell: Option<ReasonCode>,
    pub(super) retry: bool,
    pub(super) properties: PropertiesBuf,
}

impl Fault {
    pub(super) fn new(cause: Cause) -> Self {
        Self { cause, tell: None, retry: true, properties: PropertiesBuf::new() }
    }

    /// The server broke a rule.
    #[cold]
    pub(super) fn violation(reason: ReasonCode, what: &'static str) -> Self {
        Self { tell: Some(reason), ..Self::new(Cause::Violation { what, reason }) }
    }

    pub(super) fn final_if(mut self, stop: bool) -> Self {
        self.retry = !stop;
        self
    }
}

impl Client {
    /// Starts, or starts again after [`Event::Disconnected`] without a next attempt. Does nothing while
    /// the client is running.
    pub fn connect(&mut self, now: Timestamp) {
        let now = self.advance(now);
        if self.is_stopped() {
            self.attempt = 0;
            self.closing = None;
            self.dial(now);
        }
    }

    /// The connection is open: CONNECT is queued. Without a preceding [`Output::Dial`] it does nothing.
    pub fn handle_link_up(&mut self, now: Timestamp) {
        let now = self.advance(now);
        let Phase::Dialing(deadline) = self.phase else { return };
        let clean = match self.config.clean_start {
            CleanStart::Always => true,
            CleanStart::FirstOnly => !self.was_online && !self.session.established,
            CleanStart::Never => false,
        };
        // Wraps after connecting each second for 136 years.
        self.links = self.links.wrapping_add(1);
        let mut link = Link::new(self.links, clean, now);
        // [MQTT-3.1.0-1]. The settings were checked, except credentials that were set since.
        if let Err(error) = self.config.encode_connect(&self.session.client_id, clean, link.out.tail()) {
            let what = error.violation().rule(self.config.version).text();
            let cause = Cause::Violation { what, reason: ReasonCode::ImplementationSpecificError };
            self.link = Some(link);
            self.close(now, Fault::new(cause).final_if(true));
            return;
        }
        self.link = Some(link);
        self.phase = Phase::Connecting(deadline);
        self.flush();
    }

    /// The connection is gone, or could not be opened.
    pub fn handle_link_down(&mut self, now: Timestamp, cause: LinkDown) {
        let now = self.advance(now);
        match self.phase {
            Phase::Dialing(_) | Phase::Connecting(_) | Phase::Online => {
                let lasted = self.lasted(now);
                self.drop_link();
                self.after_loss(now, lasted, Fault::new(Cause::Link(cause)));
            }
            // What is left of a link that was hung up.
            Phase::New | Phase::Stopped | Phase::Waiting(_) => self.drop_link(),
        }
        // What was waited for may be gone with the link.
        self.finish_closing(now);
    }

    fn dial(&mut self, now: Timestamp) {
        // Saturates after 136 years of trying every second.
        self.attempt = self.attempt.saturating_add(1);
        self.drop_link();
        self.phase = Phase::Dialing(now + self.config.connect_timeout);
        self.outputs.push(Output::Dial { attempt: self.attempt });
    }

    /// Ends the link from our side: the farewell packet, then the hang-up, then the event.
    pub(super) fn close(&mut self, now: Timestamp, fault: Fault) {
        // Below 5.0 DISCONNECT has no reason, and would withhold the will.
        let tell = fault.tell.filter(|_| self.rules().server_disconnect && self.phase == Phase::Online);
        if let Some(reason) = tell {
            self.farewell(reason, Properties::EMPTY);
        }
        if let Some(link) = &mut self.link {
            link.stage = Stage::Farewell;
            link.framer.clear();
        }
        if matches!(self.phase, Phase::Dialing(_) | Phase::Connecting(_) | Phase::Online) {
            self.outputs.push(Output::HangUp);
        }
        let lasted = self.lasted(now);
        self.leave_link();
        self.after_loss(now, lasted, fault);
    }

    /// DISCONNECT, after which nothing is sent [MQTT-3.14.4-1] and the link is closed [MQTT-3.14.4-2].
    pub(super) fn farewell(&mut self, reason: ReasonCode, properties: Properties<'_>) {
        let version = self.config.version;
        let Some(link) = &mut self.link else { return };
        // [MQTT-3.14.2-1]
        let allowed = reason.is_allowed_in(PacketType::Disconnect);
        let reason = if allowed { reason } else { ReasonCode::ProtocolError };
        let packet = PacketRef::Disconnect(DisconnectRef { reason, properties });
        let max = usize::try_from(link.limits.max_packet_size).unwrap_or(usize::MAX);
        let fits = packet.encoded_len(version).is_ok_and(|len| len <= max);
        // [MQTT-3.14.2-3] [MQTT-3.14.2-4]
        let properties = if fits { properties } else { Properties::EMPTY };
        // Cannot fail: the code was checked, and the properties are left out if they are at fault.
        let _ = PacketRef::Disconnect(DisconnectRef { reason, properties }).encode(version, link.out.tail());
        link.stage = Stage::Farewell;
        self.flush();
    }

    /// How long the connection has been accepted.
    fn lasted(&self, now: Timestamp) -> Duration {
        match (&self.link, self.phase) {
            (Some(link), Phase::Online) => now.since(link.since),
            _ => Duration::ZERO,
        }
    }

    /// The link does not count any more: what is next?
    fn after_loss(&mut self, now: Timestamp, lasted: Duration, fault: Fault) {
        let retry = fault.retry && self.closing.as_ref().is_none_or(|closing| closing.deadline > now);
        let retry_at = self.config.reconnect.filter(|_| retry).map(|backoff| {
            if lasted >= backoff.max {
                self.attempt = 0;
            }
            let doubled = backoff.min.saturating_mul(1 << self.attempt.saturating_sub(1).min(20));
            now + self.jitter(doubled.min(backoff.max))
        });
        self.phase = retry_at.map_or(Phase::Stopped, Phase::Waiting);
        if retry_at.is_none() {
            self.closing = None;
        }
        self.event(Event::Disconnected(Box::new(Disconnected {
            cause: fault.cause,
            retry_at,
            properties: fault.properties,
        })));
    }

    /// Between one half and all of `wait`.
    fn jitter(&mut self, wait: Duration) -> Duration {
        let half = wait / 2;
        let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_micros(self.random.next_u64() % span)
    }

    /// Takes back from the link what belongs to the session. The outbox stays, for the farewell.
    fn leave_link(&mut self) {
        self.session.forget_link();
        self.session.ledger.rewind();
        let Some(link) = &mut self.link else { return };
        link.stage = Stage::Farewell;
        link.replies.clear();
        link.more = false;
    }

    /// Drops the link. QoS 0 messages that it has not taken are lost with it.
    fn drop_link(&mut self) {
        let Some(link) = self.link.take() else { return };
        self.session.forget_link();
        self.session.ledger.rewind();
        for (_, token) in link.marks {
            self.done(token, Outcome::LinkLost);
        }
    }

    // ---- timers ----

    pub(super) fn link_deadline(&self) -> Option<Timestamp> {
        let link = self.link.as_ref().filter(|link| link.is_online())?;
        let silent = link.silent_since().map(|since| since + self.config.ping_timeout);
        [silent, link.ping_due(), self.resend_due(link)].into_iter().flatten().min()
    }

    /// When unacknowledged messages are sent again on a live link (below 5.0, if switched on).
    fn resend_due(&self, link: &Link) -> Option<Timestamp> {
        let interval = self.config.resend_interval.filter(|_| !self.session.ledger.is_empty())?;
        Some(link.progress + interval)
    }

    pub(super) fn check_timers(&mut self, now: Timestamp) {
        match self.phase {
            Phase::Waiting(at) if at <= now => self.dial(now),
            Phase::Dialing(at) | Phase::Connecting(at) if at <= now => {
                self.close(now, Fault::new(Cause::ConnectTimeout));
            }
            Phase::Online => self.check_link_timers(now),
            _ => {}
        }
    }

    fn check_link_timers(&mut self, now: Timestamp) {
        let version = self.config.version;
        let Some(link) = &self.link else { return };
        if link.silent_since().is_some_and(|since| since + self.config.ping_timeout <= now) {
            let fault = Fault { tell: Some(ReasonCode::KeepAliveTimeout), ..Fault::new(Cause::PingTimeout) };
            self.close(now, fault);
            return;
        }
        if self.resend_due(link).is_some_and(|due| due <= now) {
            // [MQTT-4.4.0-1] of 3.1.1 leaves it open; settings for 5.0 cannot have it.
            self.session.ledger.rewind();
            if let Some(link) = &mut self.link {
                link.window = crate::shared::window::Window::new(link.window.max());
                link.replies.retain(|reply| reply.kind != super::link::ReplyKind::Pubrel);
                link.progress = now;
            }
            self.flush();
        }
        let Some(link) = &mut self.link else { return };
        if link.ping_due().is_some_and(|due| due <= now) {
            // Cannot fail: PINGREQ has no fields.
            let _ = PacketRef::Pingreq.encode(version, link.out.tail());
            link.ping.get_or_insert(now);
            link.sent.touch(now);
            self.flush();
        }
    }
}
