"""A relay between a client and a broker that shows which packets passed."""

import collections
import socket
import threading

import wire
from harness import HOST, until


class Relay:
    """Listens on a port of its own, so that a test knows when a client is subscribed."""

    def __init__(self, broker_port):
        self.broker_port = broker_port
        self.from_broker, self.from_client = collections.Counter(), collections.Counter()
        self.sockets = []
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                broker = socket.create_connection((HOST, self.broker_port))
            except OSError:
                return
            self.sockets += [client, broker]
            for source, sink, seen in [(client, broker, self.from_client), (broker, client, self.from_broker)]:
                threading.Thread(target=self._copy, args=(source, sink, seen), daemon=True).start()

    @staticmethod
    def _copy(source, sink, seen):
        data = bytearray()
        try:
            while True:
                more = source.recv(65536)
                if not more:
                    break
                sink.sendall(more)
                data += more
                packets, taken = wire.split(data)
                del data[:taken]
                for kind, _, _ in packets:
                    seen[kind] += 1
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def subscribed(self, count=1, program=None):
        until(
            lambda: self.from_broker[wire.SUBACK] >= count or (program and not program.running()),
            lambda: f"no SUBACK{program.state() if program else ''}",
        )

    def cut(self):
        """Breaks every connection."""
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.cut()
        self.listener.close()
        for s in self.sockets:
            s.close()
