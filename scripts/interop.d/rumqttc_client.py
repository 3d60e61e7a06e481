"""rumqttc against our broker, in MQTT 3.1.1 and 5.0. The scenarios are in rumqttc/src/main.rs."""

import os

from harness import BrokerCase, main


class Rumqttc(BrokerCase):
    def scenario(self, name):
        for version in "45":
            with self.subTest(version=version):
                self.succeed(os.environ["INTEROP_RUMQTTC"], self.port, version, name, limit=70)

    def test_qos(self):
        self.scenario("qos")

    def test_retained(self):
        self.scenario("retained")

    def test_will(self):
        self.scenario("will")

    def test_session(self):
        self.scenario("session")

    def test_reconnect(self):
        self.scenario("reconnect")

    def test_flood(self):
        self.scenario("flood")


if __name__ == "__main__":
    main()
