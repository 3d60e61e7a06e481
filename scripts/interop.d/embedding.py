"""The examples, as their first lines say how to use them: clients, a proxy, a broker inside a program.

All tests of mosquitto's clients run through the proxy once more: what it passes on is what was sent.
"""

import os

import mosquitto_clients
from harness import EXAMPLES, HOST, Broker, BrokerCase, OurBroker, free_port, main, text, until


def example(name):
    return os.path.join(EXAMPLES, name)


class Proxy(Broker):
    """The example proxy before a broker of ours."""

    name = "the proxy"

    def __init__(self):
        self.broker = OurBroker()
        port = free_port()
        try:
            super().__init__([example("proxy"), f"{HOST}:{port}", f"{HOST}:{self.broker.port}"], port)
        except BaseException:
            self.broker.close()
            raise

    def stop(self):
        result = super().stop()
        stopped = self.broker.stop()
        # The proxy knows no signals; how the broker ended is what counts.
        result.code = stopped.code
        result.err += stopped.err
        return result

    def close(self):
        super().close()
        self.broker.close()


class ThroughProxy:
    @classmethod
    def make_broker(cls):
        return Proxy()


class V31ThroughProxy(ThroughProxy, mosquitto_clients.V31):
    pass


class V311ThroughProxy(ThroughProxy, mosquitto_clients.V311):
    pass


class V5ThroughProxy(ThroughProxy, mosquitto_clients.V5):
    pass


class Clients(BrokerCase):
    """Clients that greet themselves."""

    def test_in_memory(self):
        out = text(self.succeed(example("in_memory")).out)
        for line in ("client -> broker  CONNECT 5.0", "broker -> client  PUBLISH meters/17 q2", "the application got"):
            self.assertIn(line, out)

    def test_blocking_client(self):
        result = self.succeed(example("blocking_client"), f"{HOST}:{self.port}")
        self.assertEqual(text(result.out), 'hello/world: b"Hello!"\nthe application disconnected\n')

    def test_clients_of_the_adapters(self):
        for name in ("client", "async_std_client"):
            with self.subTest(name):
                result = self.succeed(example(name), f"mqtt://{HOST}:{self.port}")
                self.assertEqual(text(result.out), 'hello/world: b"Hi!"\n')

    def test_the_proxy_prints_both_directions(self):
        port = free_port()
        proxy = self.start(Broker([example("proxy"), f"{HOST}:{port}", f"{HOST}:{self.port}"], port))
        self.succeed("mosquitto_pub", "-h", HOST, "-p", port, "-V", "5", "-t", "a/b", "-m", "hi", "-q", "2")
        lines = (
            "client -> server  CONNECT 5.0",
            "server -> client  CONNACK 00",
            'client -> server  PUBLISH a/b q2 #1 "hi"',
            "server -> client  PUBREC #1",
            "client -> server  PUBREL #1",
            "client -> server  DISCONNECT 00",
        )
        until(lambda: all(line in text(proxy.out()) for line in lines), proxy.state)


class BrokerInAProgram(BrokerCase):
    """The program decides, publishes and subscribes."""

    @classmethod
    def make_broker(cls):
        port = free_port()
        broker = Broker([example("broker"), f"{HOST}:{port}"], port)
        # It knows no signals.
        stop = broker.stop
        broker.stop = lambda: setattr(result := stop(), "code", 0) or result
        return broker

    def mosquitto(self, name, *options, password="secret"):
        return [name, "-h", HOST, "-p", self.port, "-u", "alice", "-P", password, *options]

    def test_who_knows_the_password_is_welcome(self):
        result = self.run_program(*map(str, self.mosquitto("mosquitto_pub", "-t", "hello", "-m", "no", password="guess")))
        self.assertNotEqual(result.code, 0)
        self.succeed(*self.mosquitto("mosquitto_pub", "-t", "hello", "-m", "Hi!"))
        until(lambda: b"hello: Hi!" in self.broker.out(), self.broker.state)
        self.assertNotIn(b"hello: no", self.broker.out())

    def test_the_program_publishes(self):
        result = self.succeed(*self.mosquitto("mosquitto_sub", "-t", "clock", "-C", "2"))
        first, second = map(int, result.out.split())
        self.assertEqual(second, first + 1)


# Only subclasses of these run.
del BrokerCase

if __name__ == "__main__":
    main()
