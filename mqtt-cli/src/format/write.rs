//! From a message and the parts of a format to bytes.

use super::parse::{Field, Format, Layout, Part};
use super::{Arrival, WriteError, json};
use std::fmt::Write as _;
use std::io::{self, Write};

impl Format {
    /// Writes `arrival`, without an end of line.
    ///
    /// # Errors
    /// If writing fails, or the payload is not what the format wants; what comes behind in the format
    /// is written all the same.
    pub(crate) fn write(&self, out: &mut impl Write, arrival: &Arrival<'_>) -> Result<(), WriteError> {
        let mut wrong = None;
        for part in &self.parts {
            match part {
                Part::Text(text) => out.write_all(text.as_bytes())?,
                Part::Time(directive) => {
                    out.write_all(arrival.at.strftime(&format!("%{directive}")).as_bytes())?;
                }
                Part::Nanoseconds => write!(out, "{:09}", arrival.at.nanoseconds())?,
                Part::Field(field, layout) => match layout.field(out, *field, arrival) {
                    Err(WriteError::Payload(what)) => wrong = Some(what),
                    done => done?,
                },
            }
        }
        match wrong {
            Some(what) => Err(WriteError::Payload(what)),
            None => Ok(()),
        }
    }
}

impl Layout {
    fn field(self, out: &mut impl Write, field: Field, arrival: &Arrival<'_>) -> Result<(), WriteError> {
        let message = arrival.message;
        let properties = message.properties.as_properties();
        match field {
            Field::Topic => self.text(out, Some(&message.topic))?,
            Field::ContentType => self.text(out, properties.content_type())?,
            Field::ResponseTopic => self.text(out, properties.response_topic())?,
            Field::Iso8601 => self.text(out, Some(&arrival.at.iso8601()))?,
            Field::TopicAlias => self.number(out, None)?,
            Field::MessageExpiry => {
                self.number(out, properties.message_expiry_interval().map(i64::from))?;
            }
            Field::PayloadFormat => {
                self.number(out, properties.payload_format_indicator().map(i64::from))?;
            }
            Field::SubscriptionId => {
                self.number(out, properties.subscription_identifiers().next().map(i64::from))?;
            }
            Field::Length => self.number(out, i64::try_from(message.payload.len()).ok())?,
            // The client keeps identifiers to itself; 0 is what Mosquitto prints at QoS 0.
            Field::PacketId => self.number(out, Some(0))?,
            Field::Qos => write!(out, "{}", message.qos.as_u8())?,
            Field::Retain => write!(out, "{}", u8::from(message.retain))?,
            Field::UnixTime => out.write_all(arrival.at.unix().as_bytes())?,
            Field::CorrelationData => out.write_all(properties.correlation_data().unwrap_or_default())?,
            Field::UserProperties => {
                for (n, (name, value)) in properties.user_properties().enumerate() {
                    write!(out, "{}{name}:{value}", if n == 0 { "" } else { " " })?;
                }
            }
            Field::Payload => self.payload(out, &message.payload)?,
            Field::Hex => self.hex(out, &message.payload, "0123456789abcdef")?,
            Field::HexUpper => self.hex(out, &message.payload, "0123456789ABCDEF")?,
            Field::Float32 => match message.payload[..].try_into() {
                Ok(bytes) => self.float(out, f32::from_ne_bytes(bytes).into())?,
                Err(_) => return Err(WriteError::Payload("is no float (4 bytes)")),
            },
            Field::Float64 => match message.payload[..].try_into() {
                Ok(bytes) => self.float(out, f64::from_ne_bytes(bytes))?,
                Err(_) => return Err(WriteError::Payload("is no double (8 bytes)")),
            },
            Field::Json => json::write(out, arrival, json::Payload::AsText)?,
            Field::JsonPayload => json::write(out, arrival, json::Payload::AsValue)?,
        }
        Ok(())
    }

    /// Text that is cut to the greatest width and filled up to the least.
    fn text(self, out: &mut impl Write, text: Option<&str>) -> io::Result<()> {
        let text = text.unwrap_or_default();
        let text = match self.precision.and_then(|max| text.char_indices().nth(max)) {
            Some((end, _)) => &text[..end],
            None => text,
        };
        self.filled(out, ' ', text.as_bytes(), text.chars().count())
    }

    /// A number, or as much space where there is none.
    fn number(self, out: &mut impl Write, number: Option<i64>) -> io::Result<()> {
        let digits = number.map(|n| n.to_string()).unwrap_or_default();
        self.filled(out, self.fill(), digits.as_bytes(), digits.len())
    }

    fn float(self, out: &mut impl Write, value: f64) -> io::Result<()> {
        let digits = format!("{value:.*}", self.precision.unwrap_or(6));
        self.filled(out, self.fill(), digits.as_bytes(), digits.len())
    }

    /// The payload as it is; with a width, exactly that many bytes.
    fn payload(self, out: &mut impl Write, payload: &[u8]) -> io::Result<()> {
        let end = if self.width > 0 { self.width.min(payload.len()) } else { payload.len() };
        self.filled(out, self.fill(), &payload[..end], end)
    }

    /// The payload in hexadecimal; with a width, as many whole bytes as fit into it.
    fn hex(self, out: &mut impl Write, payload: &[u8], digits: &str) -> io::Result<()> {
        let end = if self.width > 0 { (self.width / 2).min(payload.len()) } else { payload.len() };
        let digits: Vec<char> = digits.chars().collect();
        let nibbles = payload[..end].iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let mut text = String::with_capacity(end * 3);
        for (n, nibble) in nibbles.enumerate() {
            if let (Some(length @ 1..), Some(separator)) = (self.precision, self.separator)
                && n > 0
                && n % length == 0
            {
                text.push(separator);
            }
            text.push(digits[usize::from(nibble)]);
        }
        self.filled(out, self.fill(), text.as_bytes(), text.len())
    }

    fn fill(self) -> char {
        if self.zeros && !self.left { '0' } else { ' ' }
    }

    fn filled(self, out: &mut impl Write, with: char, content: &[u8], width: usize) -> io::Result<()> {
        let mut filling = String::new();
        for _ in width..self.width {
            filling.write_char(with).map_err(io::Error::other)?;
        }
        let (before, after) = if self.left { ("", &*filling) } else { (&*filling, "") };
        out.write_all(before.as_bytes())?;
        out.write_all(content)?;
        out.write_all(after.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::time::Moment;
    use super::*;
    use mqtt_proto::{PropertiesBuf, Property, QoS};
    use mqtt_session::Message;

    fn written(format: &str, message: &Message) -> String {
        let mut out = Vec::new();
        let arrival = Arrival { message, at: Moment::example(), pretty: false };
        format.parse::<Format>().unwrap().write(&mut out, &arrival).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn rich() -> Message {
        let mut message = Message::new("f/a", "x").with_qos(QoS::AtLeastOnce).retained();
        let mut properties = PropertiesBuf::new();
        for property in [
            Property::ContentType("text/plain"),
            Property::CorrelationData(b"abc"),
            Property::MessageExpiryInterval(60),
            Property::PayloadFormatIndicator(true),
            Property::UserProperty("a", "b"),
            Property::UserProperty("c", "d"),
            Property::ResponseTopic("r/t"),
            Property::SubscriptionIdentifier(7),
        ] {
            properties.push(property).unwrap();
        }
        message.properties = properties;
        message
    }

    /// What stands on the right was printed by mosquitto_sub 2.0.11.
    #[test]
    fn fields_are_written_as_mosquitto_writes_them() {
        let hello = Message::new("f/a", "Hé\"l");
        let abc = Message::new("f/abc", "x");
        let xyz = Message::new("f/a", "xyz").with_qos(QoS::AtLeastOnce);
        let plain = Message::new("f/a", "x");
        let rich = rich();
        for (format, message, expected) in [
            ("%%|%t|%p|%q|%r|%m|%l|%x|%X", &hello, "%|f/a|Hé\"l|0|0|0|5|48c3a9226c|48C3A9226C"),
            ("%10t|%-10t|%.2t|%5.2t|%-5.2t|%010t", &abc, "     f/abc|f/abc     |f/|   f/|f/   |     f/abc"),
            ("%5l|%-5l|%05l|%-05l|%5m|%05m|%-5m", &xyz, "    3|3    |00003|3    |    0|00000|0    "),
            ("%10p|%-10p|%.2p|%010p|%2p", &xyz, "       xyz|xyz       |xyz|0000000xyz|xy"),
            ("%5q|%05q|%5r", &plain, "0|0|0"),
            ("%A|%C|%D|%E|%F|%P|%R|%S", &plain, "|||||||"),
            ("%A|%C|%D|%E|%F|%P|%R", &rich, "|text/plain|abc|60|1|a:b c:d|r/t"),
            ("%5E|%05E|%-5E|%5F|%05F", &rich, "   60|00060|60   |    1|00001"),
            ("%10C|%-10C|%.2C|%10R|%.2R", &rich, "text/plain|text/plain|te|       r/t|r/"),
            ("%5E|%05E|%-5E|%5S|%05S|%05A", &plain, "     |00000|     |     |00000|00000"),
            ("@@|@Y|@s|@Y-@m-@dT@H:@M:@S@z", &plain, "@|2021|1612321506|2021-02-03T04:05:06+0100"),
            ("@N", &plain, "078901234"),
            ("%I|%.4I", &plain, "2021-02-03T04:05:06+0100|2021"),
            ("%U", &plain, "1612321506.078901234"),
            ("\\\\|\\a|\\e|\\n|\\r|\\t|\\v|\\0", &plain, "\\|\x07|\x1b|\n|\r|\t|\x0b|\0"),
        ] {
            assert_eq!(written(format, message), expected, "{format}");
        }
    }

    #[test]
    fn the_rest_is_written_as_the_manual_says() {
        let rich = rich();
        assert_eq!(written("%S|%q|%r", &rich), "7|1|1");
        let xyz = Message::new("f/a", "xyz");
        assert_eq!(written("%10x|%-10x|%010X|%4x", &xyz), "    78797a|78797a    |000078797A|7879");
        assert_eq!(written("%.2:x|%.4-X", &xyz), "78:79:7a|7879-7A");
        assert_eq!(written("%30I|", &xyz), "      2021-02-03T04:05:06+0100|");
        let float = Message::new("f", 1.5f32.to_ne_bytes().to_vec());
        assert_eq!(written("%f|%.1f|%6.1f|%06.1f", &float), "1.500000|1.5|   1.5|0001.5");
        let double = Message::new("f", (-0.25f64).to_ne_bytes().to_vec());
        assert_eq!(written("%d|%-9.2d|", &double), "-0.250000|-0.25    |");
    }

    #[test]
    fn a_character_is_never_cut() {
        assert_eq!(written("%.2t|%3t", &Message::new("äöü", "")), "äö|äöü");
    }

    #[test]
    fn a_payload_that_does_not_fit_is_told() {
        for (format, what) in [("a%fb", "is no float (4 bytes)"), ("a%db", "is no double (8 bytes)")] {
            let mut out = Vec::new();
            let message = Message::new("t", "123");
            let arrival = Arrival { message: &message, at: Moment::example(), pretty: false };
            let result = format.parse::<Format>().unwrap().write(&mut out, &arrival);
            assert!(matches!(result, Err(WriteError::Payload(w)) if w == what), "{result:?}");
            assert_eq!(out, b"ab");
        }
    }
}
