//! Messages as JSON.

use super::{Arrival, WriteError};
use mqtt_proto::{Properties, Property};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io::{self, Write};

/// How the payload stands in the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// As a string; bytes that are no text as a list of numbers.
    AsText,
    /// As the JSON value that it is.
    AsValue,
}

pub(super) fn write(out: &mut impl Write, arrival: &Arrival<'_>, payload: Payload) -> Result<(), WriteError> {
    let bytes = &arrival.message.payload;
    let value = match payload {
        Payload::AsText => None,
        Payload::AsValue if bytes.is_empty() => Some(serde_json::Value::Null),
        Payload::AsValue => {
            let value = serde_json::from_slice(bytes);
            Some(value.map_err(|_| WriteError::Payload("is not valid JSON"))?)
        }
    };
    let root = Root { arrival, value };
    let written = if arrival.pretty {
        let formatter = Tabs(PrettyFormatter::with_indent(b"\t"));
        root.serialize(&mut serde_json::Serializer::with_formatter(out, formatter))
    } else {
        root.serialize(&mut serde_json::Serializer::with_formatter(out, CompactFormatter))
    };
    written.map_err(|e| WriteError::Io(e.into()))
}

struct Root<'a> {
    arrival: &'a Arrival<'a>,
    value: Option<serde_json::Value>,
}

impl Serialize for Root<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.arrival.message;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("tst", &self.arrival.at.iso8601_micros())?;
        map.serialize_entry("topic", &message.topic)?;
        map.serialize_entry("qos", &message.qos.as_u8())?;
        map.serialize_entry("retain", &u8::from(message.retain))?;
        map.serialize_entry("payloadlen", &message.payload.len())?;
        let properties = message.properties.as_properties();
        if !properties.is_empty() {
            map.serialize_entry("properties", &List(properties))?;
        }
        match &self.value {
            Some(value) => map.serialize_entry("payload", value)?,
            None if message.payload.is_empty() => map.serialize_entry("payload", &())?,
            None => map.serialize_entry("payload", &Text(&message.payload))?,
        }
        map.end()
    }
}

/// The properties under their names; user properties together, where the first of them stands. A name
/// that occurs twice stands there twice.
struct List<'a>(Properties<'a>);

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut users = false;
        for property in self.0 {
            let name = property.id().name();
            match property {
                Property::UserProperty(..) if users => {}
                Property::UserProperty(..) => {
                    users = true;
                    map.serialize_entry("user-properties", &Users(self.0))?;
                }
                Property::PayloadFormatIndicator(v) => map.serialize_entry(name, &u8::from(v))?,
                Property::MessageExpiryInterval(v) | Property::SubscriptionIdentifier(v) => {
                    map.serialize_entry(name, &v)?;
                }
                Property::ContentType(v) | Property::ResponseTopic(v) => map.serialize_entry(name, v)?,
                Property::CorrelationData(v) => map.serialize_entry(name, &Text(v))?,
                // Not among the properties of a PUBLISH, or no business of the application's.
                _ => {}
            }
        }
        map.end()
    }
}

struct Users<'a>(Properties<'a>);

impl Serialize for Users<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.user_properties() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Bytes that usually are text.
struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(self.0),
        }
    }
}

/// Indents with tabs, and puts one behind each colon.
struct Tabs<'a>(PrettyFormatter<'a>);

impl Formatter for Tabs<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b":\t")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::Moment;
    use super::*;
    use mqtt_proto::PropertiesBuf;
    use mqtt_session::Message;

    fn written(message: &Message, payload: Payload, pretty: bool) -> Result<String, WriteError> {
        let mut out = Vec::new();
        write(&mut out, &Arrival { message, at: Moment::example(), pretty }, payload)?;
        Ok(String::from_utf8(out).unwrap())
    }

    const HEAD: &str = r#"{"tst":"2021-02-03T04:05:06.078901+0100","topic":"f/a","qos":0,"retain":0,"#;

    #[test]
    fn a_payload_as_text() {
        for (payload, expected) in [
            (&b"he\"l\\lo"[..], r#""payloadlen":7,"payload":"he\"l\\lo"}"#),
            (b"", r#""payloadlen":0,"payload":null}"#),
            (b"a\x01b\tc\nd/\xc3\xa9", r#""payloadlen":10,"payload":"a\u0001b\tc\nd/é"}"#),
            (b"\xff\x00", r#""payloadlen":2,"payload":[255,0]}"#),
        ] {
            let message = Message::new("f/a", payload.to_vec());
            let text = written(&message, Payload::AsText, false).unwrap();
            assert_eq!(text, format!("{HEAD}{expected}"));
        }
    }

    #[test]
    fn a_payload_as_a_value_keeps_its_numbers_and_order() {
        let message = Message::new("f/a", r#"{"z":27.0, "a":[1,2], "n":12345678901234567890123}"#);
        let text = written(&message, Payload::AsValue, false).unwrap();
        let expected = r#""payloadlen":50,"payload":{"z":27.0,"a":[1,2],"n":12345678901234567890123}}"#;
        assert_eq!(text, format!("{HEAD}{expected}"));
        for bad in ["nojson", "{} {}", "{"] {
            let result = written(&Message::new("f/a", bad), Payload::AsValue, false);
            assert!(matches!(result, Err(WriteError::Payload("is not valid JSON"))), "{bad}");
        }
        let empty = written(&Message::new("f/a", ""), Payload::AsValue, false).unwrap();
        assert!(empty.ends_with(r#""payload":null}"#));
    }

    #[test]
    fn properties_stand_under_their_names() {
        let mut message = Message::new("f/a", "x");
        let mut properties = PropertiesBuf::new();
        for property in [
            Property::ContentType("text/plain"),
            Property::CorrelationData(b"abc"),
            Property::PayloadFormatIndicator(true),
            Property::UserProperty("a", "b"),
            Property::MessageExpiryInterval(60),
            Property::UserProperty("a", "c"),
            Property::ResponseTopic("r/t"),
        ] {
            properties.push(property).unwrap();
        }
        message.properties = properties;
        let text = written(&message, Payload::AsText, false).unwrap();
        let expected = concat!(
            r#""payloadlen":1,"properties":{"content-type":"text/plain","correlation-data":"abc","#,
            r#""payload-format-indicator":1,"user-properties":{"a":"b","a":"c"},"#,
            r#""message-expiry-interval":60,"response-topic":"r/t"},"payload":"x"}"#
        );
        assert_eq!(text, format!("{HEAD}{expected}"));
    }

    #[test]
    fn for_people_there_are_lines_and_tabs() {
        let text = written(&Message::new("f/a", r#"{"a":1}"#), Payload::AsValue, true).unwrap();
        let expected = "{\n\t\"tst\":\t\"2021-02-03T04:05:06.078901+0100\",\n\t\"topic\":\t\"f/a\",\n\t\"qos\":\t0,\n\
                        \t\"retain\":\t0,\n\t\"payloadlen\":\t7,\n\t\"payload\":\t{\n\t\t\"a\":\t1\n\t}\n}";
        assert_eq!(text, expected);
    }
}
