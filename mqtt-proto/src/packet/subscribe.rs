//! SUBSCRIBE, UNSUBSCRIBE and the lists of filters in them.

use super::{PacketType, write_binary};
use crate::property::PropertyContext;
use crate::reader::Reader;
use crate::topic::{TopicFilter, check_filter, shared_part};
use crate::{DecodeError, EncodeError, PacketId, Properties, QoS, RetainHandling, Violation};
use alloc::vec::Vec;

/// SUBSCRIBE: a client asks for the messages that match its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeRef<'a> {
    /// Ties the SUBACK to it.
    pub packet_id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// At least one filter with its options [MQTT-3.8.3-2].
    pub filters: SubscribeFilters<'a>,
}

/// UNSUBSCRIBE: a client gives subscriptions back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubscribeRef<'a> {
    /// Ties the UNSUBACK to it.
    pub packet_id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// At least one filter [MQTT-3.10.3-2].
    pub filters: UnsubscribeFilters<'a>,
}

/// The checked filters of a SUBSCRIBE with their options, as they stand in the packet. Comparing two
/// lists compares their bytes.
#[derive(Clone, Copy, Default)]
pub struct SubscribeFilters<'a> {
    bytes: &'a [u8],
    /// Whether options of 5.0 may be among them, which are left out when encoding for 3.x.
    v5: bool,
}

/// The checked filters of an UNSUBSCRIBE, as they stand in the packet.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct UnsubscribeFilters<'a> {
    bytes: &'a [u8],
}

impl<'a> SubscribeRef<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let v5 = r.version().is_v5();
        let properties =
            if v5 { Properties::decode(r, PropertyContext::Subscribe)? } else { Properties::EMPTY };
        if r.is_empty() {
            return Err(r.error(Violation::NoFilters));
        }
        let all = *r;
        while !r.is_empty() {
            let at = *r;
            let filter = r.utf8_bytes()?;
            check_filter(filter).map_err(|e| at.error(e.violation()))?;
            let at = *r;
            let options = SubscriptionOptions::from_byte(r.u8()?, v5).map_err(|v| at.error(v))?;
            if options.no_local && shared_part(filter).is_some() {
                return Err(at.error(Violation::NoLocalShared));
            }
        }
        Ok(Self { packet_id, properties, filters: SubscribeFilters { bytes: { all }.take_rest(), v5 } })
    }

    pub(super) fn body_len(&self, v5: bool) -> Result<usize, EncodeError> {
        if self.filters.bytes.is_empty() {
            return Err(Violation::NoFilters.into());
        }
        Ok(2 + self.properties.len_in(PropertyContext::Subscribe, v5)? + self.filters.bytes.len())
    }

    pub(super) fn write(&self, v5: bool, dst: &mut Vec<u8>) {
        dst.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if v5 {
            self.properties.encode(dst);
        }
        if v5 || !self.filters.v5 {
            dst.extend_from_slice(self.filters.bytes);
            return;
        }
        // Options that 3.x does not know are left out.
        for (filter, options) in self.filters {
            write_binary(filter.as_str().as_bytes(), dst);
            dst.push(options.to_byte(false));
        }
    }
}

impl<'a> UnsubscribeRef<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let properties = if r.version().is_v5() {
            Properties::decode(r, PropertyContext::Unsubscribe)?
        } else {
            Properties::EMPTY
        };
        if r.is_empty() {
            return Err(r.error(Violation::NoUnsubscribeFilters));
        }
        let all = *r;
        while !r.is_empty() {
            let at = *r;
            check_filter(r.utf8_bytes()?).map_err(|e| at.error(e.violation()))?;
        }
        Ok(Self { packet_id, properties, filters: UnsubscribeFilters { bytes: { all }.take_rest() } })
    }

    pub(super) fn body_len(&self, v5: bool) -> Result<usize, EncodeError> {
        if self.filters.bytes.is_empty() {
            return Err(Violation::NoUnsubscribeFilters.into());
        }
        Ok(2 + self.properties.len_in(PropertyContext::Unsubscribe, v5)? + self.filters.bytes.len())
    }

    pub(super) fn write(&self, v5: bool, dst: &mut Vec<u8>) {
        dst.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if v5 {
            self.properties.encode(dst);
        }
        dst.extend_from_slice(self.filters.bytes);
    }
}

impl PacketType {
    /// SUBSCRIBE, UNSUBSCRIBE and PUBREL have the header flags 0010.
    pub(super) const fn has_flag_bit(self) -> bool {
        matches!(self, Self::Subscribe | Self::Unsubscribe | Self::Pubrel)
    }
}

/// What a subscriber wants of one filter. Below 5.0 only the QoS exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// The highest QoS at which messages are wanted.
    pub qos: QoS,
    /// Do not send back what the same client published (5.0).
    pub no_local: bool,
    /// Keep the retain flag as the publisher set it (5.0).
    pub retain_as_published: bool,
    /// Whether retained messages are wanted on subscribing (5.0).
    pub retain_handling: RetainHandling,
}

impl From<QoS> for SubscriptionOptions {
    fn from(qos: QoS) -> Self {
        Self { qos, ..Self::default() }
    }
}

impl SubscriptionOptions {
    pub(crate) const fn to_byte(self, v5: bool) -> u8 {
        let qos = self.qos.as_u8();
        if !v5 {
            return qos;
        }
        qos | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }

    pub(crate) fn from_byte(byte: u8, v5: bool) -> Result<Self, Violation> {
        let reserved = if v5 { 0xC0 } else { 0xFC };
        if byte & reserved != 0 {
            return Err(Violation::SubscribeOptions);
        }
        let qos = QoS::from_u8(byte & 3).ok_or(Violation::SubscribeQos)?;
        let retain_handling =
            RetainHandling::from_u8(byte >> 4 & 3).ok_or(Violation::SubscribeRetainHandling)?;
        Ok(Self { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
    }
}

impl<'a> IntoIterator for SubscribeFilters<'a> {
    type Item = (TopicFilter<'a>, SubscriptionOptions);
    type IntoIter = SubscribeFilterIter<'a>;

    fn into_iter(self) -> SubscribeFilterIter<'a> {
        SubscribeFilterIter { rest: self.bytes, v5: self.v5 }
    }
}

impl<'a> IntoIterator for UnsubscribeFilters<'a> {
    type Item = TopicFilter<'a>;
    type IntoIter = UnsubscribeFilterIter<'a>;

    fn into_iter(self) -> UnsubscribeFilterIter<'a> {
        UnsubscribeFilterIter { rest: self.bytes }
    }
}

/// Walks the filters of a SUBSCRIBE in their order.
#[derive(Clone, Debug)]
pub struct SubscribeFilterIter<'a> {
    rest: &'a [u8],
    v5: bool,
}

/// Walks the filters of an UNSUBSCRIBE in their order.
#[derive(Clone, Debug)]
pub struct UnsubscribeFilterIter<'a> {
    rest: &'a [u8],
}

fn split_filter(bytes: &[u8]) -> Option<(TopicFilter<'_>, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    // Checked when the packet was decoded or the list was built.
    Some((TopicFilter::checked(core::str::from_utf8(text).ok()?), rest))
}

impl<'a> Iterator for SubscribeFilterIter<'a> {
    type Item = (TopicFilter<'a>, SubscriptionOptions);

    fn next(&mut self) -> Option<Self::Item> {
        let (filter, rest) = split_filter(self.rest)?;
        let (&options, rest) = rest.split_first()?;
        self.rest = rest;
        Some((filter, SubscriptionOptions::from_byte(options, self.v5).ok()?))
    }
}

impl<'a> Iterator for UnsubscribeFilterIter<'a> {
    type Item = TopicFilter<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (filter, rest) = split_filter(self.rest)?;
        self.rest = rest;
        Some(filter)
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for SubscribeFilters<'_> {}

impl core::hash::Hash for SubscribeFilters<'_> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl core::fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl core::fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// A list of filters and options for a SUBSCRIBE that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeFiltersBuf {
    bytes: Vec<u8>,
    len: usize,
}

impl SubscribeFiltersBuf {
    /// An empty list; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), len: 0 }
    }

    /// Appends a filter.
    ///
    /// # Errors
    /// Names the rule if `filter` is no topic filter, or No Local is asked for on a shared one. The
    /// list is then as it was.
    pub fn push(&mut self, filter: &str, options: SubscriptionOptions) -> Result<(), EncodeError> {
        let filter = TopicFilter::new(filter)?;
        if options.no_local && filter.shared().is_some() {
            return Err(Violation::NoLocalShared.into());
        }
        write_binary(filter.as_str().as_bytes(), &mut self.bytes);
        self.bytes.push(options.to_byte(true));
        self.len += 1;
        Ok(())
    }

    /// How many filters it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The list, to be put into a packet.
    #[must_use]
    pub fn as_filters(&self) -> SubscribeFilters<'_> {
        SubscribeFilters { bytes: &self.bytes, v5: true }
    }
}

/// A list of filters for an UNSUBSCRIBE that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnsubscribeFiltersBuf {
    bytes: Vec<u8>,
    len: usize,
}

impl UnsubscribeFiltersBuf {
    /// An empty list; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), len: 0 }
    }

    /// Appends a filter.
    ///
    /// # Errors
    /// Names the rule if `filter` is no topic filter. The list is then as it was.
    pub fn push(&mut self, filter: &str) -> Result<(), EncodeError> {
        let filter = TopicFilter::new(filter)?;
        write_binary(filter.as_str().as_bytes(), &mut self.bytes);
        self.len += 1;
        Ok(())
    }

    /// How many filters it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The list, to be put into a packet.
    #[must_use]
    pub fn as_filters(&self) -> UnsubscribeFilters<'_> {
        UnsubscribeFilters { bytes: &self.bytes }
    }
}
