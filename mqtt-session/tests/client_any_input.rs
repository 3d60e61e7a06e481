//! Whatever arrives, in whatever pieces: no panic, equal outputs, bounds kept.

mod peer;

use mqtt_proto::*;
use mqtt_session::client::*;
use mqtt_session::{Durability, Timestamp};
use peer::*;
use proptest::prelude::*;
use std::time::Duration;

/// A packet that a server might send, honest or not.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let id = 1u16..6;
    let encode = |packet: PacketRef<'_>| {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        bytes
    };
    let len = prop_oneof![9 => 0usize..40, 1 => 1020usize..1030];
    let publish = (0u8..3, id.clone(), any::<bool>(), 0u16..4, len, any::<bool>());
    prop_oneof![
        6 => publish.prop_map(move |(qos, id, dup, alias, len, typed)| {
            let qos = QoS::from_u8(qos).unwrap();
            let alias_of = (alias > 0).then_some(Property::TopicAlias(alias));
            let kind = typed.then_some(Property::ContentType("text"));
            let list = props(&alias_of.into_iter().chain(kind).collect::<Vec<_>>());
            let payload = vec![b'x'; len];
            encode(PacketRef::Publish(PublishRef {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                packet_id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce),
                topic: if alias > 0 && dup { "" } else { "t/o" },
                properties: list.as_properties(),
                payload: &payload,
                ..PublishRef::default()
            }))
        }),
        6 => (0u8..4, id.clone(), any::<bool>()).prop_map(move |(kind, id, refuse)| {
            let a = ack_with(id, if refuse && kind < 2 { ReasonCode::QuotaExceeded } else { ReasonCode::Success });
            encode(match kind {
                0 => PacketRef::Puback(a),
                1 => PacketRef::Pubrec(a),
                2 => PacketRef::Pubrel(a),
                _ => PacketRef::Pubcomp(a),
            })
        }),
        2 => (id, prop::collection::vec(0u8..3, 1..3)).prop_map(move |(id, codes)| {
            let (packet_id, properties) = (PacketId::new(id).unwrap(), Properties::EMPTY);
            encode(PacketRef::Suback(SubackRef { packet_id, properties, codes: &codes }))
        }),
        1 => Just(vec![0xD0, 0]),
        1 => any::<bool>().prop_map(move |session_present| {
            encode(PacketRef::Connack(ConnackRef { session_present, ..ConnackRef::default() }))
        }),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn config() -> ClientConfig {
    ClientConfig {
        receive_maximum: 4,
        max_in_flight: 3,
        max_in_flight_3x: 3,
        adopt_session: true,
        ..ClientConfig::new("c")
    }
}

/// Everything that can be seen from outside, `Flush` left out: when to flush may differ.
fn watch(client: &mut Client, now: Timestamp, seen: &mut Vec<Output>) -> Vec<u8> {
    while let Some(output) = client.poll_output() {
        if output != Output::Flush {
            seen.push(output);
        }
    }
    let mut outbox = client.outbox(now, usize::MAX);
    let mut slices = [&[][..]; 64];
    let n = outbox.fill_slices(&mut slices);
    let bytes = slices[..n].concat();
    outbox.consume(bytes.len());
    bytes
}

fn busy(config: ClientConfig, now: Timestamp) -> Client {
    let mut client = Client::new(config, now).unwrap();
    client.connect(now);
    client.handle_link_up(now);
    client.handle_read(now, &[0x20, 3, 0, 0, 0]);
    for n in 0..6u8 {
        let qos = QoS::from_u8(n % 3).unwrap();
        client.publish(now, message("p/q", &n.to_string(), qos)).unwrap();
    }
    client.subscribe(now, &[("s", QoS::AtMostOnce.into())], &PropertiesBuf::new()).unwrap();
    watch(&mut client, now, &mut Vec::new());
    client
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_the_input_gives_the_same_outputs(
        packets in prop::collection::vec(packet(), 1..20),
        cuts in prop::collection::vec(1usize..9, 1..40),
    ) {
        let now = Timestamp::from_micros(5);
        let input = packets.concat();
        let (mut whole, mut split) = (busy(config(), now), busy(config(), now));
        whole.handle_read(now, &input);
        let mut rest = &input[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            split.handle_read(now, head);
            rest = tail;
        }
        let (mut seen_whole, mut seen_split) = (Vec::new(), Vec::new());
        let sent_whole = watch(&mut whole, now, &mut seen_whole);
        let sent_split = watch(&mut split, now, &mut seen_split);
        prop_assert_eq!(sent_whole, sent_split);
        prop_assert_eq!(seen_whole, seen_split);
        prop_assert_eq!(whole.poll_timeout(), split.poll_timeout());
    }

    #[test]
    fn equal_inputs_give_equal_outputs_and_bounds_hold(steps in steps()) {
        let (first, second) = (run(&steps, Take::Outputs), run(&steps, Take::Outputs));
        prop_assert_eq!(&first, &second);
        // Messages are the same where they lie.
        prop_assert_eq!(&first, &run(&steps, Take::InPlace));
        prop_assert_eq!(&first, &run(&steps, Take::Whole));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        input in prop::collection::vec(any::<u8>(), 0..300),
        online in any::<bool>(),
        version in prop::sample::select(vec![Version::V31, Version::V311, Version::V5]),
    ) {
        let now = Timestamp::from_micros(5);
        let mut client = Client::new(ClientConfig { version, ..config() }, now).unwrap();
        client.connect(now);
        client.handle_link_up(now);
        if online {
            client.handle_read(now, if version.is_v5() { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] });
        }
        client.handle_read(now, &input);
        watch(&mut client, now, &mut Vec::new());
    }
}

#[derive(Clone, Debug)]
enum StepOf {
    Read(Vec<u8>),
    Publish(u8),
    Subscribe,
    Ack,
    Wait(u32),
    Cut,
    Take(usize),
    Stored,
    StoreFailed,
}

fn steps() -> impl Strategy<Value = (bool, bool, Vec<StepOf>)> {
    let step = prop_oneof![
        6 => packet().prop_map(StepOf::Read),
        4 => (0u8..3).prop_map(StepOf::Publish),
        1 => Just(StepOf::Subscribe),
        2 => Just(StepOf::Ack),
        2 => (0u32..40_000).prop_map(StepOf::Wait),
        1 => Just(StepOf::Cut),
        3 => (0usize..60).prop_map(StepOf::Take),
        2 => Just(StepOf::Stored),
        1 => Just(StepOf::StoreFailed),
    ];
    (any::<bool>(), any::<bool>(), prop::collection::vec(step, 1..80))
}

/// How messages are taken.
#[derive(Clone, Copy, PartialEq)]
enum Take {
    Outputs,
    InPlace,
    /// As bundles, where there are some.
    Whole,
}

/// Carries the steps out, checks what must always hold, and returns all that was to be seen.
fn run((manual, store, steps): &(bool, bool, Vec<StepOf>), take: Take) -> (Vec<u8>, Vec<String>) {
    let ack_mode = if *manual { AckMode::Manual } else { AckMode::Auto };
    let durability = if *store { Durability::Synced } else { Durability::Off };
    let config = ClientConfig { ack_mode, durability, max_queued_messages: 8, max_requests: 3, ..config() };
    let mut now = Timestamp::from_micros(5);
    let mut client = Client::new(config, now).unwrap();
    client.connect(now);
    let (mut sent, mut seen, mut deliveries) = (Vec::new(), Vec::new(), Vec::new());
    let mut tokens = std::collections::BTreeSet::new();
    let mut emitted = mqtt_session::StoreSeq(0);
    let mut dials = 0;
    for step in steps {
        match step {
            StepOf::Read(bytes) => client.handle_read(now, bytes),
            StepOf::Publish(qos) => {
                let qos = QoS::from_u8(*qos).unwrap();
                if let Ok(token) = client.publish(now, message("t/o", "p", qos)) {
                    tokens.insert(token);
                }
            }
            StepOf::Subscribe => {
                let filter = [("s", QoS::AtMostOnce.into())];
                if let Ok(token) = client.subscribe(now, &filter, &PropertiesBuf::new()) {
                    tokens.insert(token);
                }
            }
            StepOf::Ack => {
                if let Some(delivery) = deliveries.pop() {
                    let _ = client.ack(now, delivery, ReasonCode::Success);
                }
            }
            StepOf::Wait(millis) => {
                now = now + Duration::from_millis((*millis).into());
                client.handle_timeout(now);
                assert!(client.poll_timeout().is_none_or(|at| at > now), "everything due was done");
            }
            StepOf::Cut => client.handle_link_down(now, LinkDown::Failed),
            StepOf::Take(n) => {
                let mut outbox = client.outbox(now, 100);
                let mut slices = [&[][..]; 4];
                let filled = outbox.fill_slices(&mut slices);
                let mut bytes = slices[..filled].concat();
                bytes.truncate(*n);
                outbox.consume(bytes.len());
                sent.extend_from_slice(&bytes);
            }
            StepOf::Stored => client.handle_stored(now, emitted),
            StepOf::StoreFailed => client.handle_store_failed(now),
        }
        loop {
            let mut bundle = Bundle::default();
            if take == Take::Whole && client.swap_messages(&mut bundle) {
                assert!(!bundle.is_empty() && client.messages().is_none());
            }
            while let Some(received) = bundle.pop() {
                let mut received = Received::from(received);
                deliveries.extend(received.delivery.take());
                seen.push(format!("{received:?}"));
            }
            while take == Take::InPlace
                && let Some(received) = client.poll_message()
            {
                let mut received = Received::from(received);
                deliveries.extend(received.delivery.take());
                seen.push(format!("{received:?}"));
            }
            let Some(output) = client.poll_output() else { break };
            match output {
                Output::Dial { .. } => {
                    dials += 1;
                    client.handle_link_up(now);
                    client.handle_read(now, &[0x20, 3, u8::from(dials % 2 == 0), 0, 0]);
                }
                Output::HangUp => client.handle_link_down(now, LinkDown::Closed),
                Output::Store(seq, group) => {
                    emitted = emitted.max(seq);
                    seen.push(format!("{seq:?} {group:?}"));
                }
                Output::Event(Event::Message(mut received)) => {
                    deliveries.extend(received.delivery.take());
                    seen.push(format!("{received:?}"));
                }
                Output::Event(Event::Done { token, outcome }) => {
                    assert!(tokens.remove(&token), "done once: {token:?}");
                    seen.push(format!("{token:?} {outcome:?}"));
                }
                other => seen.push(format!("{other:?}")),
            }
        }
        assert!(client.queued() <= 8 + 3 && client.in_flight() <= 3);
    }
    (sent, seen)
}
