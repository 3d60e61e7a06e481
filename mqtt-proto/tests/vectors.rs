//! Packets on which two independent codecs agree: what they accept is decoded to the same fields
//! and written back, what both refuse is refused.

mod common;

use common::{hex, short_ways_agree};
use mqtt_proto::{
    AckRef, ConnackRef, ConnectRef, PacketRef, Properties, Property, PublishRef, ReasonCode, Version,
};
use serde_json::{Map, Value, json};

struct Row {
    name: String,
    version: Version,
    packet: Vec<u8>,
    fields: Option<(String, Value)>,
}

fn rows(text: &str) -> Vec<Row> {
    let table: Vec<Value> = serde_json::from_str(text).unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().expect(key).to_owned();
    table
        .iter()
        .map(|row| Row {
            name: format!("{} ({})", text(row, "name"), text(row, "version")),
            version: match row["version"].as_str() {
                Some("3.1.1") => Version::V311,
                Some("5.0") => Version::V5,
                other => panic!("version {other:?}"),
            },
            packet: hex(&text(row, "hex")),
            fields: row["valid"].as_bool().unwrap().then(|| (text(row, "packet"), row["fields"].clone())),
        })
        .collect()
}

/// [MQTT-1.5.4-1] [MQTT-1.5.4-3] [MQTT-1.5.5-1]
#[test]
fn valid_packets_decode_to_the_listed_fields() {
    let rows = rows(include_str!("vectors/valid.json"));
    assert_eq!(rows.len(), 413);
    for row in &rows {
        let (kind, wanted) = row.fields.as_ref().expect("a valid row");
        short_ways_agree(&row.packet, row.version);
        let packet =
            PacketRef::decode(&row.packet, row.version).unwrap_or_else(|e| panic!("{}: {e}", row.name));
        assert_eq!(&packet.packet_type().to_string().to_lowercase(), kind, "{}", row.name);
        assert_eq!(fields(&packet, row.version), without_empty_lists(wanted), "{}", row.name);
    }
}

/// Whether the table shows an empty property list depends on the packet type.
fn without_empty_lists(fields: &Value) -> Value {
    let mut fields = fields.clone();
    let empty = |value: &Value| value["properties"].as_object().is_some_and(Map::is_empty);
    if empty(&fields) {
        fields.as_object_mut().unwrap().remove("properties");
    }
    if let Some(will) = fields.get_mut("will").filter(|will| empty(will)) {
        will.as_object_mut().unwrap().remove("properties");
    }
    fields
}

/// The encoder writes each packet as it was, unless there is a shorter form.
#[test]
fn valid_packets_are_written_back() {
    let mut shortened = 0;
    for row in rows(include_str!("vectors/valid.json")) {
        let packet = PacketRef::decode(&row.packet, row.version).unwrap();
        let mut wire = Vec::new();
        let len = packet.encode(row.version, &mut wire).unwrap_or_else(|e| panic!("{}: {e}", row.name));
        assert_eq!(len, wire.len(), "{}", row.name);
        assert_eq!(packet.encoded_len(row.version), Ok(len), "{}", row.name);
        assert_eq!(PacketRef::decode(&wire, row.version), Ok(packet), "{}", row.name);
        let shortest = shortest_form(&packet, &row.packet);
        shortened += usize::from(shortest != row.packet);
        assert_eq!(wire, shortest, "{}", row.name);
    }
    assert_eq!(shortened, 83, "rows that have a shorter form");
}

/// The other codecs spell out what 5.0 allows to leave away: in PUBACK to PUBCOMP and in DISCONNECT
/// the length of an empty property list, and then the reason code if it is 0x00 (3.4.2.1, 3.14.2.1).
fn shortest_form(packet: &PacketRef<'_>, wire: &[u8]) -> Vec<u8> {
    let (fixed, code) = match packet {
        PacketRef::Puback(p) | PacketRef::Pubrec(p) | PacketRef::Pubrel(p) | PacketRef::Pubcomp(p) => {
            (4, p.properties.is_empty().then_some(p.reason))
        }
        PacketRef::Disconnect(p) => (2, p.properties.is_empty().then_some(p.reason)),
        _ => return wire.to_vec(),
    };
    let keep = match code {
        None => wire.len(),
        Some(ReasonCode::Success) => fixed,
        Some(_) => fixed + 1,
    };
    let mut short = wire[..keep].to_vec();
    short[1] = u8::try_from(keep - 2).unwrap();
    short
}

/// [MQTT-2.1.3-1] [MQTT-4.13.1-1] [MQTT-4.8.0-1] of 3.1.1
#[test]
fn invalid_packets_are_refused() {
    let rows = rows(include_str!("vectors/invalid.json"));
    assert_eq!(rows.len(), 239);
    for row in &rows {
        assert!(row.fields.is_none(), "{}", row.name);
        short_ways_agree(&row.packet, row.version);
        let error = PacketRef::decode(&row.packet, row.version).expect_err(&row.name);
        assert_eq!(error.version(), row.version, "{}", row.name);
        assert!(error.offset() as usize <= row.packet.len(), "{}: {error}", row.name);
    }
}

/// A packet in the words of the table.
fn fields(packet: &PacketRef<'_>, version: Version) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| {
        assert!(out.insert(name.to_owned(), value).is_none(), "{name} twice");
    };
    match packet {
        PacketRef::Connect(p) => connect(p, &mut put),
        PacketRef::Connack(p) => connack(p, version, &mut put),
        PacketRef::Publish(p) => publish(p, version, &mut put),
        PacketRef::Puback(p) | PacketRef::Pubrec(p) | PacketRef::Pubrel(p) | PacketRef::Pubcomp(p) => {
            ack(p, version, &mut put);
        }
        PacketRef::Subscribe(p) => {
            put("messageId", json!(p.packet_id));
            let one = |(filter, o): (mqtt_proto::TopicFilter<'_>, mqtt_proto::SubscriptionOptions)| {
                if version.is_v5() {
                    let (nl, rap, rh) = (o.no_local, o.retain_as_published, o.retain_handling as u8);
                    json!({"topic": filter.as_str(), "qos": o.qos.as_u8(), "nl": nl, "rap": rap, "rh": rh})
                } else {
                    json!({"topic": filter.as_str(), "qos": o.qos.as_u8()})
                }
            };
            put("subscriptions", p.filters.into_iter().map(one).collect());
            put_properties(p.properties, version, &mut put);
        }
        PacketRef::Unsubscribe(p) => {
            put("messageId", json!(p.packet_id));
            put("unsubscriptions", p.filters.into_iter().map(|f| json!(f.as_str())).collect());
            put_properties(p.properties, version, &mut put);
        }
        PacketRef::Suback(p) => {
            put("messageId", json!(p.packet_id));
            put("granted", json!(p.codes));
            put_properties(p.properties, version, &mut put);
        }
        PacketRef::Unsuback(p) => {
            put("messageId", json!(p.packet_id));
            if version.is_v5() {
                put("granted", json!(p.codes));
            }
            put_properties(p.properties, version, &mut put);
        }
        PacketRef::Pingreq | PacketRef::Pingresp => {}
        PacketRef::Disconnect(p) => {
            if version.is_v5() {
                put("reasonCode", json!(p.reason.as_u8()));
            }
            put_properties(p.properties, version, &mut put);
        }
        PacketRef::Auth(p) => {
            put("reasonCode", json!(p.reason.as_u8()));
            put_properties(p.properties, version, &mut put);
        }
    }
    Value::Object(out)
}

type Put<'a> = dyn FnMut(&str, Value) + 'a;

fn binary(data: &[u8]) -> Value {
    json!({"hex": data.iter().map(|b| format!("{b:02x}")).collect::<String>()})
}

fn connect(p: &ConnectRef<'_>, put: &mut Put<'_>) {
    put("protocolId", json!(p.version.protocol_name()));
    put("protocolVersion", json!(p.version.level()));
    put("clean", json!(p.clean_start));
    put("keepalive", json!(p.keep_alive));
    put("clientId", json!(p.client_id));
    if let Some(will) = &p.will {
        let mut all = Map::new();
        all.insert("topic".to_owned(), json!(will.topic));
        all.insert("payload".to_owned(), binary(will.payload));
        all.insert("qos".to_owned(), json!(will.qos.as_u8()));
        all.insert("retain".to_owned(), json!(will.retain));
        if !will.properties.is_empty() {
            all.insert("properties".to_owned(), properties(will.properties));
        }
        put("will", Value::Object(all));
    }
    if let Some(user_name) = p.user_name {
        put("username", json!(user_name));
    }
    if let Some(password) = p.password {
        put("password", binary(password));
    }
    put_properties(p.properties, p.version, put);
}

fn connack(p: &ConnackRef<'_>, version: Version, put: &mut Put<'_>) {
    put("sessionPresent", json!(p.session_present));
    if version.is_v5() {
        put("reasonCode", json!(p.reason.as_u8()));
    } else {
        put("returnCode", json!(p.reason.to_return_code().unwrap()));
    }
    put_properties(p.properties, version, put);
}

fn publish(p: &PublishRef<'_>, version: Version, put: &mut Put<'_>) {
    put("dup", json!(p.dup));
    put("qos", json!(p.qos.as_u8()));
    put("retain", json!(p.retain));
    put("topic", json!(p.topic));
    put("payload", binary(p.payload));
    if let Some(id) = p.packet_id {
        put("messageId", json!(id));
    }
    put_properties(p.properties, version, put);
}

fn ack(p: &AckRef<'_>, version: Version, put: &mut Put<'_>) {
    put("messageId", json!(p.packet_id));
    if version.is_v5() {
        put("reasonCode", json!(p.reason.as_u8()));
    }
    put_properties(p.properties, version, put);
}

fn put_properties(list: Properties<'_>, version: Version, put: &mut Put<'_>) {
    assert!(version.is_v5() || list.is_empty());
    if !list.is_empty() {
        put("properties", properties(list));
    }
}

fn properties(list: Properties<'_>) -> Value {
    use Property as P;
    let mut out = Map::new();
    for property in list {
        let value = match property {
            P::UserProperty(name, value) => {
                let all = out.entry("userProperties").or_insert_with(|| json!({}));
                all[name] = json!(value);
                continue;
            }
            P::PayloadFormatIndicator(v)
            | P::RequestProblemInformation(v)
            | P::RequestResponseInformation(v)
            | P::RetainAvailable(v)
            | P::WildcardSubscriptionAvailable(v)
            | P::SubscriptionIdentifierAvailable(v)
            | P::SharedSubscriptionAvailable(v) => json!(v),
            P::MaximumQos(v) => json!(v.as_u8()),
            P::ServerKeepAlive(v) | P::ReceiveMaximum(v) | P::TopicAliasMaximum(v) | P::TopicAlias(v) => {
                json!(v)
            }
            P::MessageExpiryInterval(v)
            | P::SubscriptionIdentifier(v)
            | P::SessionExpiryInterval(v)
            | P::WillDelayInterval(v)
            | P::MaximumPacketSize(v) => json!(v),
            P::ContentType(v)
            | P::ResponseTopic(v)
            | P::AssignedClientIdentifier(v)
            | P::AuthenticationMethod(v)
            | P::ResponseInformation(v)
            | P::ServerReference(v)
            | P::ReasonString(v) => json!(v),
            P::CorrelationData(v) | P::AuthenticationData(v) => binary(v),
        };
        assert!(out.insert(camel_case(property.id().name()), value).is_none());
    }
    Value::Object(out)
}

/// The table's spelling: `session-expiry-interval` is `sessionExpiryInterval` there.
fn camel_case(name: &str) -> String {
    match name {
        "maximum-qos" => return "maximumQoS".to_owned(),
        "subscription-identifier-available" => return "subscriptionIdentifiersAvailable".to_owned(),
        _ => {}
    }
    let mut words = name.split('-');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        out.push_str(&word[..1].to_uppercase());
        out.push_str(&word[1..]);
    }
    out
}
