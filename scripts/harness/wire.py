"""Just enough of MQTT 3.1, 3.1.1 and 5.0 to drive a broker by hand, packet by packet."""

import socket
import struct

V31, V311, V5 = 3, 4, 5

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = range(1, 10)
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(10, 16)


def varint(n):
    out = bytearray()
    while True:
        n, digit = n >> 7, n & 0x7F
        out.append(digit | (0x80 if n else 0))
        if not n:
            return bytes(out)


def string(s):
    data = s.encode() if isinstance(s, str) else s
    return struct.pack(">H", len(data)) + data


def packet(kind, body=b"", flags=0):
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def properties(version, data=b""):
    return varint(len(data)) + data if version == V5 else b""


def connect(version, client="", clean=True, keep_alive=60, props=b"", will=None, user=None, password=None):
    """`will` is (topic, payload, qos, retain)."""
    flags = 2 if clean else 0
    body = string(client)
    if will:
        topic, payload, qos, retain = will
        flags |= 4 | qos << 3 | (32 if retain else 0)
        body += properties(version) + string(topic) + string(payload)
    for flag, field in (128, user), (64, password):
        if field is not None:
            flags |= flag
            body += string(field)
    name = "MQIsdp" if version == V31 else "MQTT"
    head = string(name) + bytes([version, flags]) + struct.pack(">H", keep_alive)
    return packet(CONNECT, head + properties(version, props) + body)


def publish(version, topic, payload=b"", qos=0, mid=None, retain=False, dup=False, props=b""):
    flags = qos << 1 | (1 if retain else 0) | (8 if dup else 0)
    mid = struct.pack(">H", mid) if qos else b""
    return packet(PUBLISH, string(topic) + mid + properties(version, props) + payload, flags)


def subscribe(version, mid, *filters, props=b""):
    """Each filter is (filter, options)."""
    body = b"".join(string(f) + bytes([options]) for f, options in filters)
    return packet(SUBSCRIBE, struct.pack(">H", mid) + properties(version, props) + body, 2)


def ack(kind, mid):
    return packet(kind, struct.pack(">H", mid), 2 if kind == PUBREL else 0)


def split(data):
    """The packets in `data` as (kind, flags, body), and how many bytes they are."""
    packets, at = [], 0
    while len(data) - at >= 2:
        length, shift, i = 0, 0, at + 1
        while i < len(data):
            length |= (data[i] & 0x7F) << shift
            shift += 7
            i += 1
            if not data[i - 1] & 0x80:
                break
        else:
            break
        if len(data) - i < length:
            break
        packets.append((data[at] >> 4, data[at] & 15, bytes(data[i : i + length])))
        at = i + length
    return packets, at


def read_publish(version, flags, body):
    """(topic, packet id or None, payload) of a PUBLISH; properties are passed over."""
    n = struct.unpack_from(">H", body)[0]
    topic, at, mid = body[2 : 2 + n].decode(), 2 + n, None
    if flags & 6:
        mid = struct.unpack_from(">H", body, at)[0]
        at += 2
    if version == V5:
        length, shift = 0, 0
        while True:
            digit = body[at]
            length |= (digit & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not digit & 0x80:
                break
        at += length
    return topic, mid, body[at:]


class Peer:
    """A blocking connection that sends what it is told, and nothing else."""

    def __init__(self, port, version=V311, client="", hello=True, limit=20.0, **more):
        self.version, self.data, self.packets = version, bytearray(), []
        self.socket = socket.create_connection(("127.0.0.1", port), limit)
        self.socket.settimeout(limit)
        if hello:
            self.send(connect(version, client, **more))
            kind, _, body = self.read()
            if kind != CONNACK or body[1] != 0:
                raise AssertionError(f"refused: packet {kind}, {body.hex()}")

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        """The next packet; EOFError when there is none any more."""
        while not self.packets:
            self.packets, taken = split(self.data)
            del self.data[:taken]
            if self.packets:
                break
            try:
                more = self.socket.recv(65536)
            except ConnectionError:
                more = b""
            if not more:
                raise EOFError
            self.data += more
        return self.packets.pop(0)

    def rest(self):
        """All packets up to the end of the connection."""
        packets = []
        try:
            while True:
                packets.append(self.read())
        except EOFError:
            return packets

    def ping(self):
        """Proves that the broker still serves this connection; returns what came before the answer."""
        self.send(packet(PINGREQ))
        before = []
        while True:
            got = self.read()
            if got[0] == PINGRESP:
                return before
            before.append(got)

    def subscribe(self, filter, options=0):
        self.send(subscribe(self.version, 1, (filter, options)))
        kind, _, body = self.read()
        if kind != SUBACK or body[-1] >= 0x80:
            raise AssertionError(f"not subscribed: packet {kind}, {body.hex()}")

    def close(self):
        self.socket.close()
