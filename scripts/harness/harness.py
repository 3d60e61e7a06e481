"""What the interop and heavy tests share: programs under test with time limits, and clean ends.

The tests are `unittest` cases. Brokers listen on free ports of 127.0.0.1, every wait has a limit,
and whatever a test starts is killed when it ends.
"""

import faulthandler
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import wire

# Nothing is kept unless a test says where.
os.environ.setdefault("MQTT_DATA", "none")

MQTT = os.environ.get("MQTT_BIN", "mqtt")
EXAMPLE = os.environ.get("BROKER_EXAMPLE")
EXAMPLES = os.environ.get("EXAMPLES", "target/debug/examples")
HOST = "127.0.0.1"
LIMIT = 20.0  # seconds that anything may take, unless a test says otherwise


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def until(condition, what, limit=LIMIT):
    """Waits until `condition()` is true and returns what it returned."""
    deadline = time.monotonic() + limit
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit} s: {what() if callable(what) else what}")
        time.sleep(0.01)


def text(data):
    return data.decode("utf-8", "replace")


class Result:
    """How a program ended."""

    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    def __str__(self):
        command = " ".join(a if len(a) < 200 else a[:200] + "..." for a in self.args)
        return f"$ {command}\nexit code {self.code}\nstdout: {text(self.out)[-2000:]}\nstderr: {text(self.err)[-2000:]}"


class Program:
    """A running program. Its output goes to files, so it never blocks on a pipe."""

    def __init__(self, args, input=None, preexec=None, env=None, close_fds=True):
        self.args = [str(a) for a in args]
        self.out_file, self.err_file = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        stdin = subprocess.DEVNULL
        if input is not None:
            stdin = tempfile.TemporaryFile()
            stdin.write(input)
            stdin.seek(0)
        self.child = subprocess.Popen(
            self.args,
            stdin=stdin,
            stdout=self.out_file,
            stderr=self.err_file,
            preexec_fn=preexec,
            close_fds=close_fds,
            env={**os.environ, **(env or {})},
        )
        if input is not None:
            stdin.close()

    @property
    def pid(self):
        return self.child.pid

    def out(self):
        return self._read(self.out_file)

    def err(self):
        return self._read(self.err_file)

    @staticmethod
    def _read(file):
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)

    def running(self):
        return self.child.poll() is None

    def state(self):
        return Result(self.args, self.child.poll(), self.out(), self.err())

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, limit=LIMIT):
        """Waits for its end."""
        try:
            code = self.child.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {limit} s:\n{self.state()}") from None
        return Result(self.args, code, self.out(), self.err())

    def close(self):
        if self.running():
            self.child.kill()
        self.child.wait()
        self.out_file.close()
        self.err_file.close()


class Broker(Program):
    """A broker under test, ready to serve."""

    name = "a broker"

    def __init__(self, args, port, **more):
        super().__init__(args, **more)
        self.port = port
        try:
            until(lambda: self._reachable() or not self.running(), lambda: f"{self.name} on port {port}: {self.state()}")
            if not self.running():
                raise AssertionError(f"{self.name} did not start:\n{self.state()}")
        except BaseException:
            self.close()
            raise

    def _reachable(self):
        try:
            socket.create_connection((HOST, self.port), 1).close()
            return True
        except OSError:
            return False

    def kill(self):
        """Ends it the way a power cut would."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def stop(self):
        """Asks it to stop."""
        self.signal(signal.SIGTERM)
        return self.wait()


class OurBroker(Broker):
    """The broker of this workspace: the program, or what `BROKER_EXAMPLE` names, an example that takes
    the address to listen on and knows no signals."""

    name = EXAMPLE or "mqtt broker"

    def __init__(self, port=None, options=(), **more):
        port = port or free_port()
        address = f"{HOST}:{port}"
        command = [MQTT, "broker", "--bind", address, "--quiet", "--data", "none", *options]
        if EXAMPLE:
            if options:
                raise unittest.SkipTest("an example has no options")
            command = [EXAMPLE, address]
        super().__init__(command, port, **more)

    def stop(self):
        result = super().stop()
        if EXAMPLE and result.code == -signal.SIGTERM:
            result.code = 0
        return result


class Mosquitto(Broker):
    """The broker of the distribution."""

    name = "mosquitto"

    def __init__(self, lines=("allow_anonymous true",), port=None):
        port = port or free_port()
        self.directory = tempfile.mkdtemp(prefix="mosquitto-")
        # It may give up its rights, and has to read this all the same.
        os.chmod(self.directory, 0o755)
        config = os.path.join(self.directory, "mosquitto.conf")
        with open(config, "w") as f:
            f.write("\n".join([f"listener {port} {HOST}", "persistence false", "log_dest stderr", *lines, ""]))
        super().__init__(["mosquitto", "-c", config], port)

    def close(self):
        super().close()
        shutil.rmtree(self.directory, ignore_errors=True)


class ConfiguredBroker(Broker):
    """The broker of this workspace, with a file of settings that names its listener."""

    name = "mqtt broker"

    def __init__(self, port, *options, **more):
        super().__init__([MQTT, "broker", "--data", "none", *options], port, **more)

    def reload(self):
        """Has it read its settings again, and waits for what it says about it."""
        before = len(self.err())
        self.signal(signal.SIGHUP)

        def answer():
            said = self.err()[before:]
            return said if b"Config reloaded." in said or b"Not reloaded" in said else None

        return text(until(answer, self.state))


class TestCase(unittest.TestCase):
    """A test that ends what it started."""

    maxDiff = 4000

    def setUp(self):
        faulthandler.dump_traceback_later(180, exit=True)
        self.addCleanup(faulthandler.cancel_dump_traceback_later)

    def start(self, program):
        """Ends the program when the test ends."""
        self.addCleanup(program.close)
        return program

    def peer(self, port, *args, **more):
        """A connection that speaks MQTT by hand, closed when the test ends."""
        peer = wire.Peer(port, *args, **more)
        self.addCleanup(peer.close)
        return peer

    def spawn(self, *args, **more):
        return self.start(Program(args, **more))

    def run_program(self, *args, limit=LIMIT, **more):
        """Runs a program to its end, whatever it is."""
        program = Program(args, **more)
        try:
            return program.wait(limit)
        finally:
            program.close()

    def succeed(self, *args, **more):
        """Runs a program, which has to succeed without complaint."""
        result = self.run_program(*args, **more)
        self.assertEqual((result.code, result.err), (0, b""), str(result))
        return result

    def topic(self, last=""):
        """A topic of this test's own."""
        own = self.id().rsplit(".", 2)
        return "/".join(["test", own[-2], own[-1]] + ([last] if last else []))


class BrokerCase(TestCase):
    """Tests that share one broker of ours, which must live through them all."""

    @classmethod
    def make_broker(cls):
        return OurBroker()

    @classmethod
    def setUpClass(cls):
        cls.broker = cls.make_broker()
        cls.addClassCleanup(cls.broker.close)

    def setUp(self):
        super().setUp()
        self.assertTrue(self.broker.running(), f"the broker is gone:\n{self.broker.state()}")

    @classmethod
    def tearDownClass(cls):
        result = cls.broker.stop()
        if result.code != 0 or b"panicked" in result.err:
            raise AssertionError(f"the broker did not end well:\n{result}")

    @property
    def port(self):
        return self.broker.port


def main():
    """Runs the tests of the calling file."""
    unittest.main(verbosity=2, argv=sys.argv)
