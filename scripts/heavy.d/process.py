"""The broker as a process: signals, kills, a taken port, no file descriptors left, memory."""

import os
import resource
import shutil
import signal
import socket
import tempfile
import time

import wire
from harness import HOST, MQTT, OurBroker, TestCase, free_port, main, text, until


def cpu_seconds(pid):
    """Processor time that a process has used."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Signals(TestCase):
    def test_told_to_stop(self):
        """SIGTERM and SIGINT: every client hears of it, exit code 0."""
        for number in [signal.SIGTERM, signal.SIGINT]:
            with self.subTest(signal=number):
                broker = self.start(OurBroker())
                peers = [self.peer(broker.port, v, f"client-{v}") for v in (wire.V31, wire.V311, wire.V5)]
                broker.signal(number)
                for peer in peers:
                    goodbye = [(kind, body[:1]) for kind, _, body in peer.rest()]
                    self.assertEqual(goodbye, [(wire.DISCONNECT, b"\x8b")] if peer.version == wire.V5 else [])
                result = broker.wait(5)
                self.assertEqual(result.code, 0, str(result))

    def test_a_client_that_does_not_leave(self):
        """A client that neither reads nor closes cannot keep the broker from stopping."""
        broker = self.start(OurBroker())
        peers = [self.peer(broker.port, v) for v in (wire.V311, wire.V5)]
        for peer in peers:
            peer.subscribe("flood")
            # More than the system holds between us, and nobody reads it.
            for _ in range(64):
                peer.send(wire.publish(peer.version, "flood", bytes(200_000)))
                if not broker.running():
                    break
        broker.signal(signal.SIGTERM)
        result = broker.wait(15)
        self.assertEqual(result.code, 0, str(result))

    def test_killed_and_started_again(self):
        """After SIGKILL the same port serves again at once, with clients still hanging on."""
        port = free_port()
        for _ in range(3):
            broker = self.start(OurBroker(port))
            peers = [self.peer(port, wire.V5, f"c{n}") for n in range(20)]
            peers[0].subscribe("a")
            peers[1].send(wire.publish(wire.V5, "a", b"x", 1, 1))
            self.assertEqual(peers[0].read()[0], wire.PUBLISH)
            broker.kill()
            for peer in peers:
                peer.rest()
        broker = self.start(OurBroker(port))
        self.assertEqual(broker.stop().code, 0)


class TakenPort(TestCase):
    def test_second_broker(self):
        """Says what is wrong and what to do, on one line, and leaves the first one alone."""
        first = self.start(OurBroker())
        result = self.run_program(MQTT, "broker", "--bind", f"{HOST}:{first.port}", "--quiet", limit=5)
        self.assertNotEqual(result.code, 0, str(result))
        lines = text(result.err).splitlines()
        self.assertEqual(len(lines), 1, str(result))
        self.assertIn("already in use", lines[0])
        self.assertIn(str(first.port), lines[0])
        self.peer(first.port).ping()
        self.assertEqual(first.stop().code, 0)

    def test_no_rights(self):
        if os.geteuid() != 0:
            raise AssertionError("this test gives up rights and so has to start as root")

        def nobody():
            os.setgid(65534)
            os.setuid(65534)

        # A copy, for its directory may be closed to others.
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o755)
            program = shutil.copy(shutil.which(MQTT), directory)
            os.chmod(program, 0o755)
            with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as f:
                if int(f.read()) <= 1:
                    # Here every port is open to everybody, so there is nothing to refuse.
                    self.skipTest("ip_unprivileged_port_start is below 2")
            result = self.run_program(program, "broker", "--bind", f"{HOST}:1", limit=5, preexec=nobody)
        self.assertNotEqual(result.code, 0, str(result))
        self.assertIn("not allowed to listen", text(result.err))

    def test_bad_options(self):
        """A mistake in the options is told, and nothing is opened."""
        for options in [["--port", "70000"], ["--bind", "300.0.0.1"], ["--no-such-option"], ["--bind", ""]]:
            with self.subTest(options=options):
                result = self.run_program(MQTT, "broker", *options, limit=5)
                self.assertNotEqual(result.code, 0, str(result))
                self.assertNotEqual(result.err, b"")


class NoDescriptors(TestCase):
    LIMIT = 64

    def test_out_of_file_descriptors(self):
        """It serves whom it has, does not spin, and serves again when there are some."""

        def few():
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.LIMIT, self.LIMIT))

        broker = self.start(OurBroker(preexec=few))
        first = self.peer(broker.port, wire.V5, "first")
        first.subscribe("a", 1)
        crowd = []
        for _ in range(3 * self.LIMIT):
            crowd.append(socket.create_connection((HOST, broker.port), 5))
            self.addCleanup(crowd[-1].close)
        until(
            lambda: len(os.listdir(f"/proc/{broker.pid}/fd")) >= self.LIMIT - 1,
            lambda: f"{len(os.listdir(f'/proc/{broker.pid}/fd'))} descriptors in use",
        )
        self.assertTrue(broker.running())
        time.sleep(0.5)
        before = cpu_seconds(broker.pid)
        time.sleep(3)
        used = cpu_seconds(broker.pid) - before
        self.assertLess(used, 0.6, "processor seconds in 3 s of waiting")
        # Whom it has, it serves.
        first.send(wire.publish(wire.V5, "a", b"x", 1, 1))
        self.assertEqual({p[0] for p in (first.read(), first.read())}, {wire.PUBLISH, wire.PUBACK})
        complaints = text(broker.err()).count("Cannot accept")
        self.assertGreaterEqual(complaints, 1, "nobody was told")
        self.assertLessEqual(complaints, 100, "the log was flooded")
        for s in crowd:
            s.close()
        late = self.peer(broker.port, wire.V5, "late")
        late.subscribe("b")
        late.ping()
        first.send(wire.packet(wire.PUBACK, b"\x00\x01"))
        first.ping()
        self.assertEqual(broker.stop().code, 0)


class Silence(TestCase):
    def test_who_says_nothing_is_sent_away(self):
        """Without a CONNECT, or with one that never ends, a connection does not last."""
        broker = self.start(OurBroker())
        started = time.monotonic()
        peers = {name: self.peer(broker.port, hello=False, limit=30) for name in ["silent", "slow", "half"]}
        peers["half"].send(b"\x10\xff\xff\xff\x7f")
        drip = iter(wire.connect(wire.V311, "slow" * 10))
        peers["slow"].socket.setblocking(False)
        open_peers = dict(peers)
        while open_peers and time.monotonic() - started < 25:
            if "slow" in open_peers:
                try:
                    peers["slow"].socket.send(bytes([next(drip)]))
                except (ConnectionError, StopIteration):
                    pass
            for name, peer in list(open_peers.items()):
                peer.socket.settimeout(0.3)
                try:
                    if peer.socket.recv(1) == b"":
                        del open_peers[name]
                except TimeoutError:
                    pass
                except ConnectionError:
                    del open_peers[name]
        self.assertEqual(sorted(open_peers), [], "still open after 25 s")
        self.assertEqual(broker.stop().code, 0)


class Memory(TestCase):
    BOUND = 150 << 20

    def test_promised_packets_cost_nothing(self):
        """A header that promises 256 MiB does not take them."""
        broker = self.start(OurBroker())
        peers = [self.peer(broker.port, hello=False) for _ in range(200)]
        for peer in peers:
            peer.send(b"\x10\xff\xff\xff\x7f" + bytes(1000))
        time.sleep(1)
        self.assertLess(resident_bytes(broker.pid), self.BOUND)
        self.peer(broker.port).ping()
        self.assertEqual(broker.stop().code, 0)

    def test_a_reader_that_does_not_read(self):
        """What a stalled subscriber may make the broker keep has an end; others are served."""
        broker = self.start(OurBroker())
        stalled = self.peer(broker.port, wire.V311, "stalled", keep_alive=0)
        stalled.subscribe("flood", 0)
        publisher = self.peer(broker.port, wire.V311, "publisher")
        good = self.peer(broker.port, wire.V5, "good")
        good.subscribe("calm", 0)
        data = wire.publish(wire.V311, "flood", bytes(100_000))
        for _ in range(4000):  # 400 MB
            publisher.send(data)
        publisher.ping()
        good.send(wire.publish(wire.V5, "calm", b"x"))
        self.assertEqual(good.read()[0], wire.PUBLISH)
        self.assertLess(resident_bytes(broker.pid), self.BOUND)
        self.assertEqual(broker.stop().code, 0)


if __name__ == "__main__":
    main()
