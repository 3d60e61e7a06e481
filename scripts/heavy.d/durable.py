"""What was acknowledged is there: the program is killed at random moments, its disk is full, its files
are damaged, and every message is accounted for.

KILLS=n in the environment: so many kills in each mode (20 if not set). SEED=n: other moments.
"""

import faulthandler
import glob
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import wire
from harness import HOST, MQTT, Broker, Program, TestCase, free_port, main, text, until

KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("SEED", "1"))
WINDOW = 20
UNLIMITED = ["--set", "limits.max_queued_messages=100000000", "--set", "limits.max_queued_bytes=8GiB"]


class Gone(Exception):
    """The connection ended, or there is no broker at present."""


class Session:
    """A client that keeps its session, over any number of connections and brokers."""

    version = wire.V311

    def __init__(self, port, name):
        self.port, self.name = port, name
        self.socket, self.data = None, bytearray()
        self.was_connected = False

    def connect(self):
        try:
            self.socket = socket.create_connection((HOST, self.port), 5)
            self.socket.settimeout(0.05)
        except OSError:
            raise Gone from None
        self.data.clear()
        self.send(wire.connect(self.version, self.name, clean=False))
        deadline = time.monotonic() + 30
        while True:
            for kind, _, body in self.receive():
                if kind != wire.CONNACK or body[1] != 0:
                    raise AssertionError(f"{self.name}: packet {kind}, {body.hex()}")
                if self.was_connected and not body[0] & 1:
                    raise AssertionError(f"{self.name}: the broker has lost the session")
                self.was_connected = True
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name}: no CONNACK")

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            raise Gone from None

    def receive(self):
        """One packet or none, then those that came with it at the next call."""
        packets, _ = wire.split(self.data)
        if not packets:
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                return []
            except OSError:
                raise Gone from None
            if not more:
                raise Gone
            self.data += more
            packets, _ = wire.split(self.data)
        if not packets:
            return []
        kind, flags, body = packets[0]
        del self.data[: 1 + len(wire.varint(len(body))) + len(body)]
        return [(kind, flags, body)]

    def close(self):
        if self.socket:
            self.socket.close()


class Publisher(Session):
    """Publishes numbers, and repeats what is not acknowledged as the standard asks."""

    def __init__(self, port, name, qos):
        super().__init__(port, name)
        self.qos, self.sent, self.mid = qos, 0, 0
        # Packet identifier to number, and whether PUBREC came; in order.
        self.open = {}
        self.closing = False

    def packet(self, mid, dup):
        number, released = self.open[mid]
        if released:
            return wire.ack(wire.PUBREL, mid)
        return wire.publish(self.version, f"n/{self.name}", str(number).encode(), self.qos, mid, dup=dup)

    def run(self):
        self.connect()
        for mid in list(self.open):
            self.send(self.packet(mid, True))
        while self.open or not self.closing:
            while len(self.open) < WINDOW and not self.closing:
                self.mid = self.mid % 65535 + 1
                self.open[self.mid] = (self.sent, False)
                self.sent += 1
                self.send(self.packet(self.mid, False))
            for kind, _, body in self.receive():
                mid = body[0] << 8 | body[1]
                if kind == wire.PUBREC:
                    if mid in self.open:
                        self.open[mid] = (self.open[mid][0], True)
                    self.send(wire.ack(wire.PUBREL, mid))
                elif kind in (wire.PUBACK, wire.PUBCOMP):
                    self.open.pop(mid, None)
                else:
                    raise AssertionError(f"{self.name}: packet {kind}")


class Subscriber(Session):
    """Notes what it gets."""

    def __init__(self, port, name):
        super().__init__(port, name)
        self.got, self.taken, self.subscribed = {}, set(), False
        self.closing, self.last = False, time.monotonic()

    def run(self):
        self.connect()
        if not self.subscribed:
            self.send(wire.subscribe(self.version, 1, ("n/+", 2)))
        while not self.closing:
            for kind, flags, body in self.receive():
                self.last = time.monotonic()
                if kind == wire.SUBACK:
                    self.subscribed = True
                elif kind == wire.PUBLISH:
                    topic, mid, payload = wire.read_publish(self.version, flags, body)
                    qos = flags >> 1 & 3
                    if qos < 2 or mid not in self.taken:
                        self.got.setdefault(topic, []).append(int(payload))
                    if qos == 2:
                        self.taken.add(mid)
                    self.send(wire.ack(wire.PUBREC if qos == 2 else wire.PUBACK, mid))
                elif kind == wire.PUBREL:
                    mid = body[0] << 8 | body[1]
                    self.taken.discard(mid)
                    self.send(wire.ack(wire.PUBCOMP, mid))


class Runner(threading.Thread):
    """Has a session connect again and again until it is done."""

    def __init__(self, session):
        super().__init__(daemon=True)
        self.session, self.error = session, None
        self.start()

    def run(self):
        try:
            while True:
                try:
                    return self.session.run()
                except Gone:
                    time.sleep(0.01)
                finally:
                    self.session.close()
        except BaseException as e:
            self.error = e

    def finish(self, limit=120):
        self.session.closing = True
        self.join(limit)
        if self.error:
            raise self.error
        if self.is_alive():
            raise AssertionError(f"{self.session.name} is not done")


class Stored(TestCase):
    def setUp(self):
        super().setUp()
        # These take as long as they take.
        faulthandler.cancel_dump_traceback_later()
        self.directory = tempfile.mkdtemp(prefix="mqtt-data-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.port = free_port()

    def command(self, *options, directory=None):
        return [MQTT, "broker", "--bind", f"{HOST}:{self.port}", "--quiet", "--data", directory or self.directory, *options]

    def broker(self, *options, directory=None):
        return self.start(Broker(self.command(*options, directory=directory), self.port))

    def journal(self):
        files = glob.glob(f"{self.directory}/store/*.jnl")
        return max(files, key=os.path.getsize)


class Kills(Stored):
    def kills(self, mode, shards=(1,)):
        """Two publishers, one subscriber that is always there, and one that comes at the end. Each start has one of
        these numbers of shards."""
        chance = random.Random(f"{SEED} {mode} {shards}")
        fixed = [*UNLIMITED, "--durability", mode]

        def options():
            return [*fixed, "--shards", str(chance.choice(shards))]

        broker = self.broker(*options())
        away = Subscriber(self.port, "away")
        first = Runner(away)
        until(lambda: away.subscribed, "SUBACK")
        first.finish()
        there = Runner(Subscriber(self.port, "there"))
        until(lambda: there.session.subscribed, "SUBACK")
        publishers = [Runner(Publisher(self.port, name, qos)) for name, qos in (("q1", 1), ("q2", 2))]
        early = 0
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.0, 0.4))
            broker.kill()
            broker.close()
            while chance.random() < 0.3:
                # While it recovers, or a little later.
                program = Program(self.command(*options()))
                time.sleep(chance.uniform(0.0, 0.2))
                program.close()
                early += 1
            broker = Broker(self.command(*options()), self.port)
            self.addCleanup(broker.close)
            for runner in [there, *publishers]:
                self.assertIsNone(runner.error)
        for runner in publishers:
            runner.finish()
        sent = {f"n/{runner.session.name}": runner.session.sent for runner in publishers}
        # All is acknowledged. Killed once more, so that nothing comes from memory.
        broker.kill()
        broker.close()
        broker = Broker(self.command(*options()), self.port)
        self.addCleanup(broker.close)
        away.closing = False
        last = Runner(away)
        for runner in (there, last):
            session = runner.session
            complete = lambda: all(session.got.get(topic, [])[-1:] == [n - 1] for topic, n in sent.items())
            until(complete, lambda: f"{session.name}: {[(t, g[-1:]) for t, g in session.got.items()]} of {sent}", 120)
            # What would come too much would come now.
            until(lambda: time.monotonic() - session.last > 0.5 and not session.taken, "quiet", 60)
            runner.finish()
            twice = session.got["n/q2"]
            self.assertEqual(len(twice), sent["n/q2"], f"{session.name}: QoS 2 not exactly once")
            self.assertEqual(twice, list(range(sent["n/q2"])), f"{session.name}: QoS 2 out of order")
            seen, once = set(), []
            for number in session.got["n/q1"]:
                if number not in seen:
                    seen.add(number)
                    once.append(number)
            self.assertEqual(once, list(range(sent["n/q1"])), f"{session.name}: QoS 1 lost or out of order")
            repeated = len(session.got["n/q1"]) - len(once)
            print(f"  {mode}, shards {shards}, {session.name}: {sent} all there, QoS 1 repeated {repeated} times")
        result = broker.stop()
        self.assertEqual(result.code, 0, str(result))
        self.assertNotIn(b"panicked", result.err)
        print(f"  {mode}, shards {shards}: {KILLS} kills, {early} more during recovery")

    def test_synced(self):
        self.kills("synced")

    def test_written(self):
        self.kills("written")

    def test_shards(self):
        self.kills("synced", (3,))

    def test_another_number_of_shards_at_each_start(self):
        self.kills("written", (1, 2, 3, 4))


class Damage(Stored):
    def fill(self, count=200):
        """So many messages wait for a subscriber that is away."""
        broker = self.broker()
        away = self.peer(self.port, client="away", clean=False)
        away.subscribe("n/+", 1)
        away.close()
        publisher = self.peer(self.port, client="p")
        for number in range(count):
            publisher.send(wire.publish(wire.V311, "n/x", b"%d " % number + bytes(200), 1, number % 60000 + 1))
            self.assertEqual(publisher.read()[0], wire.PUBACK)
        publisher.close()
        broker.kill()
        broker.close()

    def read_all(self):
        away = wire.Peer(self.port, client="away", clean=False)
        self.addCleanup(away.close)
        away.socket.settimeout(2)
        numbers = []
        try:
            while True:
                kind, flags, body = away.read()
                if kind == wire.PUBLISH:
                    _, mid, payload = wire.read_publish(wire.V311, flags, body)
                    numbers.append(int(payload.split()[0]))
                    away.send(wire.ack(wire.PUBACK, mid))
        except TimeoutError:
            return numbers

    def test_a_flipped_bit(self):
        """The store is set aside, what is readable goes on, and the log says so."""
        self.fill()
        journal = self.journal()
        size = os.path.getsize(journal)
        with open(journal, "r+b") as f:
            at = min(size, 20_000)
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 0x10]))
        broker = self.broker()
        until(lambda: b"damaged" in broker.err(), lambda: str(broker.state()))
        self.assertTrue(glob.glob(f"{self.directory}/store.damaged-*"), os.listdir(self.directory))
        numbers = self.read_all()
        self.assertGreater(len(numbers), 20)
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual(broker.stop().code, 0)

    def test_a_cut_file(self):
        """A torn end costs at most its last messages, and the rest is a prefix."""
        self.fill()
        journal = self.journal()
        with open(journal, "r+b") as f:
            data = f.read()
            end = len(data.rstrip(b"\0"))
            f.truncate(end - 100)
        broker = self.broker()
        numbers = self.read_all()
        self.assertEqual(numbers, list(range(len(numbers))))
        self.assertGreater(len(numbers), 150)
        self.assertEqual(broker.stop().code, 0)

    def test_a_second_broker(self):
        """One directory serves one broker; the other says which, and what to do."""
        self.fill(1)
        broker = self.broker()
        other = [MQTT, "broker", "--bind", f"{HOST}:{free_port()}", "--quiet", "--data", self.directory]
        result = self.run_program(*other, limit=10)
        self.assertEqual(result.code, 1, str(result))
        self.assertIn(self.directory, text(result.err))
        self.assertEqual(self.read_all(), [0])
        self.assertEqual(broker.stop().code, 0)

    def test_no_rights(self):
        """A directory that may not be written stops the start, and stays as it is."""
        self.fill(1)
        before = sorted(os.listdir(f"{self.directory}/store"))

        def nobody():
            os.setgid(65534)
            os.setuid(65534)

        program = os.path.join(tempfile.mkdtemp(prefix="mqtt-bin-"), "mqtt")
        self.addCleanup(shutil.rmtree, os.path.dirname(program), ignore_errors=True)
        os.chmod(os.path.dirname(program), 0o755)
        shutil.copy(MQTT, program)
        command = self.command()
        command[0] = program
        result = self.run_program(*command, limit=10, preexec=nobody)
        self.assertEqual(result.code, 1, str(result))
        self.assertIn(self.directory, text(result.err))
        self.assertEqual(sorted(os.listdir(f"{self.directory}/store")), before)


class FullDisk(Stored):
    def test_full(self):
        """Nothing is acknowledged that is not stored; QoS 0 goes on; with room it goes on as before."""
        disk = os.path.join(self.directory, "disk")
        os.mkdir(disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=False)
        data = os.path.join(disk, "data")
        broker = self.broker(*UNLIMITED, directory=data)
        away = self.peer(self.port, client="away", clean=False)
        away.subscribe("n/+", 1)
        away.close()
        listener = self.peer(self.port, wire.V5, "listener")
        listener.subscribe("live")
        filler = os.path.join(disk, "filler")
        with open(filler, "wb") as f:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            f.write(bytes(max(0, free - (6 << 20))))
        publisher = self.peer(self.port, wire.V5, "p")
        acked, refused, number = [], 0, 0
        deadline = time.monotonic() + 60
        open_ones = {}
        while not refused and time.monotonic() < deadline:
            mid = number % 60000 + 1
            publisher.send(wire.publish(wire.V5, "n/x", b"%d " % number + bytes(20_000), 1, mid))
            open_ones[mid] = number
            number += 1
            publisher.socket.settimeout(0.2)
            try:
                while True:
                    kind, _, body = publisher.read()
                    self.assertEqual(kind, wire.PUBACK)
                    mid = body[0] << 8 | body[1]
                    if len(body) > 2 and body[2] >= 0x80:
                        refused += 1
                        open_ones.pop(mid)
                    else:
                        acked.append(open_ones.pop(mid))
                    if not open_ones:
                        break
            except TimeoutError:
                # It waits for what cannot be stored. QoS 0 goes on meanwhile.
                publisher.send(wire.publish(wire.V5, "live", b"still here"))
                listener.socket.settimeout(10)
                kind, _, _ = listener.read()
                self.assertEqual(kind, wire.PUBLISH)
                break
        self.assertTrue(open_ones or refused, "the disk never was full")
        until(lambda: b"The store failed" in broker.err(), lambda: str(broker.state()))
        os.remove(filler)
        publisher.socket.settimeout(30)
        while open_ones:
            kind, _, body = publisher.read()
            mid = body[0] << 8 | body[1]
            if len(body) > 2 and body[2] >= 0x80:
                open_ones.pop(mid)
            else:
                acked.append(open_ones.pop(mid))
        publisher.send(wire.publish(wire.V5, "n/x", b"%d " % number, 1, 60001))
        kind, _, body = publisher.read()
        self.assertEqual((kind, body[2:3] or b"\0"), (wire.PUBACK, b"\0"))
        acked.append(number)
        broker.kill()
        broker.close()
        broker = self.broker(*UNLIMITED, directory=data)
        numbers = Damage.read_all(self)
        self.assertTrue(set(acked) <= set(numbers), f"lost: {sorted(set(acked) - set(numbers))}")
        self.assertEqual(len(numbers), len(set(numbers)))
        print(f"  full disk: {len(acked)} acknowledged and there, {refused} refused")
        self.assertEqual(broker.stop().code, 0)


if __name__ == "__main__":
    main()
