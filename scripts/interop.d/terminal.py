"""`mqtt top` in a terminal of its own."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios

from harness import HOST, MQTT, ConfiguredBroker, TestCase, free_port, main, text, until


class Terminal:
    """A program in a pseudoterminal."""

    def __init__(self, *args, rows=40, columns=120):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color"}
        self.child = subprocess.Popen([str(a) for a in args], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=env)
        os.close(theirs)
        self.rows, self.columns = rows, columns
        self.pending, self.all = b"", b""
        self.cells = {}
        self.at = (1, 1)

    def read(self):
        """Takes what the program wrote: text, and where the cursor goes; all else is for the eye only."""
        while select.select([self.ours], [], [], 0)[0]:
            try:
                self.pending += os.read(self.ours, 65536)
            except OSError:
                break  # The program has ended.
        self.all += self.pending
        written, self.pending = self.pending.decode("utf-8", "ignore"), b""
        for move, other, character in re.findall(r"\x1b\[(\d+;\d+)H|(\x1b\[[?\d;]*[A-Za-z])|([^\x1b])", written):
            row, column = self.at
            if move:
                self.at = tuple(int(part) for part in move.split(";"))
            elif other.endswith("J"):
                self.cells.clear()
            elif character:
                self.cells[row, column] = character
                self.at = (row, column + 1)

    def screen(self):
        self.read()
        lines = range(1, self.rows + 1)
        return "\n".join("".join(self.cells.get((row, column), " ") for column in range(1, self.columns + 1)) for row in lines)

    def wait(self, *parts):
        until(lambda: all(part in self.screen() for part in parts), lambda: f"{parts} in\n{self.screen()}")

    def press(self, keys):
        os.write(self.ours, keys.encode())

    def close(self):
        self.child.kill()
        self.child.wait()
        os.close(self.ours)


class Top(TestCase):
    def setUp(self):
        super().setUp()
        self.port, self.http = free_port(), free_port()
        self.broker = self.start(ConfiguredBroker(self.port, "--bind", f"{HOST}:{self.port}", "--http", f"{HOST}:{self.http}"))
        said = until(lambda: next((line for line in text(self.broker.err()).split() if "#token=" in line), None), self.broker.state)
        self.url, self.token = said, said.split("#token=")[1]

    def open(self, *args):
        terminal = Terminal(MQTT, "top", *args)
        self.addCleanup(terminal.close)
        return terminal

    def test_it_shows_and_acts_by_keys(self):
        client = self.spawn("mosquitto_sub", "-h", HOST, "-p", self.port, "-i", "watched", "-t", "#", "-d")
        until(lambda: b" as watched " in self.broker.err(), self.broker.state)
        top = self.open(self.url)
        top.wait("Overview", "Clients", f"http://{HOST}:{self.http}", "Messages in", "1 connected, 1 sessions")
        self.assertNotIn(self.token.encode(), top.all)
        top.press("2")
        top.wait("1 clients, by name", "watched")
        top.press("jd")
        top.wait("Close the connection of watched?")
        top.press("n")
        top.wait("d disconnect")
        self.assertNotIn(b"administrative", self.broker.err())
        top.press("d")
        top.wait("Close the connection of watched?")
        top.press("y")
        until(lambda: b"Client watched" in self.broker.err() and b"administrative action" in self.broker.err(), self.broker.state)
        # mosquitto_sub comes back by itself.
        top.press("3")
        top.wait("subscriptions", "Filter", "watched")
        self.run_program("mosquitto_pub", "-h", HOST, "-p", self.port, "-t", "kept/here", "-m", "twelve bytes", "-q", 1, "-r")
        top.press("\t")
        top.wait("1 retained messages", "kept/here", "12 B")
        top.press("jx")
        top.wait("Remove the retained message of kept/here?")
        top.press("y")
        top.wait("0 retained messages")
        top.press("q")
        self.assertEqual(top.child.wait(10), 0)
        client.signal(15)

    def test_what_is_wrong_is_said_before_the_screen_is_taken(self):
        bare = self.url.split("/#")[0]
        for args, problem in (
            ((bare,), "wants another token"),
            ((bare, "--token", "wrong-wrong-wrong-wrong"), "wants another token"),
            ((f"http://{HOST}:{free_port()}",), "Is there a broker with http.address"),
            (("nonsense",), "is no address"),
            ((self.url,), "this is for a terminal"),
        ):
            result = self.run_program(MQTT, "top", *args)
            self.assertEqual(result.code, 1, result)
            self.assertIn(problem, text(result.err))

    def test_a_broker_that_goes_is_told_of(self):
        top = self.open(self.url)
        top.wait("Messages in")
        self.broker.kill()
        top.wait("Is there a broker")
        top.press("\x03")
        self.assertEqual(top.child.wait(10), 0)


if __name__ == "__main__":
    main()
