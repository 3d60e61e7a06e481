//! `-D COMMAND NAME VALUE`: properties of 5.0 on the command line.

use crate::stop::Stop;
use clap::ArgMatches;
use mqtt_proto::{PropertiesBuf, Property, PropertyContext, PropertyId};
use mqtt_session::client::ClientConfig;

/// What `-D` gave, by packet.
#[derive(Debug, Default)]
pub(crate) struct Properties {
    connect: PropertiesBuf,
    pub(crate) publish: PropertiesBuf,
    pub(crate) subscribe: PropertiesBuf,
    pub(crate) disconnect: PropertiesBuf,
    pub(crate) will: PropertiesBuf,
    unsubscribe: PropertiesBuf,
    any: bool,
}

impl Properties {
    /// Reads all occurrences of `-D`.
    pub(crate) fn from_matches(matches: &ArgMatches) -> Result<Self, Stop> {
        let mut all = Self::default();
        for words in matches.get_occurrences::<String>("property").into_iter().flatten() {
            let words: Vec<&str> = words.map(String::as_str).collect();
            let [command, name, values @ ..] = words.as_slice() else { continue };
            all.push(command, name, values)?;
        }
        Ok(all)
    }

    fn push(&mut self, command: &str, name: &str, values: &[&str]) -> Result<(), Stop> {
        let (list, context) = match command.to_ascii_lowercase().as_str() {
            "connect" => (&mut self.connect, PropertyContext::Connect),
            "publish" => (&mut self.publish, PropertyContext::Publish),
            "subscribe" => (&mut self.subscribe, PropertyContext::Subscribe),
            "unsubscribe" => (&mut self.unsubscribe, PropertyContext::Unsubscribe),
            "disconnect" => (&mut self.disconnect, PropertyContext::Disconnect),
            "will" => (&mut self.will, PropertyContext::Will),
            _ => {
                return Err(Stop::new(format!(
                    "-D {command}: write connect, publish, subscribe, unsubscribe, disconnect or will"
                )));
            }
        };
        let wrong = |what: &str| Stop::new(format!("-D {command} {name}: {what}"));
        let id = PropertyId::from_name(&name.to_ascii_lowercase())
            .ok_or_else(|| wrong("there is no property of this name"))?;
        if !context.allows(id) {
            return Err(wrong("this packet has no such property"));
        }
        let property = parse(id, values).map_err(wrong)?;
        list.push(property).map_err(|e| wrong(&e.to_string()))?;
        self.any = true;
        Ok(())
    }

    /// Whether there are any, which only 5.0 has.
    pub(crate) const fn any(&self) -> bool {
        self.any
    }

    /// Puts those of CONNECT where the client takes them.
    pub(crate) fn configure(&self, config: &mut ClientConfig) -> Result<(), Stop> {
        for property in self.connect.as_properties() {
            match property {
                Property::SessionExpiryInterval(secs) => config.session_expiry_secs = secs,
                Property::ReceiveMaximum(n) => config.receive_maximum = n,
                Property::MaximumPacketSize(n) => config.max_packet_size = n,
                Property::TopicAliasMaximum(n) => config.topic_alias_maximum = n,
                Property::RequestResponseInformation(on) => config.request_response_information = on,
                Property::RequestProblemInformation(on) => config.request_problem_information = on,
                Property::UserProperty(name, value) => {
                    config.user_properties.push((name.to_owned(), value.to_owned()));
                }
                other => {
                    let name = other.id().name();
                    return Err(Stop::new(format!("-D connect {name}: not supported on the command line")));
                }
            }
        }
        Ok(())
    }
}

fn parse<'a>(id: PropertyId, values: &[&'a str]) -> Result<Property<'a>, &'static str> {
    use Property as P;
    use PropertyId as I;
    let value = match (id, values) {
        (I::UserProperty, [name, value]) => return Ok(P::UserProperty(name, value)),
        (I::UserProperty, _) => return Err("give a name and a value"),
        (_, [value]) => *value,
        _ => return Err("give one value"),
    };
    fn number<T: std::str::FromStr>(text: &str) -> Result<T, &'static str> {
        text.parse().map_err(|_| "the value is no number, or too large")
    }
    let flag = || match value {
        "0" | "false" => Ok(false),
        "1" | "true" => Ok(true),
        _ => Err("the value is 0 or 1"),
    };
    Ok(match id {
        I::PayloadFormatIndicator => P::PayloadFormatIndicator(flag()?),
        I::MessageExpiryInterval => P::MessageExpiryInterval(number(value)?),
        I::ContentType => P::ContentType(value),
        I::ResponseTopic => P::ResponseTopic(value),
        I::CorrelationData => P::CorrelationData(value.as_bytes()),
        I::SubscriptionIdentifier => P::SubscriptionIdentifier(number(value)?),
        I::SessionExpiryInterval => P::SessionExpiryInterval(number(value)?),
        I::RequestProblemInformation => P::RequestProblemInformation(flag()?),
        I::RequestResponseInformation => P::RequestResponseInformation(flag()?),
        I::WillDelayInterval => P::WillDelayInterval(number(value)?),
        I::ReasonString => P::ReasonString(value),
        I::ReceiveMaximum => P::ReceiveMaximum(number(value)?),
        I::TopicAliasMaximum => P::TopicAliasMaximum(number(value)?),
        I::MaximumPacketSize => P::MaximumPacketSize(number(value)?),
        I::TopicAlias => return Err("aliases are given by the client itself"),
        _ => return Err("not supported on the command line"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_land_in_their_packets() {
        let mut all = Properties::default();
        all.push("publish", "content-type", &["text/plain"]).unwrap();
        all.push("PUBLISH", "User-Property", &["k", "v"]).unwrap();
        all.push("connect", "receive-maximum", &["7"]).unwrap();
        assert_eq!(all.publish.as_properties().content_type(), Some("text/plain"));
        let mut config = ClientConfig::new("c");
        all.configure(&mut config).unwrap();
        assert_eq!(config.receive_maximum, 7);
        for (command, name, values) in [
            ("publish", "session-expiry-interval", &["1"][..]),
            ("publish", "no-such", &["1"]),
            ("walk", "content-type", &["x"]),
            ("publish", "user-property", &["only-name"]),
            ("connect", "receive-maximum", &["0"]),
            ("publish", "message-expiry-interval", &["soon"]),
        ] {
            assert!(all.push(command, name, values).is_err(), "{command} {name}");
        }
    }
}
