//! From a format string to its parts.

/// A format string, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Field(Field, Layout),
    /// A directive of strftime.
    Time(char),
    Nanoseconds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    TopicAlias,
    ContentType,
    CorrelationData,
    MessageExpiry,
    PayloadFormat,
    Iso8601,
    /// JSON with the payload as a string.
    Json,
    /// JSON with the payload as a value.
    JsonPayload,
    Length,
    PacketId,
    Payload,
    UserProperties,
    Qos,
    ResponseTopic,
    Retain,
    SubscriptionId,
    Topic,
    UnixTime,
    Hex,
    HexUpper,
    Float32,
    Float64,
}

/// How a field is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) left: bool,
    pub(super) zeros: bool,
    pub(super) width: usize,
    pub(super) precision: Option<usize>,
    pub(super) separator: Option<char>,
}

/// A format string that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormatError {
    IncompleteField,
    IncompleteEscape,
    UnknownField(char),
    UnknownEscape(char),
}

impl std::fmt::Display for FormatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IncompleteField => f.write_str("Incomplete format specifier."),
            Self::IncompleteEscape => f.write_str("Incomplete escape specifier."),
            Self::UnknownField(c) => write!(f, "Invalid format specifier '{c}'."),
            Self::UnknownEscape(c) => write!(f, "Invalid escape specifier '{c}'."),
        }
    }
}

impl std::error::Error for FormatError {}

/// What may divide groups of hexadecimal digits.
const SEPARATORS: &str = ":- ,;/";
/// Wider fields than this are nobody's wish.
const MAX_WIDTH: usize = 10_000;

impl std::str::FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let part = match c {
                '%' => match field(&mut rest)? {
                    Some(part) => part,
                    None => {
                        literal.push('%');
                        continue;
                    }
                },
                '@' => match rest.next().ok_or(FormatError::IncompleteField)? {
                    '@' => {
                        literal.push('@');
                        continue;
                    }
                    'N' => Part::Nanoseconds,
                    directive => Part::Time(directive),
                },
                '\\' => {
                    literal.push(escape(rest.next().ok_or(FormatError::IncompleteEscape)?)?);
                    continue;
                }
                other => {
                    literal.push(other);
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }
}

fn escape(c: char) -> Result<char, FormatError> {
    Ok(match c {
        '\\' => '\\',
        '0' => '\0',
        'a' => '\x07',
        'e' => '\x1b',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        _ => return Err(FormatError::UnknownEscape(c)),
    })
}

/// What follows a `%`; `None` for a second one.
fn field(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<Part>, FormatError> {
    let mut layout = Layout { left: rest.next_if_eq(&'-').is_some(), ..Layout::default() };
    layout.zeros = rest.next_if_eq(&'0').is_some();
    layout.width = number(rest);
    if rest.next_if_eq(&'.').is_some() {
        layout.precision = Some(number(rest));
        layout.separator = rest.next_if(|c| SEPARATORS.contains(*c));
    }
    let field = match rest.next().ok_or(FormatError::IncompleteField)? {
        '%' => return Ok(None),
        'A' => Field::TopicAlias,
        'C' => Field::ContentType,
        'D' => Field::CorrelationData,
        'E' => Field::MessageExpiry,
        'F' => Field::PayloadFormat,
        'I' => Field::Iso8601,
        'j' => Field::Json,
        'J' => Field::JsonPayload,
        'l' => Field::Length,
        'm' => Field::PacketId,
        'p' => Field::Payload,
        'P' => Field::UserProperties,
        'q' => Field::Qos,
        'R' => Field::ResponseTopic,
        'r' => Field::Retain,
        'S' => Field::SubscriptionId,
        't' => Field::Topic,
        'U' => Field::UnixTime,
        'x' => Field::Hex,
        'X' => Field::HexUpper,
        'f' => Field::Float32,
        'd' => Field::Float64,
        other => return Err(FormatError::UnknownField(other)),
    };
    Ok(Some(Part::Field(field, layout)))
}

fn number(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut number = 0;
    while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
        rest.next();
        number = (number * 10 + digit as usize).min(MAX_WIDTH);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_escapes_are_one_piece() {
        let format: Format = "a%%b@@c\\\\\\t".parse().unwrap();
        assert_eq!(format.parts, [Part::Text("a%b@c\\\t".to_owned())]);
    }

    #[test]
    fn a_layout_is_flag_width_and_precision() {
        let format: Format = "%-010.2:x".parse().unwrap();
        let layout = Layout { left: true, zeros: true, width: 10, precision: Some(2), separator: Some(':') };
        assert_eq!(format.parts, [Part::Field(Field::Hex, layout)]);
    }

    #[test]
    fn nonsense_is_told_as_mosquitto_tells_it() {
        for (text, error) in [
            ("a%", "Incomplete format specifier."),
            ("a@", "Incomplete format specifier."),
            ("a\\", "Incomplete escape specifier."),
            ("%z", "Invalid format specifier 'z'."),
            ("%-5z", "Invalid format specifier 'z'."),
            ("\\q", "Invalid escape specifier 'q'."),
        ] {
            assert_eq!(text.parse::<Format>().unwrap_err().to_string(), error, "{text}");
        }
    }

    #[test]
    fn nobody_prints_a_field_of_gigabytes() {
        let format: Format = "%99999999999999999999999l".parse().unwrap();
        assert!(matches!(format.parts[0], Part::Field(_, Layout { width: MAX_WIDTH, .. })));
    }
}
