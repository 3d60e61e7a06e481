"""The operator's guide, step by step, as it stands: every block of it that needs neither root nor systemd."""

import os
import re
import shutil
import subprocess
import tempfile

from harness import MQTT, Program, TestCase, free_port, main, text, until

GUIDE = "docs/guide/operator.md"


def blocks():
    """What kind each block is, and its text."""
    with open(GUIDE) as f:
        return re.findall(r"^```sh ?(\w*)\n(.*?)^```$", f.read(), re.M | re.S)


class Guide(TestCase):
    def setUp(self):
        super().setUp()
        self.root = tempfile.mkdtemp(prefix="guide-")
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        os.mkdir(os.path.join(self.root, "bin"))
        os.symlink(os.path.abspath(MQTT), os.path.join(self.root, "bin/mqtt"))
        os.makedirs(os.path.join(self.root, "etc/mqtt"))
        # Where the guide is taken, others may have these.
        self.there = {"/etc/mqtt": f"{self.root}/etc/mqtt", "/tmp/mqtt-trial": f"{self.root}/data"}
        self.there.update({port: str(free_port()) for port in ("8883", "8084", "18083")})
        self.env = {"PATH": f"{self.root}/bin:{os.environ['PATH']}"}

    def here(self, block):
        return re.sub("|".join(map(re.escape, self.there)), lambda found: self.there[found[0]], block)

    def shell(self, block):
        env = {**os.environ, **self.env}
        return subprocess.run(["bash", "-euc", self.here(block)], env=env, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)

    def test_it_can_be_taken_as_it_stands(self):
        taken = {"": 0, "fails": 0, "broker": 0, "root": 0}
        said = ""
        for kind, block in blocks():
            taken[kind] += 1
            if kind == "broker":
                broker = self.start(Program(["bash", "-c", "exec " + self.here(block)], env=self.env))
                until(lambda: b" running." in broker.err() or not broker.running(), broker.state)
                self.assertTrue(broker.running(), broker.state())
            elif kind != "root":
                result = self.shell(block)
                shown = f"{self.here(block)}\n{text(result.stdout)}\n{text(result.stderr)}"
                self.assertEqual(result.returncode == 0, kind == "", shown)
                said += text(result.stdout)
        self.assertEqual(taken, {"": 5, "fails": 3, "broker": 1, "root": 2})
        for line in ("The settings are fine.", "sensors/sensor-17/temperature 21.5", '"items"', "ok"):
            self.assertIn(line, said)
        broker.signal(15)
        self.assertEqual(broker.wait().code, 0)


if __name__ == "__main__":
    main()
