"""What a hostile peer can do to a running broker, a test for each kind. After each, a healthy client is
served, and memory is back near where it was."""

import os
import random
import resource
import socket
import struct
import threading
import time

import wire
from harness import HOST, BrokerCase, OurBroker, main, text, until
from wire import V5, V31, V311, packet, string

SOCKETS = int(os.environ.get("SOCKETS", "10000"))
# What an allocator may keep, and what a debug build's own tables take.
SLACK = 48 << 20


def resident(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def user_property(name, value):
    return b"\x26" + string(name) + string(value)


class Abuse(BrokerCase):
    OPTIONS = ["--set", "timeouts.connect=4s", "--set", "limits.max_unauthenticated_bytes=8MiB"]

    @classmethod
    def make_broker(cls):
        # The broker takes as many descriptors as it may, and so must this.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = SOCKETS + 512
        if hard < wanted:
            raise AssertionError(f"{wanted} file descriptors are needed and {hard} allowed: ulimit -Hn, or SOCKETS=n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        return OurBroker(options=cls.OPTIONS)

    def setUp(self):
        super().setUp()
        self.healthy()
        self.before = resident(self.broker.pid)
        self.bystander = self.peer(self.port, V5, "bystander")
        self.bystander.subscribe("bystander", 1)

    def tearDown(self):
        """The bystander was not disturbed, new clients are served, and memory is back."""
        self.assertEqual(self.bystander.ping(), [])
        self.bystander.close()
        self.healthy()
        until(
            lambda: resident(self.broker.pid) < self.before + SLACK,
            lambda: f"{self.before >> 20} MiB before, {resident(self.broker.pid) >> 20} MiB after",
        )

    def healthy(self):
        peer = self.peer(self.port, V5, "healthy")
        peer.subscribe("healthy", 2)
        peer.send(wire.publish(V5, "healthy", b"x", 1, 7))
        kinds = {peer.read()[0], peer.read()[0]}
        self.assertEqual(kinds, {wire.PUBLISH, wire.PUBACK})
        peer.close()

    def ends_with(self, peer, kind, reason):
        """The last packet before the end, with its reason code."""
        got = peer.rest()
        self.assertTrue(got, "it was closed without a word")
        last, _, body = got[-1]
        self.assertEqual((last, body[1 if kind == wire.CONNACK else 0]), (kind, reason))

    # ---- 1: before CONNECT ----

    def test_promises_on_very_many_sockets(self):
        """The largest length there is, some bytes, and silence: nothing is set aside for it, the sum of
        what came is bounded, and all are sent away when their time is over."""
        peers = []
        for n in range(SOCKETS):
            s = socket.create_connection((HOST, self.port), 20)
            s.sendall(b"\x10\xff\xff\xff\x7f" if n % 100 else b"\x10\xff\x7f" + bytes(15_000))
            peers.append(s)
        self.assertLess(resident(self.broker.pid), self.before + SOCKETS * 4096 + (32 << 20))
        self.healthy()
        for s in peers:
            s.settimeout(20)
            try:
                while s.recv(4096):
                    pass
            except ConnectionError:
                pass
            s.close()

    def test_a_byte_now_and_then(self):
        """500 clients that send a CONNECT byte by byte do not outlast their time."""
        peers = [socket.create_connection((HOST, self.port), 20) for _ in range(500)]
        data = wire.connect(V311, "slow" * 20)
        started = time.monotonic()
        for byte in data:
            ended = [s for s in peers if not self.dribble(s, byte)]
            for s in ended:
                s.close()
                peers.remove(s)
            if not peers:
                break
            time.sleep(0.1)
        self.assertEqual(peers, [])
        self.assertLess(time.monotonic() - started, 15)

    @staticmethod
    def dribble(s, byte):
        try:
            s.sendall(bytes([byte]))
            s.setblocking(False)
            try:
                return s.recv(1) != b""
            except BlockingIOError:
                return True
            finally:
                s.settimeout(20)
        except ConnectionError:
            return False

    # ---- 2: CONNECT ----

    def test_odd_connects(self):
        """What is legal is taken, however odd; what is not is told why."""
        for version in (V31, V311, V5):
            for client in ["+#/", " ", "$SYS", "\ufeff", "x" * 23]:
                peer = self.peer(self.port, version, client)
                peer.ping()
                peer.close()
        longest = "x" * 65_000
        for version in (V311, V5):
            peer = self.peer(self.port, version, longest)
            peer.ping()
            peer.close()
        # It is longer than a client may write that is not known yet; by its header, before it is read.
        peer = self.peer(self.port, V5, hello=False)
        try:
            peer.send(wire.connect(V5, "much", props=user_property("a", "b" * 50) * 2000))
        except ConnectionError:
            pass
        self.assertNotIn(0, [body[1] for _, _, body in peer.rest()])
        # 1,000 properties fit, and are nobody's business.
        peer = self.peer(self.port, V5, "some", props=user_property("name", "value") * 1000)
        peer.ping()
        for name, will in [
            ("wildcard", ("a/#", "x", 0, False)),
            ("empty", ("", "x", 0, False)),
            ("QoS 3", ("a", "x", 3, False)),
        ]:
            with self.subTest(name=name):
                peer = self.peer(self.port, V5, hello=False)
                peer.send(wire.connect(V5, "will", will=will))
                got = peer.rest()
                self.assertEqual([kind for kind, _, _ in got], [wire.CONNACK])
                self.assertGreaterEqual(got[0][2][1], 0x80)

    # ---- 3: topics ----

    def test_long_and_deep_topics(self):
        """65,535 bytes, 30,000 levels: taken or refused by rule, and no stack overflows when they go."""
        for topic, code in [("x" * 65_535, None), ("/" * 30_000, 0x90)]:
            with self.subTest(topic=topic[:3], length=len(topic)):
                for retain in (False, True):
                    peer = self.peer(self.port, V5, "topics")
                    peer.send(wire.publish(V5, topic, b"x", 1, 1, retain=retain))
                    kind, _, body = peer.read()
                    if code is None:
                        self.assertEqual((kind, body[2:3] in (b"", b"\x00", b"\x10")), (wire.PUBACK, True))
                    else:
                        self.assertEqual((kind, body[2 if kind == wire.PUBACK else 0]), (kind, code))
                    peer.close()
                peer = self.peer(self.port, V5, "topics")
                peer.send(wire.subscribe(V5, 1, (topic, 0)))
                while True:
                    kind, _, body = peer.read()
                    if kind in (wire.SUBACK, wire.DISCONNECT):
                        break
                peer.close()
        # The deepest that is allowed, wide and deep, subscribed, retained, and all taken back.
        peer = self.peer(self.port, V5, "deep")
        deep = "/".join("a" * 200)
        peer.subscribe(deep, 0)
        peer.subscribe("/".join("+" * 200), 0)
        peer.send(wire.publish(V5, deep, b"x", 1, 1, retain=True))
        self.assertIn(wire.PUBACK, [peer.read()[0], peer.read()[0]])
        peer.send(wire.publish(V5, deep, b"", 1, 2, retain=True))
        peer.close()
        peer = self.peer(self.port, V5, "clean")
        peer.send(wire.publish(V5, "x" * 65_535, b"", 1, 1, retain=True))
        self.assertEqual(peer.read()[0], wire.PUBACK)

    def test_a_million_distinct_topics(self):
        """Topics that nobody subscribed to leave nothing behind."""
        peer = self.peer(self.port, V311, "million", limit=120)
        for block in range(100):
            peer.send(b"".join(wire.publish(V311, f"t/{block}/{n}/x") for n in range(10_000)))
        peer.ping()

    def test_ten_thousand_overlapping_filters(self):
        """They all match; one message comes, once."""
        peer = self.peer(self.port, V5, "overlap", limit=60)
        filters = ["/".join("+" if n >> bit & 1 else "a" for bit in range(14)) for n in range(10_000)]
        for start in range(0, len(filters), 1000):
            peer.send(wire.subscribe(V5, 1, *((f, 1) for f in filters[start : start + 1000])))
            self.assertEqual(peer.read()[0], wire.SUBACK)
        peer.send(wire.publish(V5, "/".join("a" * 14), b"x"))
        self.assertEqual(peer.read()[0], wire.PUBLISH)
        self.assertEqual(peer.ping(), [])

    def test_very_many_filters_in_one_packet(self):
        peer = self.peer(self.port, V5, "many", limit=60)
        peer.send(wire.subscribe(V5, 1, *((f"f/{n}", 0) for n in range(65_535))))
        kind, _, body = peer.read()
        self.assertEqual((kind, len(body)), (wire.SUBACK, 2 + 1 + 65_535))

    def test_very_many_filters_and_none_of_them(self):
        """All are given back in another order, before anybody looked for retained messages."""
        for name, topic, count in [("plain", "f/{}", 30_000), ("shared", "$share/g{}/f", 20_000)]:
            with self.subTest(name):
                peer = self.peer(self.port, V5, name, limit=60)
                filters = [topic.format(n * 7 % count) for n in range(count)]
                subscribe = wire.subscribe(V5, 1, *((f, 0) for f in sorted(filters)))
                peer.send(subscribe + packet(wire.UNSUBSCRIBE, b"\0\2\0" + b"".join(map(string, filters)), 2))
                # SUBACK waits for all shards.
                answers = {kind: (set(body[3:]), len(body)) for kind, _, body in (peer.read(), peer.read())}
                self.assertEqual(answers, dict.fromkeys((wire.SUBACK, wire.UNSUBACK), ({0}, 2 + 1 + count)))
                peer.close()

    def test_subscribing_and_unsubscribing_again_and_again(self):
        peer = self.peer(self.port, V311, "again", limit=60)
        unsubscribe = packet(wire.UNSUBSCRIBE, b"\0\2" + string("again/+"), 2)
        both = wire.subscribe(V311, 1, ("again/+", 0)) + unsubscribe
        left = 100_000

        def write():
            for _ in range(left // 100):
                peer.send(both * 100)

        writer = threading.Thread(target=write)
        writer.start()
        answers = [0, 0]
        while sum(answers) < 2 * left:
            kind = peer.read()[0]
            answers[kind == wire.UNSUBACK] += 1
        writer.join()
        self.assertEqual(answers, [left, left])

    def test_reserved_topics(self):
        """What begins with $ is no message of a client for `#`, and nobody can fill the broker's own."""
        peer = self.peer(self.port, V5, "dollar")
        peer.subscribe("#", 0)
        peer.send(wire.publish(V5, "$x/y", b"x") + wire.publish(V5, "/", b"y"))
        kind, flags, body = peer.read()
        self.assertEqual((kind, wire.read_publish(V5, flags, body)[0]), (wire.PUBLISH, "/"))
        self.assertEqual(peer.ping(), [])

    # ---- 5: exchanges ----

    def test_wrong_acknowledgements(self):
        """Acknowledgements of nothing, of the wrong kind, twice, out of order: the link stays up."""
        peer = self.peer(self.port, V5, "acks")
        for kind, answer in [
            (wire.PUBACK, None),
            (wire.PUBREC, wire.PUBREL),
            (wire.PUBREL, wire.PUBCOMP),
            (wire.PUBCOMP, None),
        ]:
            for mid in (1, 2, 65_535):
                peer.send(wire.ack(kind, mid))
                got = peer.ping()
                self.assertEqual([k for k, _, _ in got], [answer] if answer else [], f"{kind} {mid}")
                for _, _, body in got:
                    self.assertEqual(body[2], 0x92)
        # A PUBACK for a QoS 2 message, then what is right.
        peer.subscribe("acks", 2)
        for payload in (b"1", b"2"):
            peer.send(wire.publish(V5, "acks", payload, 2, 9) + wire.ack(wire.PUBREL, 9))
        ids = []
        while len(ids) < 2:
            kind, flags, body = peer.read()
            if kind == wire.PUBLISH:
                ids.append(wire.read_publish(V5, flags, body)[1])
        peer.send(wire.ack(wire.PUBACK, ids[0]))
        try:
            for mid in reversed(ids):
                peer.send(wire.ack(wire.PUBREC, mid))
            peer.ping()
        except (EOFError, ConnectionError):
            pass

    def test_the_same_message_a_thousand_times(self):
        """A QoS 2 message that is sent again and again is answered each time, and delivered once."""
        s = self.peer(self.port, V5, "once")
        s.subscribe("once", 1)
        peer = self.peer(self.port, V311, "again")
        peer.send(wire.publish(V311, "once", b"x", 2, 1))
        for _ in range(1000):
            peer.send(wire.publish(V311, "once", b"x", 2, 1, dup=True))
        self.assertEqual([k for k, _, _ in peer.ping()], [wire.PUBREC] * 1001)
        self.assertEqual([k for k, _, _ in s.ping()], [wire.PUBLISH])

    def test_who_never_acknowledges(self):
        """What waits for one client is bounded, and comes when it acknowledges after all."""
        lazy = self.peer(self.port, V5, "lazy", props=b"\x21\0\1")
        lazy.subscribe("lazy", 1)
        peer = self.peer(self.port, V5, "busy", limit=60)
        for start in range(0, 20_000, 500):
            peer.send(b"".join(wire.publish(V5, "lazy", bytes(100), 1, n % 65_535 + 1) for n in range(start, start + 500)))
            for _ in range(500):
                self.assertEqual(peer.read()[0], wire.PUBACK)
        self.assertEqual([k for k, _, _ in lazy.ping()], [wire.PUBLISH])
        lazy.send(wire.ack(wire.PUBACK, 1))
        self.assertEqual(lazy.read()[0], wire.PUBLISH)

    # ---- 6: wills ----

    def test_a_storm_of_wills(self):
        """1,000 clients are gone at once: each will comes once, those taken back do not."""
        s = self.peer(self.port, V5, "heir", limit=60)
        s.subscribe("will/#", 0)
        peers = [self.peer(self.port, V311, f"w{n}", will=(f"will/{n}", "gone", 0, False)) for n in range(1000)]
        for n, peer in enumerate(peers):
            if n % 10 == 0:
                peer.send(packet(wire.DISCONNECT))
                self.assertEqual(peer.rest(), [])
            else:
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        topics = [wire.read_publish(V5, *s.read()[1:])[0] for _ in range(900)]
        self.assertEqual(sorted(topics), sorted(f"will/{n}" for n in range(1000) if n % 10))
        self.assertEqual(s.ping(), [])

    # ---- 8: exhaustion ----

    def test_two_clients_that_push_each_other_out(self):
        """The same identifier from two sides, 500 times: each loser is told 0x8E, one is left."""
        last = self.peer(self.port, V5, "pingpong")
        for _ in range(500):
            new = self.peer(self.port, V5, "pingpong")
            self.ends_with(last, wire.DISCONNECT, 0x8E)
            last.close()
            last = new
        last.ping()

    def test_connecting_and_going(self):
        """3,000 connections that come and go at once, with and without a CONNECT."""
        for n in range(3000):
            s = socket.create_connection((HOST, self.port), 20)
            if n % 3:
                s.sendall(wire.connect(V311, f"flap{n % 50}"))
            if n % 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()

    def test_retained_messages_for_many_at_once(self):
        """20,000 retained messages wanted by 50 clients of which half never read."""
        p = self.peer(self.port, V5, "keeper", limit=60)
        for n in range(20_000):
            p.send(wire.publish(V5, f"kept/{n}", b"x" * 50, retain=True))
        p.ping()
        peers = [self.peer(self.port, V311, f"r{n}", limit=60) for n in range(50)]
        for peer in peers:
            peer.send(wire.subscribe(V311, 1, ("kept/#", 0)))
        for peer in peers[::2]:
            count = sum(kind == wire.PUBLISH for kind, _, _ in peer.ping())
            while count < 20_000:
                count += peer.read()[0] == wire.PUBLISH
        self.healthy()
        for peer in peers:
            peer.close()
        for n in range(20_000):
            p.send(wire.publish(V5, f"kept/{n}", b"", retain=True))
        p.ping()

    # ---- 12: many at one session ----

    def test_everybody_at_one_session(self):
        """Connections that take over, subscribe, publish and vanish, all for the same few sessions."""
        stop = time.monotonic() + 8
        failures = []

        def abuse(number):
            draw = random.Random(number)
            while time.monotonic() < stop:
                version = draw.choice([V31, V311, V5])
                try:
                    peer = wire.Peer(self.port, version, f"race{draw.randrange(3)}", clean=draw.random() < 0.3)
                except (AssertionError, EOFError, OSError):
                    continue  # pushed out by another before it was in
                try:
                    for _ in range(draw.randrange(20)):
                        topic = f"race/{draw.randrange(4)}"
                        peer.send(
                            draw.choice(
                                [
                                    wire.subscribe(version, 1, (topic, draw.randrange(3)), ("race/#", 1)),
                                    packet(wire.UNSUBSCRIBE, b"\0\2" + wire.properties(version) + string(topic), 2),
                                    wire.publish(version, topic, b"x", draw.randrange(3), draw.randrange(1, 5)),
                                    wire.publish(version, topic, b"x", 1, 6, retain=True),
                                    wire.ack(draw.choice([wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP]), draw.randrange(1, 9)),
                                    packet(wire.PINGREQ),
                                ]
                            )
                        )
                except OSError:
                    pass
                except Exception as e:
                    failures.append(repr(e))
                peer.close()

        threads = [threading.Thread(target=abuse, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        # The sessions are discarded, and nothing of them is left.
        for n in range(3):
            peer = self.peer(self.port, V311, f"race{n}")
            peer.send(packet(wire.DISCONNECT))
            peer.rest()
        peer = self.peer(self.port, V311, "sweep")
        for n in range(4):
            peer.send(wire.publish(V311, f"race/{n}", b"", retain=True))
        peer.ping()
        self.assertNotIn("panicked", text(self.broker.err()))


if __name__ == "__main__":
    main()
