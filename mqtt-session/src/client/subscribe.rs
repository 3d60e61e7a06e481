//! SUBSCRIBE, UNSUBSCRIBE, their answers, and subscribing again after the server lost the session.

use super::Client;
use super::event::{Event, Granted, Limits, Outcome, RequestError, Token};
use super::reconnect::Fault;
use super::session::{Filters, Request, Subscription};
use crate::Timestamp;
use alloc::boxed::Box;
use alloc::vec::Vec;
use mqtt_proto::{
    PacketId, PacketRef, Properties, PropertiesBuf, Property, ReasonCode, SubackRef, SubscribeFiltersBuf,
    SubscribeRef, SubscriptionOptions, TopicFilter, UnsubackRef, UnsubscribeFiltersBuf, UnsubscribeRef,
};

/// Subscribing again packs filters up to this many bytes into a packet.
const BATCH: usize = 16 * 1024;

impl Client {
    /// Subscribes to `filters`. Without a connection the request waits. The server's answer comes as
    /// [`Outcome::Granted`]. A request that a lost connection left unanswered is asked again.
    ///
    /// # Errors
    /// If a filter or property breaks a rule, the server (when connected) does not support it, or a
    /// limit is reached.
    pub fn subscribe(
        &mut self,
        now: Timestamp,
        filters: &[(&str, SubscriptionOptions)],
        properties: &PropertiesBuf,
    ) -> Result<Token, RequestError> {
        self.advance(now);
        let mut list = SubscribeFiltersBuf::new();
        for (filter, options) in filters {
            // [MQTT-3.8.3-1] [MQTT-3.8.3-4] [MQTT-4.7.1-1]
            list.push(filter, *options).map_err(|error| RequestError::Invalid(error.violation()))?;
        }
        let remembered = self.session.subscriptions.len() + filters.len();
        if self.config.resubscribe && remembered > self.config.max_subscriptions {
            return Err(RequestError::TooManySubscriptions);
        }
        self.request(Filters::Subscribe(list), properties)
    }

    /// Gives subscriptions back. Messages that are under way may still come.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub fn unsubscribe(
        &mut self,
        now: Timestamp,
        filters: &[&str],
        properties: &PropertiesBuf,
    ) -> Result<Token, RequestError> {
        self.advance(now);
        let mut list = UnsubscribeFiltersBuf::new();
        for filter in filters {
            // [MQTT-3.10.3-1]
            list.push(filter).map_err(|error| RequestError::Invalid(error.violation()))?;
        }
        self.request(Filters::Unsubscribe(list), properties)
    }

    fn request(&mut self, filters: Filters, properties: &PropertiesBuf) -> Result<Token, RequestError> {
        if self.is_closed() {
            return Err(RequestError::Closed);
        }
        let request = Request { token: None, id: None, properties: properties.clone(), filters };
        // [MQTT-3.8.3-2] [MQTT-3.10.3-2]
        let size = request
            .packet(PacketId::MIN)
            .encoded_len(self.config.version)
            .map_err(|error| RequestError::Invalid(error.violation()))?;
        if let Some(limits) = self.limits() {
            match request.refusal(limits, size) {
                None => {}
                Some(Outcome::NotSupported(reason)) => return Err(RequestError::NotSupported(reason)),
                Some(_) => return Err(RequestError::TooLarge { size, max: limits.max_packet_size }),
            }
        }
        if self.session.requests.len() >= self.config.max_requests {
            return Err(RequestError::QueueFull);
        }
        let token = self.next_token();
        self.session.requests.push_back(Request { token: Some(token), ..request });
        self.flush();
        Ok(token)
    }

    /// The server has no session: subscribe again to what was granted, grouped by identifier.
    pub(super) fn resubscribe(&mut self) {
        if !self.config.resubscribe {
            self.session.subscriptions.clear();
            return;
        }
        // Requests of the machine that the last link left unanswered are made anew.
        self.session.requests.retain(|request| request.token.is_some());
        let mut all: Vec<(&str, &Subscription)> =
            self.session.subscriptions.iter().map(|(filter, s)| (filter.as_str(), s)).collect();
        all.sort_by_key(|(_, subscription)| subscription.id);
        let limit = self.limits().map_or(BATCH, |limits| {
            // Leaves room for header and identifier.
            usize::try_from(limits.max_packet_size).unwrap_or(BATCH).saturating_sub(16).min(BATCH)
        });
        let mut requests: Vec<Request> = Vec::new();
        let mut room = 0;
        let mut last_id = None;
        for (filter, subscription) in all {
            let size = filter.len() + 3;
            if room < size || last_id != Some(subscription.id) || requests.is_empty() {
                let mut properties = PropertiesBuf::new();
                if let Some(id) = subscription.id {
                    // Was checked when the application subscribed.
                    let _ = properties.push(Property::SubscriptionIdentifier(id));
                }
                let filters = Filters::Subscribe(SubscribeFiltersBuf::new());
                requests.push(Request { token: None, id: None, properties, filters });
                room = limit;
                last_id = Some(subscription.id);
            }
            room = room.saturating_sub(size);
            if let Some(Filters::Subscribe(list)) = requests.last_mut().map(|request| &mut request.filters) {
                // Was checked when the application subscribed.
                let _ = list.push(filter, subscription.options);
            }
        }
        // Before what the application has asked for since.
        for request in requests.into_iter().rev() {
            self.session.requests.push_front(request);
        }
    }

    /// SUBACK.
    pub(super) fn handle_suback(&mut self, ack: &SubackRef<'_>) -> Result<(), Fault> {
        let codes = reasons(ack.codes);
        let request = self.answered(ack.packet_id, |filters| matches!(filters, Filters::Subscribe(_)))?;
        let Filters::Subscribe(list) = &request.filters else { return Ok(()) };
        // [MQTT-3.8.4-6] [MQTT-3.9.3-1] ([MQTT-3.8.4-5] of 3.1.1)
        if list.len() != codes.len() {
            let what = "SUBACK without one code for each filter [MQTT-3.8.4-6]";
            return Err(Fault::violation(ReasonCode::ProtocolError, what));
        }
        let id = request.properties.as_properties().subscription_identifier();
        for ((filter, options), reason) in list.as_filters().into_iter().zip(&codes) {
            let filter = filter.as_str();
            if !reason.is_error() {
                let remembered = &self.session.subscriptions;
                let room = remembered.len() < self.config.max_subscriptions;
                if self.config.resubscribe && (room || remembered.contains_key(filter)) {
                    self.session.subscriptions.insert(filter.into(), Subscription { options, id });
                }
            } else if request.token.is_none() {
                self.session.subscriptions.remove(filter);
                self.event(Event::SubscriptionLost { filter: filter.into(), reason: *reason });
            }
        }
        self.answer(request.token, codes, ack.properties);
        Ok(())
    }

    /// UNSUBACK.
    pub(super) fn handle_unsuback(&mut self, ack: &UnsubackRef<'_>) -> Result<(), Fault> {
        let mut codes = reasons(ack.codes);
        let request = self.answered(ack.packet_id, |filters| matches!(filters, Filters::Unsubscribe(_)))?;
        let Filters::Unsubscribe(list) = &request.filters else { return Ok(()) };
        if !self.config.version.is_v5() {
            codes.resize(list.len(), ReasonCode::Success);
        }
        if list.len() != codes.len() {
            let what = "UNSUBACK without one code for each filter [MQTT-3.11.3-1]";
            return Err(Fault::violation(ReasonCode::ProtocolError, what));
        }
        for (filter, reason) in list.as_filters().into_iter().zip(&codes) {
            if !reason.is_error() {
                self.session.subscriptions.remove(filter.as_str());
            }
        }
        self.answer(request.token, codes, ack.properties);
        Ok(())
    }

    /// The request that the server answers.
    fn answered(&mut self, id: PacketId, kind: impl Fn(&Filters) -> bool) -> Result<Request, Fault> {
        let requests = &mut self.session.requests;
        let at = requests.iter().position(|request| request.id == Some(id) && kind(&request.filters));
        at.and_then(|at| requests.remove(at)).ok_or_else(|| {
            let what = "SUBACK or UNSUBACK that answers nothing [MQTT-3.8.4-2] [MQTT-3.10.4-5]";
            Fault::violation(ReasonCode::ProtocolError, what)
        })
    }

    fn answer(&mut self, token: Option<Token>, codes: Vec<ReasonCode>, properties: Properties<'_>) {
        if let Some(token) = token {
            let granted = Granted { codes, properties: properties.into() };
            self.done(token, Outcome::Granted(Box::new(granted)));
        }
        // There is an identifier and perhaps a place among the requests more.
        self.flush();
    }
}

fn reasons(codes: &[u8]) -> Vec<ReasonCode> {
    // Unknown codes were refused by the codec.
    codes.iter().map(|&code| ReasonCode::from_u8(code).unwrap_or(ReasonCode::UnspecifiedError)).collect()
}

impl Request {
    pub(super) fn packet(&self, packet_id: PacketId) -> PacketRef<'_> {
        let properties = self.properties.as_properties();
        match &self.filters {
            Filters::Subscribe(list) => {
                PacketRef::Subscribe(SubscribeRef { packet_id, properties, filters: list.as_filters() })
            }
            Filters::Unsubscribe(list) => {
                PacketRef::Unsubscribe(UnsubscribeRef { packet_id, properties, filters: list.as_filters() })
            }
        }
    }

    /// Why this server cannot get the request, whose packet has `size` bytes.
    pub(super) fn refusal(&self, limits: &Limits, size: usize) -> Option<Outcome> {
        if let Filters::Subscribe(list) = &self.filters {
            let any = |wanted: &dyn Fn(TopicFilter<'_>) -> bool| {
                list.as_filters().into_iter().any(|(filter, _)| wanted(filter))
            };
            let has_id = self.properties.as_properties().subscription_identifier().is_some();
            let reason = if !limits.wildcard_subscriptions && any(&|filter| filter.has_wildcard()) {
                Some(ReasonCode::WildcardSubscriptionsNotSupported)
            } else if !limits.shared_subscriptions && any(&|filter| filter.shared().is_some()) {
                Some(ReasonCode::SharedSubscriptionsNotSupported)
            } else if !limits.subscription_ids && has_id {
                Some(ReasonCode::SubscriptionIdentifiersNotSupported)
            } else {
                None
            };
            if let Some(reason) = reason {
                return Some(Outcome::NotSupported(reason));
            }
        }
        let max = limits.max_packet_size;
        let fits = usize::try_from(max).is_ok_and(|max| size <= max);
        (!fits).then_some(Outcome::TooLarge { size, max })
    }
}
