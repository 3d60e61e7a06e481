"""Broken packets of every kind: each closes its own connection, and nothing else."""

import json
import os
import random
import struct

import wire
from harness import BrokerCase, main
from wire import V5, V31, V311, packet, string

VECTORS = os.path.join(os.path.dirname(__file__), "../../mqtt-proto/tests/vectors")
LEVELS = {"3.1": V31, "3.1.1": V311, "5.0": V5, "5": V5}
SERVER_ONLY = [wire.CONNACK, wire.SUBACK, wire.UNSUBACK, wire.PINGRESP]


def vectors(name):
    with open(os.path.join(VECTORS, name)) as f:
        return json.load(f)


class Hostile(BrokerCase):
    def setUp(self):
        super().setUp()
        self.bystander = self.peer(self.port, V5, "bystander")
        self.bystander.subscribe("bystander", 1)

    def others_live(self):
        """The bystander still gets its messages, and new clients come in."""
        self.assertEqual(self.bystander.ping(), [])
        guest = self.peer(self.port, V311)
        guest.send(wire.publish(V311, "bystander", b"still there", 1, 1))
        kind, flags, body = self.bystander.read()
        self.assertEqual(kind, wire.PUBLISH)
        topic, mid, payload = wire.read_publish(V5, flags, body)
        self.assertEqual(payload, b"still there")
        self.bystander.send(wire.ack(wire.PUBACK, mid))
        guest.close()

    def refused(self, name, version, data, hello=True, limit=5):
        """The broker closes the connection within `limit` seconds; before that it may only say why."""
        with self.subTest(name=name, version=version, bytes=data[:60].hex()):
            peer = self.peer(self.port, version, hello=False, limit=limit)
            try:
                if hello:
                    peer.send(wire.connect(version, "hostile"))
                    self.assertEqual(peer.read()[0], wire.CONNACK)
                try:
                    peer.send(data)
                except ConnectionError:
                    pass
                for kind, _, body in peer.rest():
                    allowed = {wire.DISCONNECT: 0} if version == V5 and hello else {}
                    if not hello:
                        allowed[wire.CONNACK] = 1
                    self.assertIn(kind, allowed, f"{body.hex()} before the end")
                    self.assertGreater(body[allowed[kind]], 0, "an end without a reason")
            except TimeoutError:
                self.fail("the connection is still open")
            finally:
                peer.close()

    def test_invalid_vectors(self):
        """Every invalid packet of the codec's vectors."""
        for vector in vectors("invalid.json"):
            data = bytes.fromhex(vector["hex"])
            hello = data[0] >> 4 != wire.CONNECT
            self.refused(vector["name"], LEVELS[vector["version"]], data, hello)
        self.others_live()

    def test_server_packets(self):
        """What only a server may send."""
        for vector in vectors("valid.json"):
            data = bytes.fromhex(vector["hex"])
            if data[0] >> 4 in SERVER_ONLY:
                self.refused(vector["name"], LEVELS[vector["version"]], data)
        self.others_live()

    def test_first_packet(self):
        """Whatever comes before CONNECT."""
        for vector in vectors("valid.json"):
            data = bytes.fromhex(vector["hex"])
            if data[0] >> 4 != wire.CONNECT:
                self.refused(vector["name"], LEVELS[vector["version"]], data, hello=False)
        for name, data in [
            ("TLS", bytes.fromhex("16030100f8010000f40303") + bytes(64)),
            ("zeroes", bytes(100)),
            ("ones", b"\xff" * 100),
            ("five byte length", b"\x10\xff\xff\xff\xff\x01"),
            ("unknown version", packet(wire.CONNECT, string("MQTT") + b"\x09\x02\x00\x3c" + string("x"))),
            ("unknown protocol", packet(wire.CONNECT, string("MQTS") + b"\x04\x02\x00\x3c" + string("x"))),
        ]:
            self.refused(name, V311, data, hello=False)
        # These look like the beginning of a longer packet, so they may take as long as a CONNECT may.
        self.refused("HTTP", V311, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", hello=False, limit=15)
        self.refused("PROXY", V311, b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", hello=False, limit=15)
        self.others_live()

    def test_refusals(self):
        """A CONNECT that is well formed and not granted is told why."""
        unknown = {
            V31: wire.connect(V31, "x").replace(b"MQIsdp\x03", b"MQIsdp\x02"),
            V311: wire.connect(V311, "x").replace(b"MQTT\x04", b"MQTT\x09"),
        }
        for name, version, data, expected in [
            ("no name and a session to keep", V311, wire.connect(V311, "", clean=False), b"\0\2"),
            ("no name", V31, wire.connect(V31, ""), b"\0\2"),
            # What is newer than 5.0 is told in the words of 5.0.
            ("unknown level", V311, unknown[V311], b"\0\x84\0"),
            ("unknown level", V31, unknown[V31], b"\0\1"),
        ]:
            with self.subTest(name=name, version=version):
                peer = self.peer(self.port, version, hello=False)
                peer.send(data)
                self.assertEqual(peer.rest(), [(wire.CONNACK, 0, expected)])
        self.others_live()

    def test_second_connect(self):
        for version in (V31, V311, V5):
            self.refused("second CONNECT", version, wire.connect(version, "hostile"))
        self.others_live()

    def test_headers(self):
        """All 256 first bytes with an empty body, as far as they are wrong."""
        good = {wire.PINGREQ << 4, wire.DISCONNECT << 4}
        for version in (V31, V311, V5):
            for first in range(256):
                if first not in good:
                    self.refused(f"first byte {first:02x}", version, bytes([first, 0]))
        self.others_live()

    def test_topics_and_filters(self):
        def filtered(version, text, options=0):
            return wire.subscribe(version, 1, (text, options))

        for version in (V31, V311, V5):
            for name, data in [
                ("wildcard + in a topic", wire.publish(version, "a/+/b")),
                ("wildcard # in a topic", wire.publish(version, "a/#")),
                ("empty topic", wire.publish(version, "")),
                ("NUL in a topic", wire.publish(version, "a\0b")),
                ("bad UTF-8 in a topic", wire.publish(version, b"a\xff")),
                ("surrogate in a topic", wire.publish(version, b"a\xed\xa0\x80")),
                ("overlong UTF-8 in a topic", wire.publish(version, b"a\xc0\x80")),
                ("QoS 3", packet(wire.PUBLISH, string("a") + b"\0\1", 6)),
                ("packet id 0", wire.publish(version, "a", qos=1, mid=0)),
                ("no filter", wire.subscribe(version, 1)),
                ("filter id 0", wire.subscribe(version, 0, ("a", 0))),
                ("empty filter", filtered(version, "")),
                ("# not last", filtered(version, "a/#/b")),
                ("# not alone", filtered(version, "a#")),
                ("+ not alone", filtered(version, "a+/b")),
                ("QoS 3 asked for", filtered(version, "a", 3)),
                ("filter with NUL", filtered(version, "a\0")),
            ]:
                self.refused(name, version, data)
        self.others_live()

    def test_version_5_only(self):
        """Properties and values that are errors in 5.0."""

        def published(props, topic="a", **more):
            return wire.publish(V5, topic, props=props, **more)

        for name, data in [
            ("alias 0", published(b"\x23\0\0")),
            ("alias above the maximum", published(b"\x23\xff\xff")),
            ("unknown alias without a topic", published(b"\x23\0\1", topic="")),
            ("two payload formats", published(b"\x01\1\x01\1")),
            ("payload format 2", published(b"\x01\2")),
            ("subscription id from a client", published(b"\x0b\1")),
            ("unknown property", published(b"\x7f\1")),
            ("property of CONNECT", published(b"\x11\0\0\0\1")),
            ("wildcard in a response topic", published(b"\x08" + string("a/#"))),
            ("length of properties too big", packet(wire.PUBLISH, string("a") + b"\x7f")),
            ("subscription id 0", wire.subscribe(V5, 1, ("a", 0), props=b"\x0b\0")),
            ("two subscription ids", wire.subscribe(V5, 1, ("a", 0), props=b"\x0b\1\x0b\2")),
            ("retain handling 3", wire.subscribe(V5, 1, ("a", 0x30))),
            ("reserved option bits", wire.subscribe(V5, 1, ("a", 0x40))),
            ("shared without a name", wire.subscribe(V5, 1, ("$share//a", 0))),
            ("shared without a filter", wire.subscribe(V5, 1, ("$share/g", 0))),
            ("shared with a wildcard name", wire.subscribe(V5, 1, ("$share/g+/a", 0))),
            ("shared and no local", wire.subscribe(V5, 1, ("$share/g/a", 4))),
            ("AUTH without a method", packet(wire.AUTH)),
            ("reason code that PUBACK has not", packet(wire.PUBACK, b"\0\1\x01\0")),
            ("session expiry after none", packet(wire.DISCONNECT, b"\0\5\x11\0\0\0\1")),
        ]:
            self.refused(name, V5, data)
        for name, props in [
            ("receive maximum 0", b"\x21\0\0"),
            ("packet size 0", b"\x27\0\0\0\0"),
            ("two receive maximums", b"\x21\0\1\x21\0\1"),
            ("request problem information 2", b"\x17\2"),
            ("data without a method", b"\x16" + string("x")),
        ]:
            self.refused(name, V5, wire.connect(V5, "hostile", props=props), hello=False)
        self.others_live()

    def test_quota(self):
        """More QoS 2 messages at once than the broker takes: DISCONNECT 0x93."""
        peer = self.peer(self.port, V5, hello=False)
        peer.send(wire.connect(V5, "eager"))
        kind, _, body = peer.read()
        self.assertEqual((kind, body[1]), (wire.CONNACK, 0))
        at, maximum = 3, 65535
        while at < len(body):  # what it tells before the receive maximum has fixed lengths
            if body[at] == 0x21:
                maximum = struct.unpack_from(">H", body, at + 1)[0]
                break
            at += {0x11: 5, 0x24: 2, 0x25: 2, 0x27: 5, 0x22: 3, 0x13: 3, 0x28: 2, 0x29: 2, 0x2A: 2}.get(body[at], 99)
        ids = min(maximum + 1, 65535)
        if maximum < 65535:
            for mid in range(1, ids + 1):
                peer.send(wire.publish(V5, "a", b"", 2, mid))
            self.assertEqual([b[0] for k, _, b in peer.rest() if k == wire.DISCONNECT], [0x93])
        peer.close()
        self.others_live()

    def test_noise(self):
        """3,000 connections with bytes at random, seeded; all of them may end as they like."""
        seed = int(os.environ.get("SEED", "1"))
        draw = random.Random(seed)
        valid = [bytes.fromhex(v["hex"]) for v in vectors("valid.json")]
        for _ in range(3000):
            version = draw.choice([V31, V311, V5])
            peer = self.peer(self.port, version, hello=False)
            data = wire.connect(version, "noise") if draw.random() < 0.8 else b""
            for _ in range(draw.randrange(1, 5)):
                p = bytearray(draw.choice(valid) if draw.random() < 0.8 else draw.randbytes(draw.randrange(1, 50)))
                for _ in range(draw.randrange(3)):
                    p[draw.randrange(len(p))] = draw.randrange(256)
                data += p
            try:
                peer.send(data)
            except ConnectionError:
                pass
            peer.close()
        self.others_live()


if __name__ == "__main__":
    main()
