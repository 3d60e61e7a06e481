"""The log in Mosquitto's words beside Mosquitto's own, and where it goes."""

import json
import os
import re
import shutil
import tempfile

import wire
from harness import HOST, ConfiguredBroker, Mosquitto, TestCase, free_port, main, text, until

TYPES = ["error", "warning", "notice", "information", "subscribe", "unsubscribe"]
# What is said about clients; the rest is each broker's own.
ABOUT_CLIENTS = re.compile(r"New connection |New client |Client |[a-z0-9]+ (\d )?[a-z#+/]+$")


class Logs(TestCase):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="logs-")
        # Mosquitto gives up its rights.
        os.chmod(self.directory, 0o755)
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, *lines):
        with open(self.path(name), "w") as f:
            f.write("\n".join([*lines, ""]))
        return self.path(name)

    def content(self, file):
        with open(file) as f:
            return f.read()

    def do_things(self, port):
        """Comes and goes in every way, one after the other; each ends when the broker has closed its side."""
        plain = wire.Peer(port, wire.V311, "plain", user="ann", password="pw")
        plain.subscribe("a/+", 1)
        plain.send(wire.packet(10, b"\0\x05" + wire.string("a/+"), 2))
        plain.ping()
        plain.send(wire.packet(14))
        plain.rest()
        newest = wire.Peer(port, wire.V5, "newest", user="ann", password="pw")
        newest.send(wire.packet(14))
        newest.rest()
        first = wire.Peer(port, wire.V31, "twice", user="ann", password="pw")
        second = wire.Peer(port, wire.V311, "twice", clean=False, keep_alive=7, user="ann", password="pw")
        first.rest()
        second.close()
        until(lambda: "twice closed" in self.said() or "twice disconnected" in self.said(), self.said)
        wrong = wire.Peer(port, wire.V311, "wrong", hello=False)
        wrong.send(wire.connect(wire.V311, "wrong", user="ann", password="no"))
        wrong.rest()
        for peer in (plain, newest, first, wrong):
            peer.close()

    def said(self):
        return text(self.broker.err())

    def about_clients(self, port):
        lines = []
        for line in self.said().splitlines():
            time, _, said = line.partition(": ")
            self.assertRegex(time, r"^\d{10}$", line)
            # Whoever connects and says nothing is worth a line there, and not here: load balancers do it.
            if ABOUT_CLIENTS.match(said) and said != "Client <unknown> closed its connection.":
                said = re.sub(rf"{HOST}:\d+", "ADDRESS", said)
                lines.append(said.replace(str(port), "PORT"))
        return lines

    def test_the_lines_about_clients_are_those_of_mosquitto(self):
        passwords = self.path("passwords")
        self.succeed("mosquitto_passwd", "-b", "-c", passwords, "ann", "pw")
        os.chmod(passwords, 0o644)
        options = ["allow_anonymous false", f"password_file {passwords}", *(f"log_type {kind}" for kind in TYPES)]
        self.broker = theirs = self.start(Mosquitto(options))
        self.do_things(theirs.port)
        expected = self.about_clients(theirs.port)
        port = free_port()
        conf = self.write("m.conf", f"listener {port} {HOST}", "log_dest stderr", *options)
        self.broker = self.start(ConfiguredBroker(port, "--mosquitto-conf", conf))
        self.do_things(port)
        until(lambda: len(self.about_clients(port)) >= len(expected), self.said)
        self.assertEqual(self.about_clients(port), expected)
        self.assertGreater(len(expected), 12)

    def test_a_file_and_topics_get_the_same_lines(self):
        port, file = free_port(), self.path("mqtt.log")
        conf = self.write("m.conf", f"listener {port} {HOST}", "allow_anonymous true", f"log_dest file {file}", "log_dest topic",
                          "log_dest stderr", "log_timestamp_format %Y-%m-%dT%H:%M:%S")
        self.broker = self.start(ConfiguredBroker(port, "--mosquitto-conf", conf))
        watcher = self.peer(port, wire.V311, "watcher")
        watcher.subscribe("$SYS/broker/log/#", 0)
        self.peer(port, wire.V311, "c").send(wire.packet(14))
        seen = []
        while not seen or "Client c disconnected." not in seen[-1]:
            _, flags, body = until(lambda: watcher.read(), "a line of the log")
            topic, _, payload = wire.read_publish(wire.V311, flags, body)
            seen.append(text(payload))
            # The last of what the start says may come late.
            kind = "N" if "lient" in text(payload) or "New connection" in text(payload) else "I"
            self.assertEqual(topic, f"$SYS/broker/log/{kind}")
        in_file = self.content(file)
        for line in seen:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d: ")
            self.assertIn(line + "\n", in_file)
        os.rename(file, file + ".1")
        self.assertIn("Config reloaded.", self.broker.reload())
        self.peer(port, wire.V311, "later").send(wire.packet(14))
        until(lambda: "Client later disconnected." in self.content(file), self.said)
        self.assertNotIn("later", self.content(file + ".1"))

    def test_json_is_for_programs(self):
        port = free_port()
        self.broker = self.start(ConfiguredBroker(port, "--bind", f"{HOST}:{port}", "--log-format", "json", "--verbose"))
        peer = self.peer(port, wire.V5, 'a "quoted"\nname'.replace("\n", "-"), user="ann")
        peer.subscribe("a/#", 1)
        peer.close()
        until(lambda: "closed its connection" in self.said(), self.said)
        lines = [json.loads(line) for line in self.said().splitlines()]
        by_event = {line["event"]: line for line in lines if "event" in line}
        connected = by_event["connected"]
        self.assertEqual((connected["client_id"], connected["user"], connected["level"]), ('a "quoted"-name', "ann", "INFO"))
        self.assertTrue(connected["address"].startswith(HOST))
        self.assertEqual(by_event["disconnected"]["reason"], 128)
        self.assertEqual(by_event["subscribed"]["client_id"], 'a "quoted"-name')

    def test_connections_need_not_be_told(self):
        port = free_port()
        self.broker = self.start(ConfiguredBroker(port, "--bind", f"{HOST}:{port}", "--set", "log.connections=false", "--set", "log.subscriptions=true"))
        peer = self.peer(port, wire.V5, "quiet")
        peer.subscribe("a/#", 1)
        until(lambda: "quiet 1 a/#" in self.said(), self.said)
        self.assertNotIn("connected", self.said())


if __name__ == "__main__":
    main()
