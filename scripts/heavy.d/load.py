"""1,000 clients at once: no message lost, none twice, none out of order."""

import asyncio
import collections
import os
import resource
import struct

import wire
from harness import HOST, BrokerCase, OurBroker, main

CLIENTS = 1000
MESSAGES = 100  # that each client sends
WINDOW = 8  # unacknowledged at a time
LIMIT = 120.0

VERSIONS = [wire.V31, wire.V311, wire.V5]


class Client(asyncio.Protocol):
    """A client that checks each message as it comes."""

    def __init__(self, number, prefix, failures):
        self.version = VERSIONS[number % 3]
        self.number, self.prefix, self.failures = number, prefix, failures
        self.data = bytearray()
        loop = asyncio.get_running_loop()
        self.ready, self.sent_all = loop.create_future(), loop.create_future()
        self.unacknowledged, self.to_send = collections.OrderedDict(), collections.deque()
        self.received = collections.Counter()  # publisher: messages so far
        self.closing = False
        self.mid = 0

    def topic(self, number):
        return f"{self.prefix}/{number}"

    def connection_made(self, transport):
        self.transport = transport
        transport.write(wire.connect(self.version, f"{self.prefix}-{self.number}"))

    def connection_lost(self, error):
        if not self.closing:
            self.fail(f"connection lost: {error}")

    def fail(self, why):
        self.failures.append(f"client {self.number} (version {self.version}): {why}")
        for future in (self.ready, self.sent_all):
            if not future.done():
                future.set_result(None)

    def data_received(self, data):
        self.data += data
        packets, taken = wire.split(self.data)
        del self.data[:taken]
        for kind, flags, body in packets:
            self.packet(kind, flags, body)

    def packet(self, kind, flags, body):
        if kind == wire.CONNACK:
            if body[1]:
                return self.fail(f"refused: {body.hex()}")
            filters = [(self.topic(self.number), 1), (self.topic("all"), 1)]
            self.transport.write(wire.subscribe(self.version, 1, *filters))
        elif kind == wire.SUBACK:
            if body[-2:] != b"\x01\x01":
                return self.fail(f"not subscribed: {body.hex()}")
            self.ready.set_result(None)
        elif kind == wire.PUBLISH:
            if flags & 8:
                self.fail("sent twice over a connection that never broke")
            topic, mid, payload = wire.read_publish(self.version, flags, body)
            publisher, sequence = struct.unpack_from(">II", payload)
            if sequence != self.received[publisher, topic]:
                self.fail(f"{topic} from {publisher}: {sequence} instead of {self.received[publisher, topic]}")
            self.received[publisher, topic] += 1
            self.transport.write(wire.ack(wire.PUBACK, mid))
        elif kind == wire.PUBACK:
            mid = struct.unpack_from(">H", body)[0]
            if len(body) > 2 and body[2] >= 0x80:
                self.fail(f"message refused: {body.hex()}")
            if self.unacknowledged.pop(mid, None) is None:
                self.fail(f"PUBACK for {mid}, which is not in use")
            self.flush()
        else:
            self.fail(f"unexpected packet {kind}: {body.hex()}")

    def send(self, topic, count, start=0):
        padding = bytes(32)
        self.to_send.extend((topic, struct.pack(">II", self.number, n) + padding) for n in range(start, start + count))
        self.flush()

    def flush(self):
        while self.to_send and len(self.unacknowledged) < WINDOW:
            topic, payload = self.to_send.popleft()
            self.mid = self.mid % 65535 + 1
            self.unacknowledged[self.mid] = True
            self.transport.write(wire.publish(self.version, topic, payload, 1, self.mid))
        if not self.to_send and not self.unacknowledged and not self.sent_all.done():
            self.sent_all.set_result(None)

    def close(self):
        self.closing = True
        self.transport.write(wire.packet(wire.DISCONNECT))
        self.transport.close()


class Load(BrokerCase):
    @classmethod
    def make_broker(cls):
        # Sockets here and in the broker, which inherits the limit, and some to spare.
        needed = CLIENTS + 256
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise AssertionError(f"{needed} file descriptors are needed, and the hard limit is {hard}")
        if soft != resource.RLIM_INFINITY and soft < needed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        return OurBroker()

    async def clients(self, prefix, failures):
        loop = asyncio.get_running_loop()
        clients = []
        for number in range(CLIENTS):
            _, client = await loop.create_connection(lambda: Client(number, prefix, failures), HOST, self.port)
            clients.append(client)
        await asyncio.gather(*[c.ready for c in clients])
        return clients

    async def received(self, clients, topic, publisher, count, failures):
        """Waits for what was sent; what is too much fails as it comes."""
        while not failures:
            if all(c.received[publisher(c), topic(c)] == count for c in clients):
                # Anything twice would come now.
                await asyncio.sleep(0.5)
                if all(c.received[publisher(c), topic(c)] == count for c in clients):
                    return
                failures.append("more messages than were sent")
            await asyncio.sleep(0.05)

    def drive(self, scenario):
        failures = []

        async def limited():
            await asyncio.wait_for(scenario(failures), LIMIT)

        try:
            asyncio.run(limited())
        except asyncio.TimeoutError:
            failures.append(f"not done after {LIMIT} s")
        self.assertEqual(failures[:10], [])

    def test_everybody_to_the_next(self):
        """Each client sends to its neighbour, all at once."""

        async def scenario(failures):
            clients = await self.clients("ring", failures)
            for c in clients:
                c.send(c.topic((c.number + 1) % CLIENTS), MESSAGES)
            await asyncio.gather(*[c.sent_all for c in clients])
            await self.received(
                clients, lambda c: c.topic(c.number), lambda c: (c.number - 1) % CLIENTS, MESSAGES, failures
            )
            for c in clients:
                c.close()

        self.drive(scenario)

    def test_one_to_everybody(self):
        """What one client sends reaches all of them."""

        async def scenario(failures):
            clients = await self.clients("fan", failures)
            clients[0].send(clients[0].topic("all"), MESSAGES)
            await clients[0].sent_all
            await self.received(clients, lambda c: c.topic("all"), lambda c: 0, MESSAGES, failures)
            for c in clients:
                c.close()

        self.drive(scenario)

    def test_connect_storm(self):
        """5,000 connections that come and go; the broker keeps nothing of them."""

        def descriptors():
            return len(os.listdir(f"/proc/{self.broker.pid}/fd"))

        async def one(gate, number):
            async with gate:
                reader, writer = await asyncio.open_connection(HOST, self.port)
                version = VERSIONS[number % 3]
                writer.write(wire.connect(version, f"storm-{number}"))
                answer = await reader.readexactly(2)
                body = await reader.readexactly(answer[1])
                if answer[0] >> 4 != wire.CONNACK or body[1]:
                    raise AssertionError(f"refused: {body.hex()}")
                if number % 2:
                    writer.write(wire.packet(wire.DISCONNECT))
                else:
                    writer.transport.abort()
                writer.close()

        async def at_rest():
            """How many there are when that has not changed for half a second."""
            count, same = descriptors(), 0
            while same < 10:
                await asyncio.sleep(0.05)
                now = descriptors()
                count, same = now, same + 1 if now == count else 0
            return count

        async def scenario(failures):
            gate = asyncio.Semaphore(200)
            # The port is open before every shard has what it works with; who was answered by each has seen that.
            await asyncio.gather(*[one(gate, n) for n in range(5000, 5064)])
            before = await at_rest()
            await asyncio.gather(*[one(gate, n) for n in range(5000)])
            for _ in range(200):
                if descriptors() <= before:
                    return
                await asyncio.sleep(0.05)
            failures.append(f"{descriptors()} file descriptors open, before it were {before}")

        self.drive(scenario)


if __name__ == "__main__":
    main()
