"""TLS with mosquitto's clients and openssl, certificates changed under a live connection, PROXY headers."""

import fcntl
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

from harness import HOST, MQTT, ConfiguredBroker, Program, TestCase, free_port, main, until

PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([203, 0, 113, 7, 127, 0, 0, 1, 0x12, 0x67, 7, 0x5B])
CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"


class Transports(TestCase):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="transports-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                     "-subj", "/CN=authority", "-keyout", self.path("ca.key"), "-out", self.path("ca.pem"))
        self.issue("server", "/CN=localhost", f"subjectAltName=DNS:localhost,IP:{HOST}")
        self.issue("alice", "/O=Example/CN=alice", "extendedKeyUsage=clientAuth")

    def path(self, name):
        return os.path.join(self.directory, name)

    def openssl(self, *args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=30)

    def issue(self, name, subject, extension):
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
                     "-keyout", self.path(name + ".key"), "-out", self.path(name + ".csr"))
        with open(self.path("ext"), "w") as f:
            f.write(extension + "\n")
        self.openssl("x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.path("ca.pem"), "-CAkey",
                     self.path("ca.key"), "-days", "30", "-extfile", self.path("ext"), "-out", self.path(name + ".pem"))

    def broker(self, listener):
        self.port = free_port()
        config = self.path("mqtt.toml")
        with open(config, "w") as f:
            f.write(f'[[listener]]\naddress = "{HOST}:{self.port}"\n{listener}\n')
        return self.start(ConfiguredBroker(self.port, "--config", config, "--verbose"))

    def tls(self, *more):
        files = f'cert_file = "{self.path("server.pem")}"\nkey_file = "{self.path("server.key")}"'
        return "\n".join(['protocol = "mqtts"', "[listener.tls]", files, *more])

    def client(self, *more):
        return ["-h", "localhost", "-p", self.port, "--cafile", self.path("ca.pem"), *more]

    def publish(self, *more):
        return self.run_program("mosquitto_pub", *self.client(*more), "-t", "t", "-m", "hello")

    def test_mosquitto_speaks_tls_with_us(self):
        self.broker(self.tls())
        self.assertEqual(self.publish().code, 0)
        self.assertEqual(self.publish("--tls-version", "tlsv1.2").code, 0)
        self.succeed(MQTT, "pub", *self.client("-t", "t", "-m", "hello"))
        self.assertNotEqual(self.run_program(MQTT, "pub", "-h", "localhost", "-p", self.port, "-t", "t", "-m", "x").code, 0)

    def test_certificates_name_users(self):
        broker = self.broker(self.tls(f'ca_file = "{self.path("ca.pem")}"', "[listener.security]", 'certificate_name = "common-name"'))
        self.assertEqual(self.publish("--cert", self.path("alice.pem"), "--key", self.path("alice.key")).code, 0)
        self.assertIn(b"u'alice'", broker.err())
        self.assertNotEqual(self.publish().code, 0)

    def test_new_certificates_cost_no_connection(self):
        broker = self.broker(self.tls())
        subscriber = self.spawn("mosquitto_sub", *self.client("-t", "t", "-C", "3"))
        until(lambda: b" 0 t\n" in broker.err(), broker.state)
        for _ in range(3):
            self.issue("server", "/CN=localhost", f"subjectAltName=DNS:localhost,IP:{HOST}")
            self.assertIn("Config reloaded.", broker.reload())
            self.assertEqual(self.publish().code, 0)
        result = subscriber.wait()
        self.assertEqual((result.code, result.out), (0, b"hello\n" * 3))

    def test_new_certificates_cost_nothing_under_load(self):
        broker = self.broker(self.tls())
        load = self.spawn(MQTT, "bench", "publish", *self.client("-n", "50", "-q", "1", "--duration", "4", "--json"))
        until(lambda: broker.err().count(b"New client connected") >= 50, broker.state)
        before = broker.err().count(b"New client connected")
        changed = 0
        while load.running():
            self.issue("server", "/CN=localhost", f"subjectAltName=DNS:localhost,IP:{HOST}")
            self.assertIn("Config reloaded.", broker.reload())
            self.assertIn(b"Verification: OK", self.s_client())
            changed += 1
        result = load.wait()
        self.assertEqual(result.code, 0, result)
        self.assertGreater(changed, 3)
        # Nobody but openssl has come since, and nobody was sent away.
        self.assertEqual(broker.err().count(b"New client connected"), before + changed)
        self.assertNotIn(b"refused", broker.err())
        report = json.loads(result.out)
        self.assertGreater(report["sent"], 1000, result)
        self.assertEqual((report["connected"], report["refused"], report["lagged"]), (50, 0, 0), result)

    def s_client(self, *more):
        """What openssl says of a connection on which it sends CONNECT and waits for the CONNACK."""
        command = ["openssl", "s_client", "-connect", f"localhost:{self.port}", "-CAfile", self.path("ca.pem"), "-servername", "localhost", *more]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            child.stdin.write(CONNECT)
            child.stdin.flush()
            said = b""
            while b"\x20\x02\x00\x00" not in said:
                more = os.read(child.stdout.fileno(), 65536)
                if not more:
                    return said
                said += more
            return said
        finally:
            child.kill()
            child.communicate()

    def test_openssl_speaks_tls_with_us(self):
        self.broker(self.tls())
        for version, name in (("-tls1_3", b"TLSv1.3"), ("-tls1_2", b"TLSv1.2")):
            said = self.s_client(version)
            self.assertIn(name, said)
            self.assertIn(b"Verification: OK", said)
            self.assertIn(b"\x20\x02\x00\x00", said)
        self.assertNotIn(b"\x20\x02\x00\x00", self.s_client("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"))

    def test_a_service_manager_passes_sockets(self):
        listening = socket.socket()
        listening.bind((HOST, 0))
        listening.listen()
        self.port = listening.getsockname()[1]
        path = self.path("mqtt.sock")
        local = socket.socket(socket.AF_UNIX)
        local.bind(path)
        local.listen()
        self.addCleanup(listening.close)
        self.addCleanup(local.close)
        # Whoever connects before the broker is there waits in the socket.
        early = self.peer(self.port, hello=False)
        early.send(CONNECT)

        def pass_sockets():
            # Out of the way first: they may have these numbers already.
            copies = [fcntl.fcntl(passed.fileno(), fcntl.F_DUPFD, 100) for passed in (listening, local)]
            for number, copy in enumerate(copies, 3):
                os.dup2(copy, number, inheritable=True)

        # The shell has the number of the process that it becomes.
        command = 'LISTEN_PID=$$ LISTEN_FDS=2 exec "$@"'
        broker = self.start(Program(["sh", "-c", command, "sh", MQTT, "broker", "--data", "none"], preexec=pass_sockets, close_fds=False))
        self.assertEqual(early.read()[2], b"\0\0")
        self.assertEqual(self.run_program("mosquitto_pub", "--unix", path, "-t", "t", "-m", "x").code, 0)
        self.assertIn(f"Listening on {HOST}:{self.port}.".encode(), broker.err())
        self.assertIn(f"Listening on unix:{path}.".encode(), broker.err())
        broker.signal(15)
        self.assertEqual(broker.wait().code, 0)
        self.assertTrue(os.path.exists(path), "it is the service manager's")

    def test_a_web_service_is_asked_by_tls(self):
        asked = []

        class Service(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append(question["user_name"])
                self.send_response(204 if question["user_name"] == "ann" else 403)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer((HOST, 0), Service)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path("server.pem"), self.path("server.key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        url = f"https://localhost:{server.server_address[1]}/ask"
        hook = f'[listener.security.webhook]\nconnect_url = "{url}"'
        plain = ["mosquitto_pub", "-h", HOST, "-t", "t", "-m", "x", "-P", "pw"]
        self.broker(f'{hook}\nca_file = "{self.path("ca.pem")}"')
        self.assertEqual(self.run_program(*plain, "-p", self.port, "-u", "ann").code, 0)
        self.assertNotEqual(self.run_program(*plain, "-p", self.port, "-u", "bob").code, 0)
        self.assertEqual(asked, ["ann", "bob"])
        # To the system's authorities it is nobody.
        broker = self.broker(hook)
        self.assertNotEqual(self.run_program(*plain, "-p", self.port, "-u", "ann").code, 0)
        self.assertEqual(asked, ["ann", "bob"])
        self.assertIn(b"invalid peer certificate: UnknownIssuer", broker.err())

    def test_a_proxy_says_where_clients_are(self):
        broker = self.broker(f'proxy_protocol = ["{HOST}"]\n[listener.security]\nanonymous = true')
        for header in [b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 1883\r\n", PROXY_V2]:
            with socket.create_connection((HOST, self.port), timeout=10) as s:
                s.sendall(header + CONNECT)
                self.assertEqual(s.recv(4), b"\x20\x02\0\0")
        self.assertEqual(broker.err().count(b"connected from 203.0.113.7:4711"), 2)
        with socket.create_connection((HOST, self.port), timeout=10) as s:
            s.sendall(CONNECT)
            self.assertEqual(s.recv(4), b"")


if __name__ == "__main__":
    main()
