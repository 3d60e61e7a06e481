"""Passwords, rights and settings: Mosquitto's files with our broker, ours with Mosquitto, and ACL files beside it."""

import os
import random
import shutil
import tempfile

from harness import HOST, MQTT, ConfiguredBroker, Mosquitto, TestCase, free_port, main, text, until
from wire import CONNACK, PUBACK, PUBLISH, V5, V311, Peer, connect, publish, read_publish, subscribe

SAMPLES = "/usr/share/doc/mosquitto/examples"
# What the users of the sample are called; all have this password.
SAMPLE_USERS, SAMPLE_PASSWORD = ["roger", "sub_client", "pub_client"], "password"


class Files(TestCase):
    """Tests with a directory of their own."""

    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="access-")
        # Mosquitto gives up its rights, and has to read this all the same.
        os.chmod(self.directory, 0o755)
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.port = free_port()

    def write(self, name, content):
        path = os.path.join(self.directory, name)
        with open(path, "w") as f:
            f.write(content)
        os.chmod(path, 0o644)
        return path

    def path(self, name):
        return os.path.join(self.directory, name)

    def by_mosquitto_conf(self, *lines):
        conf = self.write("mosquitto.conf", "\n".join([f"listener {self.port} {HOST}", *lines, ""]))
        return self.start(ConfiguredBroker(self.port, "--mosquitto-conf", conf, "--verbose"))

    def mosquitto(self, *lines):
        return self.start(Mosquitto(lines))

    def client(self, program, port, *options, **more):
        return self.run_program(program, "-h", HOST, "-p", port, *options, **more)

    def login(self, port, user, password, version="311"):
        """Exit code of a mosquitto_pub that logs in."""
        options = ["-u", user, "-P", password] if user else []
        version = {"311": "mqttv311", "5": "mqttv5"}[version]
        return self.client("mosquitto_pub", port, "-V", version, "-q", "1", "-t", "t", "-m", "x", *options).code


class Passwords(Files):
    def test_files_of_mosquitto_passwd(self):
        """Both formats of mosquitto_passwd 2.0, and a file that was upgraded."""
        passwords = self.write("pw", "")
        self.succeed("mosquitto_passwd", "-b", passwords, "ann", "s3:cret")
        self.succeed("mosquitto_passwd", "-b", "-H", "sha512", passwords, "bob", "pä ss")
        plain = self.write("plain", "carl:plain\n")
        self.succeed("mosquitto_passwd", "-U", plain)
        with open(plain) as more, open(passwords, "a") as f:
            f.write(more.read())
        broker = self.by_mosquitto_conf(f"password_file {passwords}")
        for version in "311", "5":
            for user, password in ("ann", "s3:cret"), ("bob", "pä ss"), ("carl", "plain"):
                self.assertEqual(self.login(broker.port, user, password, version), 0, user)
                self.assertNotEqual(self.login(broker.port, user, "wrong", version), 0, user)
            self.assertNotEqual(self.login(broker.port, "eve", "s3:cret", version), 0)
            self.assertNotEqual(self.login(broker.port, None, None, version), 0)

    def test_mosquitto_reads_files_of_ours(self):
        passwords = self.path("pw")
        self.succeed(MQTT, "passwd", "-c", "-b", "-H", "sha512-pbkdf2", passwords, "ann", "s3:cret")
        self.succeed(MQTT, "passwd", "-b", "-H", "sha512", passwords, "bob", "pä ss")
        self.write("plain", "carl:plain\n")
        self.run_program(MQTT, "passwd", "-U", "-H", "sha512-pbkdf2", self.path("plain"))
        with open(self.path("plain")) as more, open(passwords, "a") as f:
            f.write(more.read())
        os.chmod(passwords, 0o644)
        port = self.mosquitto(f"password_file {passwords}").port
        for user, password in ("ann", "s3:cret"), ("bob", "pä ss"), ("carl", "plain"):
            self.assertEqual(self.login(port, user, password), 0, user)
            self.assertNotEqual(self.login(port, user, "wrong"), 0, user)

    def test_both_edit_one_file(self):
        passwords = self.write("pw", "")
        self.succeed("mosquitto_passwd", "-b", passwords, "ann", "1")
        self.succeed(MQTT, "passwd", "-b", passwords, "bob", "2")
        self.succeed("mosquitto_passwd", "-b", passwords, "carl", "3")
        self.succeed(MQTT, "passwd", "-D", passwords, "carl")
        broker = self.by_mosquitto_conf(f"password_file {passwords}")
        self.assertEqual([self.login(broker.port, u, p) for u, p in (("ann", "1"), ("bob", "2"))], [0, 0])
        self.assertNotEqual(self.login(broker.port, "carl", "3"), 0)


class Samples(Files):
    def test_the_sample_files_as_they_are(self):
        broker = self.by_mosquitto_conf(
            f"password_file {SAMPLES}/pwfile.example", f"acl_file {SAMPLES}/aclfile.example"
        )
        for user in SAMPLE_USERS:
            self.assertEqual(self.login(broker.port, user, SAMPLE_PASSWORD), 0, user)
        # By the sample, roger alone may write foo/bar, and read it.
        reader = Peer(broker.port, V311, "r", user="roger", password=SAMPLE_PASSWORD)
        other = Peer(broker.port, V311, "o", user="sub_client", password=SAMPLE_PASSWORD)
        self.addCleanup(reader.close)
        self.addCleanup(other.close)
        for peer in reader, other:
            peer.subscribe("foo/#")
        login = lambda user: ["-u", user, "-P", SAMPLE_PASSWORD, "-q", "1", "-m", user]
        for user in SAMPLE_USERS:
            self.client("mosquitto_pub", broker.port, "-t", "foo/bar", *login(user))
        got = [read_publish(V311, flags, body)[2] for _, flags, body in reader.ping()]
        self.assertEqual(got, [b"roger"])
        self.assertEqual(other.ping(), [])

    def test_the_sample_configuration_as_it_is(self):
        result = self.run_program(MQTT, "broker", "--mosquitto-conf", f"{SAMPLES}/mosquitto.conf", "--check")
        self.assertEqual(result.code, 0, str(result))
        self.assertIn("The settings are fine", text(result.out))

    def test_the_configuration_of_the_distribution(self):
        result = self.run_program(MQTT, "broker", "--mosquitto-conf", "/etc/mosquitto/mosquitto.conf", "--check")
        self.assertEqual(result.code, 0, str(result))
        self.assertIn("persistence", text(result.out))


class Rights(Files):
    def test_clients_with_rights_of_their_own(self):
        acl = self.write(
            "acl", "topic read open/#\nuser ann\ntopic home/#\ntopic deny home/safe\npattern write dev/%c/state\n"
        )
        passwords = self.path("pw")
        self.succeed(MQTT, "passwd", "-c", "-b", passwords, "ann", "pw")
        config = self.write(
            "c.toml",
            f'[[listener]]\naddress = "{HOST}:{self.port}"\n'
            f'[security]\npassword_file = "{passwords}"\nacl_file = "{acl}"\nanonymous = true\n',
        )
        broker = self.start(ConfiguredBroker(self.port, "--config", config, "--verbose"))
        ann = ["-u", "ann", "-P", "pw", "-V", "mqttv5", "-q", "1"]
        publish = lambda topic, *who: self.client("mosquitto_pub", broker.port, "-t", topic, "-m", "x", *who)
        warning = lambda result: text(result.out + result.err)
        self.assertEqual(warning(publish("home/a", *ann)), "")
        for denied in "home/safe", "open/a", "dev/other/state":
            self.assertIn("Not authorized", warning(publish(denied, *ann)), denied)
        self.assertEqual(warning(publish("dev/d1/state", "-i", "d1", "-V", "mqttv5", "-q", "1")), "")
        # SUBSCRIBE is answered truthfully.
        for version, refusal in ("mqttv5", "135"), ("mqttv311", "128"):
            subscribe = ["-V", version, "-u", "ann", "-P", "pw", "-W", "2", "-E", "-d"]
            granted = self.client("mosquitto_sub", broker.port, "-t", "home/#", *subscribe)
            self.assertEqual(granted.code, 0, str(granted))
            refused = self.client("mosquitto_sub", broker.port, "-t", "#", *subscribe)
            self.assertIn(refusal, text(refused.out) + text(refused.err), str(refused))
        self.assertIn("Denied PUBLISH", text(broker.err()))

    def test_reloads(self):
        """What is good takes effect on live subscriptions, what is retained, and wills; what is bad changes nothing."""
        acl = self.write("acl", "topic readwrite #\n")
        broker = self.by_mosquitto_conf("allow_anonymous true", f"acl_file {acl}")
        sub = Peer(broker.port, V5, "sub", clean=False)
        self.addCleanup(sub.close)
        sub.subscribe("#")
        dying = Peer(broker.port, V5, "dying", will=("will/1", b"w", 0, False))
        pub = lambda topic, *more: self.client("mosquitto_pub", broker.port, "-t", topic, "-m", "x", *more)
        topics = lambda: [read_publish(V5, flags, body)[0] for kind, flags, body in sub.ping() if kind == PUBLISH]
        pub("a", "-r", "-q", "1")
        self.assertEqual(topics(), ["a"])

        for bad in "topics read a\n", "topic raed a\n", "topic read a#\n", "user\n":
            self.write("acl", bad)
            self.assertIn("Not reloaded", broker.reload())
            pub("b", "-q", "1")
            self.assertEqual(topics(), ["b"], bad)
        os.remove(acl)
        self.assertIn("cannot open it", broker.reload())
        os.mkdir(acl)
        self.assertIn("Not reloaded", broker.reload())
        os.rmdir(acl)

        self.write("acl", "topic read b\ntopic write b\ntopic write c\n")
        self.assertIn("Config reloaded", broker.reload())
        for topic in "abc":
            pub(topic, "-q", "1")
        dying.close()
        until(lambda: b"Denied will of dying" in broker.err(), broker.state)
        self.assertEqual(topics(), ["b"])
        late = Peer(broker.port, V5, "late")
        self.addCleanup(late.close)
        late.subscribe("a")
        self.assertEqual(late.ping(), [], "what was retained went with the right to publish it")

    def test_decisions_beside_mosquitto(self):
        """Random ACL files: both brokers allow and deny the same."""
        seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
        print(f"SEED={seed}", flush=True)
        chance = random.Random(seed)
        filters = ["a", "a/b", "a/+", "a/#", "#", "+", "+/b", "+/+", "$x/#", "$x/a", "/", "a/", "b c"]
        names = ["%u", "%c", "a/%u", "%c/#", "a/%c/+", "+/%u", "$x/%c"]
        topics = ["a", "a/b", "a/c", "b", "b/b", "$x/a", "$x/b", "/", "a/", "b c", "ann", "id1", "a/ann", "id1/z", "a/id1/q", "$x/id1", "x/ann"]
        clients = [(None, "id1"), ("ann", "id1"), ("bob", "id2"), ("a+", "id3"), ("ann", "id#"), ("eve", "id4")]
        for _ in range(6):
            lines = ["user root", "topic readwrite #", "topic readwrite $x/#"]
            mine = []
            for user in [None, "ann", "bob", "a+"]:
                if user:
                    mine.append(f"user {user}")
                mine += [self.line("topic", chance.choice(filters), chance) for _ in range(chance.randrange(4))]
            for _ in range(chance.randrange(4)):
                mine.append(self.line("pattern", chance.choice(filters + names * 2), chance))
            acl = self.write("acl", "\n".join(mine + lines) + "\n")
            self.port = free_port()
            ours = self.by_mosquitto_conf("allow_anonymous true", f"acl_file {acl}")
            theirs = self.mosquitto("allow_anonymous true", f"acl_file {acl}")
            for client in clients:
                seen = [self.decisions(broker.port, *client, topics) for broker in (ours, theirs)]
                self.assertEqual(seen[0], seen[1], f"{client} by\n" + "\n".join(mine))
            for broker in ours, theirs:
                broker.close()

    @staticmethod
    def line(word, filter, chance):
        access = chance.choice(["", "read ", "write ", "readwrite ", "deny "])
        # Without an access, a filter with a blank would be read as one.
        if " " in filter:
            access = access or "readwrite "
        return f"{word} {access}{filter}"

    def decisions(self, port, user, client, topics):
        """What the client may write, and what it may read, as the broker shows it."""
        root = Peer(port, V5, "root", user="root")
        peer = Peer(port, V5, client, user=user)
        for mid, filter in enumerate(["#", "$x/#"], 1):
            peer.send(subscribe(V5, mid, (filter, 0)))
            peer.read()
        written = []
        for mid, topic in enumerate(topics, 1):
            peer.send(publish(V5, topic, b"w", 1, mid))
            kind, body = None, b""
            while kind != PUBACK:
                kind, _, body = peer.read()
            if len(body) < 3 or body[2] < 0x80:
                written.append(topic)
        peer.ping()
        for topic in topics:
            root.send(publish(V5, topic, b"r"))
        root.ping()
        read = [read_publish(V5, flags, body)[0] for kind, flags, body in peer.ping() if kind == PUBLISH]
        for one in root, peer:
            one.close()
        return {"write": written, "read": read}


if __name__ == "__main__":
    main()
