"""`mqtt pub` and `mqtt sub` against mosquitto's broker and our own, beside mosquitto's clients.

Who knows those should be at home in ours: the same options, output and exit codes.
"""

import itertools
import json
import os
import re
import signal
import tempfile

import wire
from harness import HOST, LIMIT, MQTT, BrokerCase, Mosquitto, TestCase, free_port, main, until
from relay import Relay

THEIRS, OURS = "theirs", "ours"
PROGRAMS = {
    ("pub", OURS): [MQTT, "pub"],
    ("sub", OURS): [MQTT, "sub"],
    ("pub", THEIRS): ["mosquitto_pub"],
    ("sub", THEIRS): ["mosquitto_sub"],
}
LEVELS = {"mqttv31": wire.V31, "mqttv311": wire.V311, "mqttv5": wire.V5}
VERSIONS = list(LEVELS)
TIMEOUT_CODE = 27


def pairs(test):
    """Runs a test with every version and each of our programs beside each of theirs."""

    def run(self):
        for version, (publisher, subscriber) in itertools.product(
            VERSIONS, [(OURS, THEIRS), (THEIRS, OURS), (OURS, OURS)]
        ):
            with self.subTest(version=version, publisher=publisher, subscriber=subscriber):
                test(self, version, publisher, subscriber, self.topic(f"{version}/{publisher}-{subscriber}"))

    run.__doc__ = test.__doc__
    return run


class Sub:
    """A subscriber that is subscribed."""

    def __init__(self, case, whose, *options, version="mqttv311", ready=True, count=1):
        self.relay = Relay(case.port)
        case.addCleanup(self.relay.close)
        command = PROGRAMS["sub", whose]
        self.program = case.spawn(*command, "-h", HOST, "-p", self.relay.port, "-V", version, *options)
        if ready:
            self.relay.subscribed(count, self.program)

    def output(self, case):
        """What it wrote before it ended by itself, without an error."""
        result = self.program.wait()
        case.assertEqual((result.code, result.err), (0, b""), str(result))
        return result.out


class Commands(BrokerCase):
    """What works the same with every broker. Only subclasses run."""

    def pub(self, whose, *options, version="mqttv311", **more):
        command = PROGRAMS["pub", whose]
        return self.succeed(*command, "-h", HOST, "-p", self.port, "-V", version, *options, **more)

    def sub(self, whose, *options, **more):
        return Sub(self, whose, *options, **more)

    @pairs
    def test_qos(self, version, publisher, subscriber, topic):
        for published, subscribed in itertools.product("012", "012"):
            own = f"{topic}/{published}{subscribed}"
            sub = self.sub(
                subscriber, "-t", own, "-q", subscribed, "-F", "%t %q %r %p", "-C", "2", version=version
            )
            for payload in ["one", "two"]:
                self.pub(publisher, "-t", own, "-q", published, "-m", payload, version=version)
            qos = min(published, subscribed)
            self.assertEqual(sub.output(self).decode(), f"{own} {qos} 0 one\n{own} {qos} 0 two\n")

    @pairs
    def test_retained(self, version, publisher, subscriber, topic):
        for payload in ["one", "two"]:
            self.pub(publisher, "-t", topic, "-r", "-q", "1", "-m", payload, version=version)
        sub = self.sub(subscriber, "-t", f"{topic}/#", "-q", "1", "-F", "%r %p", "-C", "1", version=version)
        self.assertEqual(sub.output(self), b"1 two\n")
        self.pub(publisher, "-t", topic, "-r", "-n", "-q", "1", version=version)
        sub = self.sub(subscriber, "-t", topic, "-q", "1", "-F", "%r %p", "-C", "1", version=version)
        self.pub(publisher, "-t", topic, "-m", "end", "-q", "1", version=version)
        self.assertEqual(sub.output(self), b"0 end\n")

    @pairs
    def test_will(self, version, publisher, subscriber, topic):
        if publisher == THEIRS:
            return
        watcher = self.sub(subscriber, "-t", topic, "-q", "2", "-F", "%q %r %p", "-C", "1", version=version)
        will = ["--will-topic", topic, "--will-payload", "gone", "--will-qos", "2", "--will-retain"]
        victim = self.sub(OURS, "-t", f"{topic}/unused", *will, version=version)
        victim.program.signal(signal.SIGKILL)
        self.assertEqual(watcher.output(self), b"2 0 gone\n")
        kept = self.sub(THEIRS, "-t", topic, "-q", "2", "-F", "%q %r %p", "-C", "1", version=version)
        self.assertEqual(kept.output(self), b"2 1 gone\n")

    @pairs
    def test_lines(self, version, publisher, subscriber, topic):
        """-l: a message for each line, the empty ones too."""
        if publisher == THEIRS:
            # mosquitto_pub 2.0 sends more at once than the broker's receive maximum allows.
            return
        lines = [f"line {n}" for n in range(500)] + ["", "ünïcödé", "last without a line feed"]
        for qos in "12":
            own = f"{topic}/{qos}"
            options = ["-t", own, "-q", qos, "-F", "%p", "-C", str(len(lines))]
            if qos == "2" and version == "mqttv5" and isinstance(self.broker, Mosquitto):
                # When QoS 2 messages come in a burst, mosquitto 2.0 sends more at once than the subscriber's
                # Receive Maximum, whoever that is: mosquitto_sub ends with a protocol error, and so do we.
                if subscriber == THEIRS:
                    continue
                options += ["-D", "connect", "receive-maximum", "1000"]
            sub = self.sub(subscriber, *options, version=version)
            self.pub(publisher, "-t", own, "-q", qos, "-l", input="\n".join(lines).encode(), version=version)
            self.assertEqual(sub.output(self).decode().splitlines(), lines)

    @pairs
    def test_whole_input_and_file(self, version, publisher, subscriber, topic):
        """-s and -f: all bytes are one message."""
        data = bytes(range(256)) * 400
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            for n, (options, more) in enumerate([(["-s"], {"input": data}), (["-f", file.name], {})]):
                own = f"{topic}/{n}"
                sub = self.sub(subscriber, "-t", own, "-q", "1", "-N", "-C", "1", version=version)
                self.pub(publisher, "-t", own, "-q", "1", *options, version=version, **more)
                self.assertEqual(sub.output(self), data)

    @pairs
    def test_big_message(self, version, publisher, subscriber, topic):
        data = os.urandom(1 << 20)
        sub = self.sub(subscriber, "-t", topic, "-q", "2", "-N", "-C", "1", version=version)
        self.pub(publisher, "-t", topic, "-q", "2", "-s", input=data, version=version)
        self.assertEqual(sub.output(self), data)

    def test_repeat(self):
        topic = self.topic()
        sub = self.sub(THEIRS, "-t", topic, "-q", "1", "-C", "5")
        self.pub(OURS, "-t", topic, "-q", "1", "-m", "x", "--repeat", "5")
        self.assertEqual(sub.output(self), b"x\n" * 5)

    def test_several_filters(self):
        topic = self.topic()
        sub = self.sub(OURS, "-t", f"{topic}/a", "-t", f"{topic}/b/#", "-q", "1", "-v", "-C", "2")
        for name in ["c", "a", "b/c"]:
            self.pub(THEIRS, "-t", f"{topic}/{name}", "-q", "1", "-m", "x")
        self.assertEqual(sub.output(self).decode(), f"{topic}/a x\n{topic}/b/c x\n")

    def test_filter_out(self):
        topic = self.topic()
        sub = self.sub(OURS, "-t", f"{topic}/#", "-T", f"{topic}/b/+", "-q", "1", "-v", "-C", "2")
        for name in ["a", "b/c", "b"]:
            self.pub(THEIRS, "-t", f"{topic}/{name}", "-q", "1", "-m", "x")
        self.assertEqual(sub.output(self).decode(), f"{topic}/a x\n{topic}/b x\n")

    def test_session(self):
        """-c -i: messages wait for a subscriber that left, and for one that was killed."""
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = self.topic(version)
                options = ["-c", "-i", f"cli-{version}", "-q", "1", "-t", topic]
                if version == "mqttv5":
                    options += ["-x", "600"]
                first = self.sub(OURS, *options, version=version)
                first.program.signal(signal.SIGTERM)
                first.program.wait()
                for round in range(2):
                    for n in range(20):
                        self.pub(OURS, "-t", topic, "-q", "1", "-m", f"{round} {n}", version=version)
                    again = self.sub(OURS, *options, version=version)
                    expected = "".join(f"{round} {n}\n" for n in range(20)).encode()
                    until(lambda: again.program.out() == expected, lambda: again.program.state())
                    again.program.signal(signal.SIGKILL if round == 0 else signal.SIGTERM)
                    again.program.wait()

    def test_comes_back(self):
        """A subscriber whose connection breaks connects again and goes on."""
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = self.topic(version)
                sub = self.sub(OURS, "-t", topic, "-q", "1", version=version)
                self.pub(THEIRS, "-t", topic, "-q", "1", "-m", "before", version=version)
                until(lambda: sub.program.out() == b"before\n", lambda: sub.program.state())
                sub.relay.cut()
                sub.relay.subscribed(2, sub.program)
                self.pub(THEIRS, "-t", topic, "-q", "1", "-m", "after", version=version)
                until(lambda: sub.program.out() == b"before\nafter\n", lambda: sub.program.state())

    def test_shared(self):
        topic = self.topic()
        group = [self.sub(OURS, "-t", f"$share/g/{topic}", "-q", "1", version="mqttv5") for _ in range(2)]
        numbers = [str(n) for n in range(40)]
        self.pub(OURS, "-t", topic, "-q", "1", "-l", input="\n".join(numbers).encode(), version="mqttv5")
        until(lambda: sum(len(s.program.out().split()) for s in group) >= 40, lambda: group[0].program.state())
        self.assertEqual(sorted((n for s in group for n in s.program.out().decode().split()), key=int), numbers)

    def test_properties(self):
        """-D: what ours sends, theirs shows, and the other way round."""
        options = [
            ["content-type", "text/plain"], ["correlation-data", "abc"], ["payload-format-indicator", "1"],
            ["message-expiry-interval", "100"], ["response-topic", "answers/here"],
            ["user-property", "b", "1"], ["user-property", "a", "2"], ["user-property", "b", "3"],
        ]  # fmt: skip
        options = [word for o in options for word in ["-D", "publish", *o]]
        for publisher, subscriber in [(OURS, THEIRS), (THEIRS, OURS), (OURS, OURS)]:
            with self.subTest(publisher=publisher, subscriber=subscriber):
                topic = self.topic(f"{publisher}-{subscriber}")
                sub = self.sub(
                    subscriber, "-t", topic, "-C", "1", "-F", "%C|%D|%F|%R|%P|%S|%p", "-D", "subscribe",
                    "subscription-identifier", "7", version="mqttv5",
                )  # fmt: skip
                self.pub(publisher, "-t", topic, "-m", "x", *options, version="mqttv5")
                self.assertEqual(sub.output(self), b"text/plain|abc|1|answers/here|b:1 a:2 b:3|7|x\n")

    FORMATS = [
        "%p", "%t", "%q", "%r", "%l", "%x", "%X", "%%", "%A", "%C", "%D", "%E", "%F", "%P", "%R", "%S",
        "%t %q %r %l %p", "\\t%p\\n\\\\", "plain", "", "a%pb%tc", "\\0\\a\\e\\r", "@@ %p", "%I", "@Y-@m-@d", "@j",
    ]  # fmt: skip

    PAYLOADS = [b"text", b"", b"\x00\xff\x80binary\n", '{"a": [1, "\u00fc"]}'.encode()]
    PROPERTIES = b"".join([
        b"\x01\x01",  # payload format: text
        b"\x02\x00\x00\x00\x64",  # message expiry
        b"\x03" + wire.string("text/plain"),
        b"\x08" + wire.string("answers"),
        b"\x09" + wire.string("abc"),
        b"\x26" + wire.string("k") + wire.string("v"),
        b"\x26" + wire.string("k 2") + wire.string("v 2"),
    ])  # fmt: skip

    def publish_by_hand(self, version, topic, payloads):
        """The payloads with each QoS; 5.0 adds properties."""
        # A message of QoS 2 comes last: others may overtake it.
        levels = [0, 1, 1, 2][-len(payloads) :]
        peer = self.peer(self.port, LEVELS[version], "by-hand")
        for n, (qos, payload) in enumerate(zip(levels, payloads)):
            # What is told to be text has to be text.
            props = self.PROPERTIES if payload.isascii() else self.PROPERTIES[2:]
            props = props if version == "mqttv5" else b""
            peer.send(wire.publish(peer.version, topic, payload, qos, n + 1, props=props))
            if qos == 1:
                self.assertEqual(peer.read()[0], wire.PUBACK)
            if qos == 2:
                self.assertEqual(peer.read()[0], wire.PUBREC)
                peer.send(wire.ack(wire.PUBREL, n + 1))
                self.assertEqual(peer.read()[0], wire.PUBCOMP)
        peer.ping()
        peer.send(wire.packet(wire.DISCONNECT))
        peer.close()

    def compare(self, version, topic, payloads, *options):
        """What ours and theirs write for the same messages."""
        options = ["-t", topic, "-q", "2", "-C", str(len(payloads)), *options]
        subs = [self.sub(whose, *options, version=version) for whose in (OURS, THEIRS)]
        self.publish_by_hand(version, topic, payloads)
        # The second may turn between them.
        return [re.sub(rb"\d\d:\d\d:\d\d(\.\d+)?", b"TIME", s.output(self)) for s in subs]

    def test_formats(self):
        """-F: byte for byte what mosquitto_sub writes for the same messages.

        %m is not among them: the packet id is not shown to users of our client.
        """
        for version in VERSIONS:
            for format in self.FORMATS:
                with self.subTest(version=version, format=format):
                    ours, theirs = self.compare(
                        version, self.topic(f"{version}/\u00fc "), self.PAYLOADS, "-F", format
                    )
                    self.assertEqual(ours, theirs)

    def test_json(self):
        """%j and %J: the same values, but for the packet id; theirs loses payloads that are no text."""
        for version in VERSIONS:
            for format, payloads in [
                ("%j", [self.PAYLOADS[0], self.PAYLOADS[1], self.PAYLOADS[3]]),
                ("%J", [self.PAYLOADS[3], b"[1, 2.5, null, true]", b"17"]),
            ]:
                with self.subTest(version=version, format=format):
                    written = self.compare(version, self.topic(version), payloads, "-F", format)
                    ours, theirs = ([json.loads(line) for line in out.splitlines()] for out in written)
                    for message in ours + theirs:
                        self.assertRegex(message.pop("tst"), r"^\d{4}-\d\d-\d\dTTIMEZ?[+-]\d{4}$")
                        message.pop("mid", None)
                    self.assertEqual(ours, theirs)

    def test_plain_output(self):
        """What is written without -F, with -v, with -N."""
        for options in [[], ["-v"], ["-N"], ["-v", "-N"]]:
            with self.subTest(options=options):
                ours, theirs = self.compare("mqttv311", self.topic(), self.PAYLOADS, *options)
                self.assertEqual(ours, theirs)

    def test_count_acknowledges(self):
        """What -C counted is done: it does not come again, and what follows waits."""
        topic = self.topic()
        options = ["-c", "-i", "cli-count", "-q", "1", "-t", topic]
        first = self.sub(OURS, *options, "-C", "1")
        self.pub(THEIRS, "-t", topic, "-q", "1", "-m", "1")
        self.assertEqual(first.output(self), b"1\n")
        for n in "23":
            self.pub(THEIRS, "-t", topic, "-q", "1", "-m", n)
        second = self.sub(OURS, *options, "-C", "2")
        self.assertEqual(second.output(self), b"2\n3\n")


class AgainstOurs(Commands):
    pass


class AgainstMosquitto(Commands):
    @classmethod
    def make_broker(cls):
        return Mosquitto()


class ExitCodes(TestCase):
    """The same as mosquitto's."""

    def both(self, kind, *options, **more):
        ours, theirs = (
            self.run_program(*PROGRAMS[kind, whose], *options, **more) for whose in (OURS, THEIRS)
        )
        return ours, theirs

    def test_timeout(self):
        broker = self.start(Mosquitto())
        for version in VERSIONS:
            with self.subTest(version=version):
                options = ["-h", HOST, "-p", broker.port, "-V", version, "-t", "silent", "-W", "1"]
                ours, theirs = self.both("sub", *options)
                self.assertEqual(theirs.code, TIMEOUT_CODE, str(theirs))
                self.assertEqual(ours.code, TIMEOUT_CODE, str(ours))
                self.assertEqual(ours.out, b"")

    def test_exit_after_subscribe(self):
        broker = self.start(Mosquitto())
        ours, _ = self.both("sub", "-h", HOST, "-p", broker.port, "-t", "a", "-E")
        self.assertEqual(ours.code, 0, str(ours))

    def test_refused(self):
        """The code of the CONNACK is the exit code, and the reason is on standard error."""
        with tempfile.NamedTemporaryFile("w") as passwords:
            os.chmod(passwords.name, 0o644)
            broker = self.start(Mosquitto(["allow_anonymous false", f"password_file {passwords.name}"]))
            for version, code in zip(VERSIONS, [5, 5, 135]):
                for kind, options in [("pub", ["-m", "x"]), ("sub", [])]:
                    for login in [[], ["-u", "nobody", "-P", "wrong"]]:
                        with self.subTest(version=version, kind=kind, login=login):
                            ours, theirs = self.both(
                                kind, "-h", HOST, "-p", broker.port, "-V", version, "-t", "a", *options, *login
                            )
                            self.assertEqual(theirs.code, code, str(theirs))
                            self.assertEqual(ours.code, code, str(ours))
                            self.assertNotEqual(ours.err, b"")

    def test_nobody_there(self):
        port = free_port()
        for kind, options in [("pub", ["-m", "x"]), ("sub", [])]:
            with self.subTest(kind=kind):
                ours, theirs = self.both(kind, "-h", HOST, "-p", port, "-t", "a", *options, limit=LIMIT)
                self.assertNotEqual(theirs.code, 0)
                self.assertNotEqual(ours.code, 0, str(ours))
                self.assertIn("refused", ours.err.decode().lower(), str(ours))

    def test_mistakes(self):
        """Mistakes are told before anything is connected."""
        for kind, options in [
            ("pub", []),
            ("pub", ["-t", "a"]),
            ("pub", ["-t", "a/#", "-m", "x"]),
            ("pub", ["-t", "a/+", "-m", "x"]),
            ("pub", ["-t", "a", "-m", "x", "-q", "3"]),
            ("pub", ["-t", "a", "-f", "/no/such/file"]),
            ("pub", ["-t", "a", "-m", "x", "-V", "mqttv9"]),
            ("pub", ["-t", "a", "-m", "x", "--will-payload", "y"]),
            ("pub", ["-t", "a", "-m", "x", "--no-such-option"]),
            ("sub", []),
            ("sub", ["-t", "a/#/b"]),
            ("sub", ["-t", "a+"]),
            ("sub", ["-t", "a", "-q", "3"]),
            ("sub", ["-t", "a", "-c"]),
            ("sub", ["-t", "a", "-C", "0"]),
        ]:
            with self.subTest(kind=kind, options=options):
                # Nobody listens there: who connects first says so.
                ours, theirs = self.both(kind, "-h", HOST, "-p", free_port(), *options, limit=10)
                self.assertNotEqual(theirs.code, 0, str(theirs))
                self.assertNotEqual(ours.code, 0, str(ours))
                self.assertNotIn("refused", ours.err.decode().lower(), str(ours))

    def test_broken_pipe(self):
        """`mqtt sub | head -1` ends without a word."""
        broker = self.start(Mosquitto())
        relay = Relay(broker.port)
        self.addCleanup(relay.close)
        command = f"{MQTT} sub -h {HOST} -p {relay.port} -t a -q 1 | head -n 1"
        pipe = self.spawn("sh", "-c", command)
        relay.subscribed(1, pipe)
        # It notices with the first message that nobody reads any more.
        while pipe.running():
            self.succeed("mosquitto_pub", "-h", HOST, "-p", broker.port, "-t", "a", "-q", "1", "-m", "x")
        result = pipe.wait()
        self.assertEqual((result.out, result.err), (b"x\n", b""), str(result))


del Commands  # or unittest would run it

if __name__ == "__main__":
    main()
