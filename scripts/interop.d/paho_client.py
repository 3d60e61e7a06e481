"""Eclipse Paho for Python against our broker, in MQTT 3.1, 3.1.1 and 5.0."""

import queue
import threading
import time

import paho.mqtt.client as mqtt
import wire
from harness import HOST, LIMIT, BrokerCase, main, until
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions


def properties(kind, **values):
    result = Properties(kind)
    for name, value in values.items():
        setattr(result, name, value)
    return result


class Client:
    """A connected client with its messages in a queue."""

    def __init__(self, case, version, client_id="", clean=True, expiry=None, will=None, connect=None, **more):
        self.case, self.version = case, version
        v5 = version == mqtt.MQTTv5
        kind = {} if v5 else {"clean_session": clean}
        manual, in_flight = more.pop("manual_ack", False), more.pop("in_flight", 100)
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, manual_ack=manual, **kind
        )
        self.messages, self.connected, self.ended = queue.Queue(), queue.Queue(), queue.Queue()
        self.acknowledged, self.subscribed = queue.Queue(), queue.Queue()
        self.paho.on_message = lambda c, u, m: self.messages.put(m)
        self.paho.on_connect = lambda c, u, flags, reason, props: self.connected.put((flags, reason, props))
        self.paho.on_disconnect = lambda c, u, flags, reason, props: self.ended.put(flags)
        self.paho.max_inflight_messages_set(in_flight)
        self.paho.max_queued_messages_set(0)
        self.paho.on_publish = lambda c, u, mid, reason, props: self.acknowledged.put((mid, reason))
        self.paho.on_subscribe = lambda c, u, mid, reasons, props: self.subscribed.put(reasons)
        self.paho.on_unsubscribe = lambda c, u, mid, reasons, props: self.subscribed.put(reasons)
        if will:
            self.paho.will_set(**will)
        if v5:
            props = connect or Properties(PacketTypes.CONNECT)
            if expiry is not None:
                props.SessionExpiryInterval = expiry
            more.update(clean_start=clean, properties=props)
        self.paho.connect(HOST, case.port, **more)
        self.paho.loop_start()
        case.addCleanup(self.close)
        self.flags, self.reason, self.properties = self.connected.get(timeout=LIMIT)

    def subscribe(self, topic, qos=0, **more):
        self.paho.subscribe(topic, qos, **more)
        return self.subscribed.get(timeout=LIMIT)

    def unsubscribe(self, topic):
        self.paho.unsubscribe(topic)
        return self.subscribed.get(timeout=LIMIT)

    def publish(self, topic, payload=b"", qos=0, retain=False, **more):
        info = self.paho.publish(topic, payload, qos, retain, **more)
        info.wait_for_publish(LIMIT)
        self.case.assertTrue(info.is_published())
        return self.acknowledged.get(timeout=LIMIT)[1]

    def message(self):
        return self.messages.get(timeout=LIMIT)

    def take(self, count):
        return [self.message() for _ in range(count)]

    def nothing_but(self, topic, *expected):
        """That these messages came and no others: a last one of our own proves it."""
        self.publish(topic, b"end", 2)
        got = []
        while True:
            m = self.message()
            if m.payload == b"end":
                self.case.assertEqual(got, list(expected))
                return
            got.append(m.payload)

    def drop(self):
        """Breaks the connection without a DISCONNECT, and does not come back."""
        self.paho.on_disconnect = None
        sock = self.paho.socket()
        # The thread that would connect again has to end first.
        self.paho._thread_terminate = True
        if sock:
            sock.shutdown(2)
        if self.paho._thread:
            self.paho._thread.join(LIMIT)
            self.paho._thread = None

    def leave(self):
        self.paho.disconnect()
        self.ended.get(timeout=LIMIT)
        self.paho.loop_stop()

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()


class Versions(BrokerCase):
    """What each version has. Only subclasses run."""

    version = None

    def client(self, *args, **more):
        return Client(self, self.version, *args, **more)

    def persistent(self, name, **more):
        if self.version == mqtt.MQTTv5:
            more["expiry"] = 600
        return self.client(name, clean=False, **more)

    def test_qos_matrix(self):
        topic = self.topic()
        publisher = self.client()
        for published in range(3):
            for subscribed in range(3):
                with self.subTest(published=published, subscribed=subscribed):
                    own = f"{topic}/{published}{subscribed}"
                    subscriber = self.client()
                    granted = subscriber.subscribe(own, subscribed)
                    self.assertEqual([g.value for g in granted], [subscribed])
                    for n in range(20):
                        publisher.publish(own, f"{n}", published)
                    got = subscriber.take(20)
                    self.assertEqual([m.payload for m in got], [b"%d" % n for n in range(20)])
                    self.assertEqual({m.qos for m in got}, {min(published, subscribed)})
                    self.assertEqual({(m.retain, m.dup) for m in got}, {(False, False)})

    def test_many_at_once(self):
        """Both directions at the same time, without waiting for anything."""
        topic, count = self.topic(), 500
        # Paho counts a PUBREL that comes in against what it has sent, outside its lock, so that at its limit a new message
        # may overtake those that wait: there is none.
        clients = [self.client(in_flight=0) for _ in range(2)]
        for qos in range(3):
            with self.subTest(qos=qos):
                for i, c in enumerate(clients):
                    c.subscribe(f"{topic}/{qos}/{i}", qos)
                for n in range(count):
                    for i, c in enumerate(clients):
                        c.paho.publish(f"{topic}/{qos}/{1 - i}", b"%d" % n, qos)
                for c in clients:
                    self.assertEqual([m.payload for m in c.take(count)], [b"%d" % n for n in range(count)])

    def test_retained(self):
        topic = self.topic()
        publisher = self.client()
        for payload in [b"one", b"two"]:
            publisher.publish(topic, payload, 1, retain=True)
        late = self.client()
        late.subscribe(f"{topic}/#", 1)
        m = late.message()
        self.assertEqual((m.topic, m.payload, m.qos, m.retain), (topic, b"two", 1, True))
        # Subscribing again brings it again.
        late.subscribe(f"{topic}/#", 0)
        m = late.message()
        self.assertEqual((m.payload, m.qos, m.retain), (b"two", 0, True))
        publisher.publish(topic, b"", 1, retain=True)
        m = late.message()
        self.assertEqual((m.payload, m.retain), (b"", False))
        later = self.client()
        later.subscribe(topic, 2)
        later.nothing_but(topic)

    def test_will(self):
        topic = self.topic()
        watcher = self.client()
        watcher.subscribe(topic, 2)
        for qos in range(3):
            for retain in [False, True]:
                with self.subTest(qos=qos, retain=retain):
                    victim = self.client(will={"topic": topic, "payload": b"gone", "qos": qos, "retain": retain})
                    victim.drop()
                    m = watcher.message()
                    self.assertEqual((m.payload, m.qos, m.retain), (b"gone", qos, False))
                    late = self.client()
                    late.subscribe(topic, 2)
                    late.nothing_but(topic, *([b"gone"] if retain else []))
                    self.assertEqual(watcher.message().payload, b"end")
                    late.publish(topic, b"", retain=True)
                    watcher.message()
        polite = self.client(will={"topic": topic, "payload": b"gone", "qos": 1})
        polite.leave()
        watcher.nothing_but(topic)

    def test_persistent_session(self):
        topic, name = self.topic(), f"paho-session-{self.version}"
        publisher = self.client()
        first = self.persistent(name)
        self.assertFalse(first.flags.session_present)
        first.subscribe(f"{topic}/1", 1)
        first.subscribe(f"{topic}/2", 2)
        first.leave()
        for round in range(3):
            with self.subTest(round=round):
                for n in range(100):
                    publisher.publish(f"{topic}/{n % 2 + 1}", b"%d" % n, 2)
                again = self.persistent(name)
                # 3.1 does not tell.
                self.assertEqual(again.flags.session_present, self.version != mqtt.MQTTv31)
                got = again.take(100)
                self.assertEqual(sorted(int(m.payload) for m in got), list(range(100)))
                for qos in (1, 2):
                    numbers = [int(m.payload) for m in got if m.topic == f"{topic}/{qos}"]
                    self.assertEqual(numbers, sorted(numbers))
                    self.assertEqual({m.qos for m in got if m.topic == f"{topic}/{qos}"}, {qos})
                # Torn off or left in order, the session stays.
                again.drop() if round % 2 else again.leave()
        fresh = self.client(name, clean=True)
        self.assertFalse(fresh.flags.session_present)
        fresh.leave()
        self.assertFalse(self.persistent(name).flags.session_present)

    def test_unacknowledged_is_sent_again(self):
        """What a client did not acknowledge comes again after a reconnect, marked as a duplicate."""
        topic, name = self.topic(), f"paho-again-{self.version}"
        first = self.persistent(name, manual_ack=True)
        first.subscribe(topic, 1)
        publisher = self.client()
        for n in range(5):
            publisher.publish(topic, b"%d" % n, 1)
        self.assertEqual([m.payload for m in first.take(5)], [b"%d" % n for n in range(5)])
        first.drop()
        second = self.persistent(name)
        got = second.take(5)
        self.assertEqual([m.payload for m in got], [b"%d" % n for n in range(5)])
        self.assertEqual({m.dup for m in got}, {True})
        second.leave()
        third = self.persistent(name)
        third.nothing_but(topic)

    def test_unsubscribe(self):
        topic = self.topic()
        c = self.client()
        c.subscribe([(f"{topic}/a", 1), (f"{topic}/b", 1)])
        c.unsubscribe(f"{topic}/a")
        c.publish(f"{topic}/a", b"a", 1)
        c.publish(f"{topic}/b", b"b", 1)
        self.assertEqual(c.message().payload, b"b")

    def test_keep_alive(self):
        """A client that has nothing to say pings, and is left alone."""
        c = self.client(keepalive=2)
        time.sleep(7)
        self.assertTrue(c.paho.is_connected())
        self.assertTrue(c.ended.empty())

    def test_takeover(self):
        name = f"paho-twin-{self.version}"
        first = self.client(name)
        first.paho.reconnect_delay_set(60, 60)
        second = self.client(name)
        # Paho 2.1 overlooks a reason code without properties, so only the packet shows here.
        flags = first.ended.get(timeout=LIMIT)
        self.assertEqual(flags.is_disconnect_packet_from_server, self.version == mqtt.MQTTv5)
        time.sleep(0.2)
        self.assertTrue(second.paho.is_connected())
        self.assertTrue(second.ended.empty())
        # The same with a victim that shows what it gets.
        victim = self.peer(self.port, int(self.version), f"{name}-raw")
        self.client(f"{name}-raw")
        told = [(wire.DISCONNECT, 0, b"\x8e")] if self.version == mqtt.MQTTv5 else []
        self.assertEqual(victim.rest(), told)

    def test_big_payload(self):
        topic = self.topic()
        c = self.client()
        c.subscribe(topic, 2)
        data = bytes(range(256)) * 4096
        for qos in range(3):
            c.publish(topic, data, qos)
            self.assertEqual(c.message().payload, data)


class V31(Versions):
    version = mqtt.MQTTv31

    def client(self, client_id="", *args, **more):
        # 3.1 has no empty client ids.
        V31.count = getattr(V31, "count", 0) + 1
        return Client(self, self.version, client_id or f"paho31-{V31.count}", *args, **more)


class V311(Versions):
    version = mqtt.MQTTv311


class V5(Versions):
    version = mqtt.MQTTv5

    def test_connack(self):
        c = self.client()
        self.assertTrue(c.properties.AssignedClientIdentifier)
        self.assertGreaterEqual(getattr(c.properties, "TopicAliasMaximum", 0), 1)
        named = self.client("has-a-name")
        self.assertFalse(hasattr(named.properties, "AssignedClientIdentifier"))

    def test_server_keep_alive(self):
        """Where the broker sets a keep alive of its own, it is the client's; else none is told."""
        c = self.client(keepalive=7)
        told = getattr(c.properties, "ServerKeepAlive", 7)
        self.assertEqual(told, 7)
        # No keep alive at all is the wish that a broker with a maximum does not grant.
        none = self.client(keepalive=0)
        if hasattr(none.properties, "ServerKeepAlive"):
            self.assertGreater(none.properties.ServerKeepAlive, 0)

    def test_properties_of_a_message(self):
        topic = self.topic()
        c = self.client()
        c.subscribe(topic, 1)
        pairs = [("b", "1"), ("a", "2"), ("b", "3"), ("", ""), ("ü", "🦀")]
        sent = properties(
            PacketTypes.PUBLISH,
            ResponseTopic="answers/here",
            CorrelationData=bytes(range(256)),
            ContentType="text/plain",
            PayloadFormatIndicator=1,
            MessageExpiryInterval=100,
            UserProperty=pairs,
        )
        c.publish(topic, b"x", 1, properties=sent)
        got = c.message().properties
        self.assertEqual(got.ResponseTopic, "answers/here")
        self.assertEqual(got.CorrelationData, bytes(range(256)))
        self.assertEqual(got.ContentType, "text/plain")
        self.assertEqual(got.PayloadFormatIndicator, 1)
        self.assertIn(got.MessageExpiryInterval, (99, 100))
        self.assertEqual(got.UserProperty, pairs)

    def test_request_and_response(self):
        topic = self.topic()
        server, client = self.client(), self.client()
        server.subscribe(f"{topic}/requests", 1)
        client.subscribe(f"{topic}/answers", 1)

        def serve():
            for _ in range(10):
                m = server.message()
                answer = properties(PacketTypes.PUBLISH, CorrelationData=m.properties.CorrelationData)
                server.paho.publish(m.properties.ResponseTopic, m.payload[::-1], 1, properties=answer)

        thread = threading.Thread(target=serve)
        thread.start()
        for n in range(10):
            props = properties(PacketTypes.PUBLISH, ResponseTopic=f"{topic}/answers", CorrelationData=b"%d" % n)
            client.publish(f"{topic}/requests", b"abc", 1, properties=props)
            m = client.message()
            self.assertEqual((m.payload, m.properties.CorrelationData), (b"cba", b"%d" % n))
        thread.join(LIMIT)

    def test_subscription_identifiers(self):
        topic = self.topic()
        c = self.client()
        c.publish(f"{topic}/a", b"retained", 1, retain=True)
        for filter, number in [(f"{topic}/a", 1), (f"{topic}/+", 268435455)]:
            c.subscribe(filter, 1, properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=number))
            m = c.message()
            self.assertEqual((m.payload, m.properties.SubscriptionIdentifier), (b"retained", [number]))
        c.publish(f"{topic}/a", b"live", 1)
        # One message with both numbers, or one for each subscription.
        numbers = []
        until(lambda: not c.messages.empty(), "a message")
        while len(numbers) < 2:
            m = c.message()
            self.assertEqual(m.payload, b"live")
            numbers += m.properties.SubscriptionIdentifier
        self.assertEqual(sorted(numbers), [1, 268435455])

    def test_topic_alias(self):
        """The client names a topic once and then by number; the subscriber sees the name."""
        topic = self.topic()
        c, other = self.client(), self.client()
        other.subscribe(f"{topic}/#", 1)
        alias = properties(PacketTypes.PUBLISH, TopicAlias=1)
        c.publish(f"{topic}/a", b"1", 1, properties=alias)
        c.publish("", b"2", 1, properties=alias)
        c.publish(f"{topic}/b", b"3", 1, properties=alias)
        c.publish("", b"4", 1, properties=alias)
        got = [(m.topic, m.payload) for m in other.take(4)]
        self.assertEqual(got, [(f"{topic}/a", b"1"), (f"{topic}/a", b"2"), (f"{topic}/b", b"3"), (f"{topic}/b", b"4")])

    def test_no_local_and_retain_options(self):
        topic = self.topic()
        c, other = self.client(), self.client()
        c.publish(topic, b"kept", 1, retain=True)
        c.subscribe(topic, options=SubscribeOptions(1, noLocal=True, retainAsPublished=True, retainHandling=2))
        c.publish(topic, b"own", 1)
        other.publish(topic, b"other", 1, retain=True)
        m = c.message()
        self.assertEqual((m.payload, m.retain), (b"other", True))
        # Retain handling 1: only a new subscription brings what is kept.
        fresh = self.client()
        for _ in range(2):
            fresh.subscribe(topic, options=SubscribeOptions(1, retainHandling=1))
        fresh.nothing_but(topic, b"other")

    def test_shared_subscription(self):
        topic = self.topic()
        group = [self.client() for _ in range(3)]
        for c in group:
            c.subscribe(f"$share/g/{topic}", 1)
        publisher = self.client()
        for n in range(90):
            publisher.publish(topic, b"%d" % n, 1)
        until(lambda: sum(c.messages.qsize() for c in group) >= 90, "all messages")
        numbers = [int(c.messages.get().payload) for c in group for _ in range(c.messages.qsize())]
        self.assertEqual(sorted(numbers), list(range(90)))

    def test_no_matching_subscribers(self):
        c = self.client()
        self.assertIn(c.publish(self.topic(), b"x", 1).value, (0, 0x10))

    def test_receive_maximum(self):
        """No more than so many messages are under way to a client that does not acknowledge."""
        topic = self.topic()
        props = properties(PacketTypes.CONNECT, ReceiveMaximum=3)
        slow = self.client("slow", manual_ack=True, connect=props)
        slow.subscribe(topic, 1)
        publisher = self.client()
        for n in range(10):
            publisher.publish(topic, b"%d" % n, 1)
        got = slow.take(3)
        time.sleep(0.5)
        self.assertTrue(slow.messages.empty())
        while len(got) < 10:
            slow.paho.ack(got[len(got) - 3].mid, 1)
            got.append(slow.message())
        self.assertEqual([int(m.payload) for m in got], list(range(10)))

    def test_maximum_packet_size(self):
        """What a client cannot take is left out, and the rest goes on."""
        topic = self.topic()
        small = self.client(connect=properties(PacketTypes.CONNECT, MaximumPacketSize=200))
        small.subscribe(topic, 1)
        publisher = self.client()
        for payload in [b"1", bytes(1000), b"2"]:
            publisher.publish(topic, payload, 1)
        self.assertEqual([m.payload for m in small.take(2)], [b"1", b"2"])

    def test_session_expiry(self):
        first = self.client("expires", clean=False, expiry=1)
        first.drop()
        time.sleep(2.5)
        self.assertFalse(self.client("expires", clean=False, expiry=1).flags.session_present)

    def test_will_delay(self):
        topic = self.topic()
        watcher = self.client()
        watcher.subscribe(topic, 1)
        props = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=2, ContentType="text/x")
        victim = self.client(
            "delayed", expiry=60, will={"topic": topic, "payload": b"gone", "qos": 1, "properties": props}
        )
        dropped = time.monotonic()
        victim.drop()
        m = watcher.message()
        self.assertGreater(time.monotonic() - dropped, 1.8)
        self.assertEqual((m.payload, m.properties.ContentType), (b"gone", "text/x"))

    def test_bad_filter(self):
        """A reason code or an end of the connection, never silence."""
        c = self.client()
        c.paho.reconnect_delay_set(60, 60)
        c.paho._send_subscribe(False, [(b"a/#/b", SubscribeOptions(1))])
        until(lambda: not c.ended.empty() or not c.subscribed.empty(), "an answer")


del Versions  # or unittest would run it

if __name__ == "__main__":
    main()
