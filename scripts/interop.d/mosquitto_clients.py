"""mosquitto_pub and mosquitto_sub against our broker, in MQTT 3.1, 3.1.1 and 5.0."""

import hashlib
import os
import signal
import tempfile
import time

from harness import BrokerCase, main, text, until

MARK = "MSG "


class Sub:
    """A running mosquitto_sub, of which the messages can be told from the rest of what it says."""

    def __init__(self, case, *options, fmt="%t|%q|%r|%p", ready=True, mark=True):
        # Without stdbuf it may keep what it says to itself.
        self.program = case.spawn(
            "stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", case.port, "-d", "-F", MARK + fmt, *options
        )
        if ready:
            until(lambda: b"Subscribed (mid" in self.program.out(), lambda: self.program.state())

    def messages(self):
        # What follows the last line feed is not written to its end yet.
        lines = text(self.program.out()).split("\n")[:-1]
        return [line[len(MARK) :] for line in lines if line.startswith(MARK)]

    def expect(self, case, *expected):
        """Waits for so many messages, and compares them."""
        until(lambda: len(self.messages()) >= len(expected), lambda: f"{expected}\n{self.program.state()}")
        case.assertEqual(self.messages(), list(expected))


class Versions(BrokerCase):
    """What each version of the protocol has. Only subclasses run."""

    version = None

    def sub(self, *options, **more):
        return Sub(self, "-V", self.version, *options, **more)

    def pub(self, *options, **more):
        return self.succeed(
            "mosquitto_pub", "-h", "127.0.0.1", "-p", self.port, "-V", self.version, *options, **more
        )

    def marker(self, topic):
        """A last message: what comes before it came, what did not come will not."""
        self.pub("-t", topic, "-m", "end", "-q", "2")

    def test_qos_matrix(self):
        """What is granted is the lesser of both; the payload arrives once."""
        for published in "012":
            for subscribed in "012":
                with self.subTest(published=published, subscribed=subscribed):
                    topic = self.topic(f"{published}{subscribed}")
                    sub = self.sub("-t", topic, "-q", subscribed)
                    self.pub("-t", topic, "-q", published, "-m", "payload")
                    self.pub("-t", topic, "-q", published, "-m", "payload 2")
                    qos = min(published, subscribed)
                    sub.expect(self, f"{topic}|{qos}|0|payload", f"{topic}|{qos}|0|payload 2")

    def test_order_of_many(self):
        """1,000 messages of one publisher arrive in order, none twice."""
        lines = [f"line {n}" for n in range(1000)]
        for qos in "012":
            with self.subTest(qos=qos):
                topic = self.topic(qos)
                sub = self.sub("-t", topic, "-q", qos, fmt="%p")
                self.pub("-t", topic, "-q", qos, "-l", input="\n".join(lines).encode() + b"\n")
                sub.expect(self, *lines)

    def test_empty_payload(self):
        topic = self.topic()
        sub = self.sub("-t", topic, "-q", "1", fmt="%l|%p")
        self.pub("-t", topic, "-n", "-q", "1")
        sub.expect(self, "0|")

    def test_big_payload(self):
        """1 MiB passes both ways unharmed, at each QoS."""
        data = os.urandom(1 << 20)
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            for qos in "012":
                with self.subTest(qos=qos):
                    topic = self.topic(qos)
                    sub = self.sub("-t", topic, "-q", qos, fmt="%l|%x")
                    self.pub("-t", topic, "-q", qos, "-f", file.name)
                    until(lambda: sub.messages(), lambda: "the message")
                    length, payload = sub.messages()[0].split("|")
                    self.assertEqual(int(length), len(data))
                    self.assertEqual(
                        hashlib.sha256(bytes.fromhex(payload)).digest(), hashlib.sha256(data).digest()
                    )

    def test_retained(self):
        """Set, replaced, cleared; a live subscriber sees it without the flag."""
        topic = self.topic()
        live = self.sub("-t", topic, "-q", "2")
        for qos in "012":
            self.pub("-t", topic, "-r", "-q", qos, "-m", f"value {qos}")
            self.sub("-t", topic, "-q", "2").expect(self, f"{topic}|{qos}|1|value {qos}")
        live.expect(self, *[f"{topic}|{qos}|0|value {qos}" for qos in "012"])
        self.pub("-t", topic, "-r", "-n")
        late = self.sub("-t", topic, "-q", "2")
        self.marker(topic)
        late.expect(self, f"{topic}|2|0|end")

    def test_retained_under_wildcards(self):
        topic = self.topic()
        for name in ["a", "a/b", "c"]:
            self.pub("-t", f"{topic}/{name}", "-r", "-q", "1", "-m", name)
        sub = self.sub("-t", f"{topic}/#", "-q", "1")
        until(lambda: len(sub.messages()) == 3, lambda: sub.program.state())
        self.assertEqual(sorted(sub.messages()), sorted(f"{topic}/{n}|1|1|{n}" for n in ["a", "a/b", "c"]))
        one = self.sub("-t", f"{topic}/+/b", "-q", "0")
        one.expect(self, f"{topic}/a/b|0|1|a/b")

    def test_wildcards(self):
        topic = self.topic()
        for filter, matching in [
            ("a/b", ["a/b"]),
            ("a/+", ["a/b", "a/"]),
            ("+/b", ["a/b", "/b"]),
            ("a/#", ["a", "a/b", "a/", "a/b/c"]),
            ("+/+/c", ["a/b/c"]),
            ("#", ["a", "a/b", "a/", "/b", "a/b/c"]),
        ]:
            with self.subTest(filter=filter):
                sub = self.sub("-t", f"{topic}/{filter}", "-t", f"{topic}-end", "-q", "1", fmt="%t")
                for name in ["a", "a/b", "a/", "/b", "a/b/c"]:
                    self.pub("-t", f"{topic}/{name}", "-q", "1", "-m", "x")
                self.pub("-t", f"{topic}-end", "-q", "1", "-m", "x")
                sub.expect(self, *[f"{topic}/{m}" for m in ["a", "a/b", "a/", "/b", "a/b/c"] if m in matching],
                           f"{topic}-end")

    def test_wildcards_leave_system_topics_alone(self):
        sub = self.sub("-t", "#", "-t", "+/monitor", "-q", "1", fmt="%t")
        self.pub("-t", "$other/monitor", "-m", "x")
        self.marker(self.topic())
        until(lambda: self.topic() in sub.messages(), lambda: sub.program.state())
        self.assertFalse([m for m in sub.messages() if m.startswith("$")])

    def test_several_filters_and_unsubscribe(self):
        topic = self.topic()
        sub = self.sub("-t", f"{topic}/a", "-t", f"{topic}/b", "-U", f"{topic}/b", "-q", "1", fmt="%t")
        until(lambda: b"received UNSUBACK" in sub.program.out(), lambda: sub.program.state())
        for name in "ba":
            self.pub("-t", f"{topic}/{name}", "-q", "1", "-m", "x")
        sub.expect(self, f"{topic}/a")

    def test_will_after_a_kill(self):
        """A will is published when the client dies, with its QoS and retain flag."""
        for qos in "012":
            for retain in [False, True]:
                with self.subTest(qos=qos, retain=retain):
                    topic = self.topic(f"{qos}{retain}")
                    watcher = self.sub("-t", topic, "-q", "2")
                    will = ["--will-topic", topic, "--will-payload", "gone", "--will-qos", qos]
                    victim = self.sub("-t", "unused", *will, *(["--will-retain"] if retain else []))
                    victim.program.signal(signal.SIGKILL)
                    watcher.expect(self, f"{topic}|{qos}|0|gone")
                    late = self.sub("-t", topic, "-q", "2")
                    self.marker(topic)
                    kept = [f"{topic}|{qos}|1|gone"] if retain else []
                    late.expect(self, *kept, f"{topic}|2|0|end")

    def test_no_will_after_a_disconnect(self):
        topic = self.topic()
        watcher = self.sub("-t", topic, "-q", "1")
        # It leaves by itself after one message.
        leaver = self.sub("-t", f"{topic}/leave", "-C", "1", "--will-topic", topic, "--will-payload", "gone")
        self.pub("-t", f"{topic}/leave", "-m", "now")
        self.assertEqual(leaver.program.wait().code, 0)
        self.marker(topic)
        watcher.expect(self, f"{topic}|1|0|end")

    def test_will_after_keep_alive(self):
        """A client that falls silent is taken for dead after one and a half times its keep alive."""
        topic = self.topic()
        watcher = self.sub("-t", topic, "-q", "1")
        victim = self.sub("-t", "unused", "-k", "5", "--will-topic", topic, "--will-payload", "gone", "--will-qos", "1")
        victim.program.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        watcher.expect(self, f"{topic}|1|0|gone")
        self.assertGreater(time.monotonic() - stopped, 5)
        self.assertLess(time.monotonic() - stopped, 15)

    def test_persistent_session(self):
        """Messages of QoS 1 and 2 wait for a client that left, in order; those of QoS 0 need not."""
        for qos in "12":
            with self.subTest(qos=qos):
                topic, client = self.topic(qos), f"ps-{self.version}-{qos}"
                options = ["-c", "-i", client, "-q", qos, "-t", topic]
                if self.version == "mqttv5":
                    options += ["-x", "600"]
                first = self.sub(*options)
                self.pub("-t", topic, "-q", qos, "-m", "live")
                first.expect(self, f"{topic}|{qos}|0|live")
                first.program.signal(signal.SIGTERM)
                self.assertEqual(first.program.wait().code, 0)
                for n in range(50):
                    self.pub("-t", topic, "-q", qos, "-m", f"queued {n}")
                second = self.sub(*options)
                second.expect(self, *[f"{topic}|{qos}|0|queued {n}" for n in range(50)])
                # Killed, it is missed no less.
                second.program.signal(signal.SIGKILL)
                second.program.wait()
                self.pub("-t", topic, "-q", qos, "-m", "after the kill")
                third = self.sub(*options)
                third.expect(self, f"{topic}|{qos}|0|after the kill")
                third.program.signal(signal.SIGTERM)
                third.program.wait()
                # A clean session forgets.
                fresh = self.sub("-i", client, "-q", qos, "-t", topic)
                fresh.program.signal(signal.SIGTERM)
                fresh.program.wait()
                self.pub("-t", topic, "-q", qos, "-m", "lost")
                last = self.sub(*options)
                self.marker(topic)
                last.expect(self, f"{topic}|{qos}|0|end")

    def test_takeover(self):
        """A client id is one client: the newer connection wins."""
        topic = self.topic()
        first = self.sub("-i", f"twin-{self.version}", "-t", topic)
        # It would come back and win itself: so stop it first.
        first.program.signal(signal.SIGSTOP)
        second = self.sub("-i", f"twin-{self.version}", "-t", topic)
        self.pub("-t", topic, "-m", "x")
        second.expect(self, f"{topic}|0|0|x")
        self.assertEqual(first.messages(), [])

    def test_utf8(self):
        topic = self.topic("grüße/日本語/🦀")
        sub = self.sub("-t", topic)
        self.pub("-t", topic, "-m", "größe 日本語 🦀")
        sub.expect(self, f"{topic}|0|0|größe 日本語 🦀")


class V31(Versions):
    version = "mqttv31"


class V311(Versions):
    version = "mqttv311"


class V5(Versions):
    version = "mqttv5"

    def test_shared_subscription(self):
        """Each message goes to one of the group, and to all who are not in it."""
        topic = self.topic()
        group = [self.sub("-t", f"$share/group/{topic}", "-q", "1", fmt="%p") for _ in range(3)]
        other = self.sub("-t", topic, "-q", "1", fmt="%p")
        numbers = [str(n) for n in range(90)]
        for n in numbers:
            self.pub("-t", topic, "-q", "1", "-m", n)
        other.expect(self, *numbers)
        until(lambda: sum(len(s.messages()) for s in group) >= 90, lambda: [s.messages() for s in group])
        got = [m for s in group for m in s.messages()]
        self.assertEqual(sorted(got, key=int), numbers)
        for sub in group:
            self.assertTrue(sub.messages(), "a member got nothing")

    def test_user_properties_keep_their_order(self):
        topic = self.topic()
        sub = self.sub("-t", topic, fmt="%P|%p")
        pairs = [("b", "1"), ("a", "2"), ("b", "3")]
        options = [o for k, v in pairs for o in ["-D", "publish", "user-property", k, v]]
        self.pub("-t", topic, "-m", "x", *options)
        sub.expect(self, "b:1 a:2 b:3|x")

    def test_publish_properties(self):
        topic = self.topic()
        sub = self.sub("-t", topic, fmt="%C|%D|%F|%R|%p")
        self.pub(
            "-t", topic, "-m", "x",
            "-D", "publish", "content-type", "text/plain",
            "-D", "publish", "correlation-data", "abc",
            "-D", "publish", "payload-format-indicator", "1",
            "-D", "publish", "response-topic", "answers/here",
        )  # fmt: skip
        sub.expect(self, "text/plain|abc|1|answers/here|x")

    def test_subscription_identifier(self):
        topic = self.topic()
        self.pub("-t", topic, "-r", "-m", "retained")
        sub = self.sub("-t", topic, "-D", "subscribe", "subscription-identifier", "268435455", fmt="%S|%p")
        self.pub("-t", topic, "-m", "live")
        sub.expect(self, "268435455|retained", "268435455|live")

    def test_message_expiry(self):
        """A message that waits too long is gone; the rest of its time is told."""
        topic = self.topic()
        options = ["-c", "-i", "expiry", "-x", "600", "-q", "1", "-t", topic]
        first = self.sub(*options)
        first.program.signal(signal.SIGTERM)
        first.program.wait()
        for name, seconds in [("short", 1), ("long", 100)]:
            self.pub("-t", topic, "-q", "1", "-m", name, "-D", "publish", "message-expiry-interval", seconds)
        self.pub("-t", f"{topic}/kept", "-r", "-m", "short", "-D", "publish", "message-expiry-interval", "1")
        self.pub("-t", f"{topic}/kept2", "-r", "-m", "long", "-D", "publish", "message-expiry-interval", "100")
        time.sleep(2.2)
        second = self.sub(*options, fmt="%E|%p")
        self.marker(topic)
        until(lambda: len(second.messages()) == 2, lambda: second.program.state())
        long, end = second.messages()
        self.assertIn(long, ["98|long", "97|long"])
        self.assertTrue(end.endswith("|end"))
        kept = self.sub("-t", f"{topic}/#", fmt="%E|%p")
        self.marker(topic)
        until(lambda: len(kept.messages()) == 2, lambda: kept.program.state())
        self.assertIn(kept.messages()[0], ["98|long", "97|long"])

    def test_session_expiry(self):
        topic = self.topic()
        options = ["-c", "-i", "session-expiry", "-q", "1", "-t", topic]
        first = self.sub(*options, "-x", "1")
        first.program.signal(signal.SIGTERM)
        first.program.wait()
        time.sleep(2.2)
        self.pub("-t", topic, "-q", "1", "-m", "lost")
        second = self.sub(*options)
        self.marker(topic)
        second.expect(self, f"{topic}|1|0|end")

    def test_retain_as_published(self):
        topic = self.topic()
        self.pub("-t", topic, "-r", "-m", "old")
        kept = self.sub("-t", topic, "--retain-as-published")
        self.pub("-t", topic, "-r", "-m", "new")
        kept.expect(self, f"{topic}|0|1|old", f"{topic}|0|1|new")

    def test_disconnect_with_will(self):
        """mosquitto_sub asks for its will when a signal ends it: DISCONNECT with reason code 0x04."""
        topic = self.topic()
        watcher = self.sub("-t", topic, "-q", "1")
        leaver = self.sub("-t", "unused", "--will-topic", topic, "--will-payload", "gone")
        leaver.program.signal(signal.SIGTERM)
        self.assertEqual(leaver.program.wait().code, 0)
        watcher.expect(self, f"{topic}|0|0|gone")

    def test_will_delay(self):
        """A delayed will waits, and is cancelled by a client that comes back."""
        topic = self.topic()
        watcher = self.sub("-t", topic, "-q", "1")
        will = ["-c", "-x", "60", "--will-topic", topic, "--will-payload", "gone",
                "-D", "will", "will-delay-interval", "2"]  # fmt: skip
        victim = self.sub("-i", "delay-a", "-t", "unused", *will)
        back = self.sub("-i", "delay-b", "-t", "unused", *will)
        killed = time.monotonic()
        for sub in [victim, back]:
            sub.program.signal(signal.SIGKILL)
        self.sub("-i", "delay-b", "-t", "unused", "-c", "-x", "60")
        watcher.expect(self, f"{topic}|0|0|gone")
        self.assertGreater(time.monotonic() - killed, 1.8)
        time.sleep(1)
        watcher.expect(self, f"{topic}|0|0|gone")

    def test_will_properties(self):
        topic = self.topic()
        watcher = self.sub("-t", topic, fmt="%C|%P|%p")
        victim = self.sub(
            "-t", "unused", "--will-topic", topic, "--will-payload", "gone",
            "-D", "will", "content-type", "text/x", "-D", "will", "user-property", "k", "v",
        )  # fmt: skip
        victim.program.signal(signal.SIGKILL)
        watcher.expect(self, "text/x|k:v|gone")

    def test_versions_meet(self):
        """A message passes between all versions; properties stay where they are understood."""
        versions = ["mqttv31", "mqttv311", "mqttv5"]
        topic = self.topic()
        subs = [Sub(self, "-V", v, "-t", topic, "-q", "2", fmt="%q|%p") for v in versions]
        for v in versions:
            self.succeed(
                "mosquitto_pub", "-h", "127.0.0.1", "-p", self.port, "-V", v, "-t", topic, "-q", "2", "-m", v,
                *(["-D", "publish", "user-property", "k", "v"] if v == "mqttv5" else []),
            )  # fmt: skip
        for sub in subs:
            sub.expect(self, *[f"2|{v}" for v in versions])


del Versions  # or unittest would run it

if __name__ == "__main__":
    main()
