//! `-F`: how a message is printed. The notation is Mosquitto's.

use chrono::{DateTime, Local};
use mqtt_proto::Property;
use mqtt_session::Message;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// A message and the moment it was received.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    message: &'a Message,
    at: DateTime<Local>,
}

impl<'a> Line<'a> {
    pub(crate) fn now(message: &'a Message) -> Self {
        Self { message, at: Local::now() }
    }
}

/// A format that was read.
#[derive(Debug, PartialEq)]
pub(crate) struct Format {
    parts: Vec<Part>,
    pretty: bool,
}

#[derive(Debug, PartialEq)]
enum Part {
    Text(Vec<u8>),
    Field {
        what: char,
        pad: Pad,
    },
    /// As strftime has it.
    Time(String),
    Nanoseconds,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pad {
    left: bool,
    zero: bool,
    width: usize,
    /// For text: at most so many characters. For `%x`: bytes between separators.
    precision: Option<usize>,
}

/// The conversions of `%`.
const FIELDS: &str = "ACDEFIJPRSUXjlmpqrtx";
/// The conversions of `@` that strftime knows.
const TIMES: &str = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ";

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    /// Says what is wrong with it, and where.
    pub(crate) fn parse(text: &str, pretty: bool) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut chars = text.chars().peekable();
        let mut put = |plain: &mut Vec<u8>, part| {
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(plain)));
            }
            parts.extend(part);
        };
        while let Some(c) = chars.next() {
            match c {
                '%' if chars.next_if_eq(&'%').is_some() => plain.push(b'%'),
                '%' => {
                    let pad = pad(&mut chars);
                    match chars.next() {
                        Some(what) if FIELDS.contains(what) => {
                            put(&mut plain, Some(Part::Field { what, pad }))
                        }
                        Some(other) => return Err(format!("-F: there is no conversion %{other}")),
                        None => {
                            return Err("-F: the format ends behind %; write %% for the sign itself".into());
                        }
                    }
                }
                '@' => match chars.next() {
                    Some('@') => plain.push(b'@'),
                    Some('N') => put(&mut plain, Some(Part::Nanoseconds)),
                    Some(what) if TIMES.contains(what) => {
                        put(&mut plain, Some(Part::Time(format!("%{what}"))));
                    }
                    Some(other) => return Err(format!("-F: there is no conversion @{other}")),
                    None => return Err("-F: the format ends behind @; write @@ for the sign itself".into()),
                },
                '\\' => plain.push(match chars.next() {
                    Some('0') => 0,
                    Some('a') => 7,
                    Some('e') => 27,
                    Some('n') => b'\n',
                    Some('r') => b'\r',
                    Some('t') => b'\t',
                    Some('v') => 11,
                    Some('\\') => b'\\',
                    Some(other) => return Err(format!("-F: there is no escape \\{other}")),
                    None => {
                        return Err("-F: the format ends behind \\; write \\\\ for the sign itself".into());
                    }
                }),
                other => plain.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        put(&mut plain, None);
        Ok(Self { parts, pretty })
    }

    /// Writes a message.
    pub(crate) fn write(&self, out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.write_all(text)?,
                Part::Field { what, pad } => self.field(out, *what, *pad, line)?,
                Part::Time(format) => write!(out, "{}", line.at.format(format))?,
                Part::Nanoseconds => write!(out, "{:09}", line.at.timestamp_subsec_nanos())?,
            }
        }
        Ok(())
    }

    fn field(&self, out: &mut impl Write, what: char, pad: Pad, line: &Line<'_>) -> io::Result<()> {
        let message = line.message;
        let properties = message.properties.as_properties();
        let text = match what {
            'p' => return pad.bytes(out, &message.payload),
            'x' | 'X' => return pad.hex(out, &message.payload, what == 'X'),
            'D' => return pad.bytes(out, properties.correlation_data().unwrap_or_default()),
            't' => message.topic.clone(),
            'q' => message.qos.as_u8().to_string(),
            'r' => u8::from(message.retain).to_string(),
            'l' => message.payload.len().to_string(),
            // Acknowledging, and with it the identifier, is the client's.
            'm' => String::from("0"),
            'A' => properties.topic_alias().map(|n| n.to_string()).unwrap_or_default(),
            'C' => properties.content_type().unwrap_or_default().to_owned(),
            'E' => properties.message_expiry_interval().map(|n| n.to_string()).unwrap_or_default(),
            'F' => properties.payload_format_indicator().map(|f| u8::from(f).to_string()).unwrap_or_default(),
            'R' => properties.response_topic().unwrap_or_default().to_owned(),
            'S' => properties.subscription_identifier().map(|n| n.to_string()).unwrap_or_default(),
            'P' => {
                let pairs: Vec<String> =
                    properties.user_properties().map(|(name, value)| format!("{name}:{value}")).collect();
                pairs.join(" ")
            }
            'I' => line.at.format("%Y-%m-%dT%H:%M:%S%z").to_string(),
            'U' => format!("{}.{:09}", line.at.timestamp(), line.at.timestamp_subsec_nanos()),
            _ => {
                let value = json_of(line, what == 'J');
                let text = if self.pretty {
                    serde_json::to_string_pretty(&value)
                } else {
                    serde_json::to_string(&value)
                };
                text.map_err(io::Error::other)?
            }
        };
        pad.bytes(out, text.as_bytes())
    }
}

/// Flags, width and precision in front of a conversion.
fn pad(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Pad {
    let mut pad = Pad::default();
    while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0')) {
        if flag == '-' {
            pad.left = true;
        } else {
            pad.zero = true;
        }
    }
    pad.width = number(chars);
    if chars.next_if_eq(&'.').is_some() {
        pad.precision = Some(number(chars));
    }
    pad
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut n = 0;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        // Wider than a screen is wide enough.
        n = (n * 10 + digit as usize).min(10_000);
    }
    n
}

impl Pad {
    fn bytes(self, out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        let bytes = &bytes[..bytes.len().min(self.precision.unwrap_or(usize::MAX))];
        self.around(out, bytes, String::from_utf8_lossy(bytes).chars().count())
    }

    fn around(self, out: &mut impl Write, bytes: &[u8], len: usize) -> io::Result<()> {
        let fill = self.width.saturating_sub(len);
        if self.left {
            out.write_all(bytes)?;
        }
        let with = if self.zero && !self.left { b"0" } else { b" " };
        for _ in 0..fill {
            out.write_all(with)?;
        }
        if !self.left {
            out.write_all(bytes)?;
        }
        Ok(())
    }

    fn hex(self, out: &mut impl Write, bytes: &[u8], upper: bool) -> io::Result<()> {
        let mut text = String::new();
        let group = self.precision.filter(|n| *n > 0).unwrap_or(usize::MAX);
        for (n, byte) in bytes.iter().enumerate() {
            if n > 0 && n % group == 0 {
                text.push(' ');
            }
            text += &if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
        }
        let len = text.len();
        Self { precision: None, ..self }.around(out, text.as_bytes(), len)
    }
}

/// The message as JSON; with `parse`, its payload is taken as JSON too.
fn json_of(line: &Line<'_>, parse: bool) -> Value {
    let message = line.message;
    let mut object = Map::new();
    let at = line.at.format("%Y-%m-%dT%H:%M:%S.%6f%z").to_string();
    object.insert("tst".into(), at.into());
    object.insert("topic".into(), message.topic.clone().into());
    object.insert("qos".into(), message.qos.as_u8().into());
    object.insert("retain".into(), u8::from(message.retain).into());
    object.insert("payloadlen".into(), message.payload.len().into());
    let properties = properties_of(message);
    if !properties.is_empty() {
        object.insert("properties".into(), Value::Object(properties));
    }
    let text = || Value::from(String::from_utf8_lossy(&message.payload).into_owned());
    let payload =
        if parse { serde_json::from_slice(&message.payload).unwrap_or_else(|_| text()) } else { text() };
    object.insert("payload".into(), payload);
    Value::Object(object)
}

fn properties_of(message: &Message) -> Map<String, Value> {
    let mut object = Map::new();
    let mut user = Map::new();
    for property in message.properties.as_properties() {
        let value = match property {
            Property::PayloadFormatIndicator(v) => json!(u8::from(v)),
            Property::MessageExpiryInterval(v) | Property::SubscriptionIdentifier(v) => json!(v),
            Property::ContentType(v) | Property::ResponseTopic(v) => json!(v),
            Property::CorrelationData(v) => json!(String::from_utf8_lossy(v)),
            Property::TopicAlias(v) => json!(v),
            Property::UserProperty(name, value) => {
                user.insert(name.into(), value.into());
                continue;
            }
            _ => continue,
        };
        object.insert(property.id().name().into(), value);
    }
    if !user.is_empty() {
        object.insert("user-properties".into(), Value::Object(user));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_proto::{PropertiesBuf, QoS};

    fn show(format: &str) -> String {
        let mut message = Message::new("a/b", "hello").with_qos(QoS::AtLeastOnce).retained();
        message.properties = PropertiesBuf::new()
            .with(Property::ContentType("text"))
            .and_then(|list| list.with(Property::UserProperty("k", "1")))
            .and_then(|list| list.with(Property::UserProperty("l", "2")))
            .unwrap();
        let at = DateTime::from_timestamp(1_470_818_943, 786_368_637).unwrap().with_timezone(&Local);
        let mut out = Vec::new();
        Format::parse(format, false).unwrap().write(&mut out, &Line { message: &message, at }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn conversions_show_the_message() {
        assert_eq!(show("%t %p %q %r %l"), "a/b hello 1 1 5");
        assert_eq!(show("%C|%P|%R|%E|%%"), "text|k:1 l:2|||%");
        assert_eq!(show("%x %X"), "68656c6c6f 68656C6C6F");
        assert_eq!(show("%U @s @N @@"), "1470818943.786368637 1470818943 786368637 @");
        assert_eq!(show("\\t\\\\\\e\\n"), "\t\\\u{1b}\n");
    }

    #[test]
    fn width_and_precision_shape_them() {
        assert_eq!(
            show("[%8p][%-8p][%08l][%.3p][%.2x]"),
            "[   hello][hello   ][00000005][hel][6865 6c6c 6f]"
        );
    }

    #[test]
    fn json_holds_everything() {
        let value: Value = serde_json::from_str(&show("%j")).unwrap();
        assert_eq!(value["topic"], "a/b");
        assert_eq!(value["retain"], 1);
        assert_eq!(value["payload"], "hello");
        assert_eq!(value["properties"]["content-type"], "text");
        assert_eq!(value["properties"]["user-properties"]["l"], "2");
    }

    #[test]
    fn mistakes_are_named() {
        for wrong in ["%", "%y", "@", "@!", "\\", "\\q"] {
            assert!(Format::parse(wrong, false).is_err(), "{wrong}");
        }
    }
}
