"""MQTT.js against our broker: TCP, TLS, WebSocket and both, MQTT 3.1.1 and 5.0."""

import json
import os
import shutil
import subprocess
import tempfile

from harness import HOST, ConfiguredBroker, TestCase, free_port, main

CLIENT = os.environ.get("INTEROP_MQTTJS", "scripts/interop.d/mqttjs") + "/client.mjs"


class MqttJs(TestCase):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="mqttjs-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.cert, key = (os.path.join(self.directory, name) for name in ("cert.pem", "key.pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", f"subjectAltName=DNS:localhost,IP:{HOST}", "-keyout", key, "-out", self.cert],
            check=True, capture_output=True, timeout=30)
        self.ports = {protocol: free_port() for protocol in ("mqtt", "mqtts", "ws", "wss")}
        config = os.path.join(self.directory, "mqtt.toml")
        with open(config, "w") as f:
            for protocol, port in self.ports.items():
                f.write(f'[[listener]]\naddress = "{HOST}:{port}"\nprotocol = "{protocol}"\n')
                if protocol in ("mqtts", "wss"):
                    f.write(f'[listener.tls]\ncert_file = "{self.cert}"\nkey_file = "{key}"\n')
        self.start(ConfiguredBroker(self.ports["mqtt"], "--config", config))

    def talk(self, protocol, version):
        url = f"{protocol}://localhost:{self.ports[protocol]}/mqtt"
        result = self.run_program("node", CLIENT, url, version, *([self.cert] if protocol in ("mqtts", "wss") else []))
        self.assertEqual(result.code, 0, result)
        said = json.loads(result.out)
        self.assertEqual(said["granted"], [["room/+", 2], ["large", 1]])
        expected = [{"topic": f"room/{qos}", "payload": f"Grüße {qos}", "qos": qos, "retain": False} for qos in (0, 1, 2)]
        if version == "5":
            expected = [{**message, "type": "text/plain", "user": {"a": "b"}} for message in expected]
        expected.append({"topic": "large", "payload": True, "qos": 1, "retain": False})
        self.assertEqual(sorted(said["seen"], key=lambda m: m["topic"]), sorted(expected, key=lambda m: m["topic"]))

    def test_every_transport_and_version(self):
        for protocol in self.ports:
            for version in ("4", "5"):
                with self.subTest(protocol=protocol, version=version):
                    self.talk(protocol, version)


if __name__ == "__main__":
    main()
