//! QoS 0, 1 and 2 through the broker machine.

use mqtt_proto::{ConnectRef, PropertiesBuf, Property, QoS, Version};
use mqtt_session::broker::BrokerConfig;
use mqtt_testkit::packets::{filter, puback, pubcomp, publish, pubrec, pubrel, subscribe};
use mqtt_testkit::{PeerId, World};

fn world() -> World {
    World::new(BrokerConfig::default())
}

fn subscriber(w: &mut World, version: Version, id: &str, topic: &str, qos: QoS) -> PeerId {
    let peer = w.client(version, id);
    w.send(peer, &subscribe(1, &filter(topic, qos)));
    assert_eq!(w.got(peer), [format!("SUBACK #1 {:02X}", qos.as_u8())]);
    peer
}

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// [MQTT-4.3.1-1] of both [MQTT-4.3.2-2] [MQTT-4.3.3-2]
#[test]
fn each_qos_is_delivered_between_all_versions() {
    for from in VERSIONS {
        for to in VERSIONS {
            let mut w = world();
            let s = subscriber(&mut w, to, "s", "a/+", QoS::ExactlyOnce);
            let p = w.client(from, "p");
            w.send(p, &publish("a/b", 0, 0, "zero"));
            assert_eq!(w.got(s), ["PUBLISH a/b q0 \"zero\""]);
            assert!(w.got(p).is_empty());

            w.send(p, &publish("a/b", 1, 7, "one"));
            assert_eq!(w.got(p), ["PUBACK #7"]);
            assert_eq!(w.got(s), ["PUBLISH a/b q1 #1 \"one\""]);
            w.send(s, &puback(1));

            w.send(p, &publish("a/b", 2, 7, "two"));
            assert_eq!(w.got(p), ["PUBREC #7"]);
            assert_eq!(w.got(s), ["PUBLISH a/b q2 #2 \"two\""]);
            w.send(p, &pubrel(7));
            assert_eq!(w.got(p), ["PUBCOMP #7"]);
            w.send(s, &pubrec(2));
            assert_eq!(w.got(s), ["PUBREL #2"]);
            w.send(s, &pubcomp(2));
            assert!(w.got(s).is_empty());
            assert_eq!(w.broker.stats().messages, 0);
        }
    }
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-12] [MQTT-4.3.3-2] of 3.1.1
#[test]
fn a_qos_2_publish_is_delivered_once_however_often_it_comes() {
    let mut w = world();
    let s = subscriber(&mut w, Version::V5, "s", "#", QoS::AtMostOnce);
    let p = w.client(Version::V311, "p");
    for _ in 0..1000 {
        w.send(p, &publish("t", 2, 1, "x"));
        assert_eq!(w.got(p), ["PUBREC #1"]);
    }
    assert_eq!(w.got(s), ["PUBLISH t q0 \"x\""]);
    w.send(p, &pubrel(1));
    assert_eq!(w.got(p), ["PUBCOMP #1"]);
    w.send(p, &publish("t", 2, 1, "y"));
    assert_eq!(w.got(s), ["PUBLISH t q0 \"y\""]);
}

/// [MQTT-4.4.0-1] of both [MQTT-3.3.1-1] of both
#[test]
fn what_is_unacknowledged_is_sent_again_in_order_on_resume() {
    for version in VERSIONS {
        let mut w = world();
        let expiry = PropertiesBuf::new().with(Property::SessionExpiryInterval(100)).unwrap();
        let properties = if version.is_v5() { expiry.as_properties() } else { Default::default() };
        let connect = ConnectRef { version, client_id: "s", properties, ..ConnectRef::default() };
        let s = w.connect(&connect);
        w.got(s);
        w.send(s, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
        w.got(s);
        let p = w.client(Version::V5, "p");
        w.send(p, &publish("t", 1, 1, "a"));
        w.send(p, &publish("t", 2, 2, "b"));
        w.send(p, &publish("t", 1, 3, "c"));
        w.send(p, &publish("t", 2, 4, "d"));
        assert_eq!(w.got(s).len(), 4);
        w.send(s, &pubrec(2));
        assert_eq!(w.got(s), ["PUBREL #2"]);
        w.cut(s);
        w.send(p, &publish("t", 1, 5, "e"));
        let s = w.connect(&connect);
        let got = w.got(s);
        let present = if version == Version::V31 { "CONNACK 00" } else { "CONNACK sp 00" };
        assert!(got[0].starts_with(present), "{got:?}");
        assert_eq!(
            got[1..],
            [
                "PUBLISH t q1 #1 dup \"a\"",
                "PUBREL #2",
                "PUBLISH t q1 #3 dup \"c\"",
                "PUBLISH t q2 #4 dup \"d\"",
                "PUBLISH t q1 #5 \"e\"",
            ]
        );
    }
}
