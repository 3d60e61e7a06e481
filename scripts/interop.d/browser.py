"""The page for people in a real browser: figures, lists, actions, the console, keyboard, phone, dark and light."""

import os
import shutil
import tempfile

from chromium import Chromium
from harness import HOST, ConfiguredBroker, TestCase, free_port, main, text, until

TOKEN = "0123456789abcdef-of-a-test"
PICTURES = os.environ.get("PICTURES")


class Page(TestCase):
    def setUp(self):
        super().setUp()
        self.directory = tempfile.mkdtemp(prefix="page-")
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        with open(os.path.join(self.directory, "tokens"), "w") as f:
            f.write(TOKEN + "\n")
        self.port, self.http = free_port(), free_port()
        config = os.path.join(self.directory, "mqtt.toml")
        with open(config, "w") as f:
            f.write(f'[[listener]]\naddress = "{HOST}:{self.port}"\n'
                    f'[http]\naddress = "{HOST}:{self.http}"\ntoken_file = "{self.directory}/tokens"\n')
        self.broker = self.start(ConfiguredBroker(self.port, "--config", config))
        self.page = Chromium()
        self.addCleanup(self.page.close)
        self.page.screen(1280, 900)

    def open(self, part=f"#token={TOKEN}"):
        self.page.open(f"http://{HOST}:{self.http}/{part}")

    def picture(self, name):
        if PICTURES:
            os.makedirs(PICTURES, exist_ok=True)
            self.page.screenshot(os.path.join(PICTURES, name + ".png"))

    def subscriber(self, name, *filters):
        args = [part for filter in filters for part in ("-t", filter)]
        program = self.spawn("mosquitto_sub", "-h", HOST, "-p", self.port, "-i", name, "-c", "-q", "1", *args)
        until(lambda: f" as {name} ".encode() in self.broker.err(), self.broker.state)
        return program

    def publish(self, *args):
        self.succeed("mosquitto_pub", "-h", HOST, "-p", self.port, *args)

    def tearDown(self):
        self.assertEqual(self.page.problems, [])
        super().tearDown()

    def test_the_token_is_asked_for_and_kept_out_of_sight(self):
        self.open("")
        self.page.wait("document.getElementById('token-dialog').open")
        self.page.problems.clear()  # The browser tells of the status 401.
        self.page.fill("#token", TOKEN + "x")
        self.page.key("Enter", text="\r", windowsVirtualKeyCode=13)
        self.page.wait("document.getElementById('token-problem').innerText.includes('not one of them')")
        self.page.problems.clear()
        self.page.fill("#token", TOKEN)
        self.page.key("Enter", text="\r", windowsVirtualKeyCode=13)
        self.page.wait("document.getElementById('state').innerText.startsWith('Version ')")
        self.assertFalse(self.page.eval("document.getElementById('token-dialog').open"))
        self.page.problems.clear()
        self.open()
        self.page.wait("document.getElementById('state').innerText.startsWith('Version ')")
        self.assertEqual(self.page.eval("location.hash"), "")

    def test_figures_and_lists_show_what_there_is(self):
        for n in range(3):
            self.subscriber(f"client {n}", "plant/+/temperature", f"plant/{n}/#", "$share/workers/jobs")
        for n in range(5):
            self.publish("-t", f"plant/{n}/temperature", "-m", f"2{n}.5 °C", "-r", "-q", "1")
        self.open()
        self.page.wait("document.getElementById('now').innerText.includes('Connected\\n3')")
        self.page.wait("document.getElementById('totals').innerText.includes('Messages in\\n5')")
        self.page.wait("document.querySelectorAll('figure polyline')[0].getAttribute('points').split(' ').length > 2")
        self.picture("overview")
        self.page.click("#tab-clients")
        self.page.wait("document.querySelectorAll('#clients-rows tr').length === 3")
        self.assertIn("client 0", self.page.text("#clients-rows tr"))
        self.picture("clients")
        self.page.click("#tab-subscriptions")
        self.page.wait("document.querySelectorAll('#subscriptions-tree details').length > 5")
        self.assertIn("plant (6)", self.page.text("#subscriptions-tree"))
        self.picture("subscriptions")
        self.page.click("#tab-retained")
        self.page.wait("document.querySelectorAll('#retained-rows tr').length === 5")
        self.page.click("#retained-rows button")
        self.page.wait("document.getElementById('show').open")
        self.assertEqual(self.page.text("#show-text"), "20.5 °C")
        self.page.key("Escape", windowsVirtualKeyCode=27)
        self.picture("retained")

    def test_actions_ask_first(self):
        victim = self.subscriber("victim", "a")
        self.publish("-t", "kept", "-m", "x", "-r")
        self.open()
        self.page.click("#tab-clients")
        self.page.wait("document.querySelectorAll('#clients-rows tr').length === 1")
        self.page.click("#clients-rows button[aria-label='Delete the session of victim']")
        self.page.wait("document.getElementById('ask').open")
        self.page.key("Escape", windowsVirtualKeyCode=27)
        self.page.wait("!document.getElementById('ask').open")
        self.assertTrue(victim.running())
        victim.signal(9)
        until(lambda: b"Client victim" in self.broker.err() and b"closed its connection" in self.broker.err(), self.broker.state)
        self.page.click("#clients-form button")
        self.page.wait("document.querySelectorAll('#clients-rows tr.away').length === 1")
        self.page.click("#clients-rows button[aria-label='Delete the session of victim']")
        self.page.wait("document.getElementById('ask').open")
        self.page.click("#ask-yes")
        self.page.wait("document.querySelectorAll('#clients-rows tr').length === 0")
        self.assertIn("session of \"victim\" ended", text(self.broker.err()))
        self.page.click("#tab-retained")
        self.page.wait("document.querySelectorAll('#retained-rows tr').length === 1")
        self.page.click("#retained-rows button[aria-label='Delete kept']")
        self.page.wait("document.getElementById('ask').open")
        self.page.click("#ask-yes")
        self.page.wait("document.querySelectorAll('#retained-rows tr').length === 0")

    def test_the_console_publishes_and_subscribes(self):
        outside = self.subscriber("outside", "from/page")
        self.open()
        self.page.click("#tab-console")
        self.page.fill("#login-client", "page")
        self.page.click("#login")
        self.page.wait("document.getElementById('console-state').innerText === 'Connected as page.'")
        for qos in ("0", "1", "2"):
            self.page.eval(f"document.getElementById('subscribe-qos').value = document.getElementById('publish-qos').value = '{qos}'")
            self.page.fill("#subscribe-filter", f"room/{qos}")
            self.page.click("#subscribe-form button")
            self.page.wait(f"document.getElementById('messages').innerText.includes('subscribed to room/{qos} at QoS {qos}')")
            self.page.fill("#publish-topic", f"room/{qos}")
            self.page.fill("#publish-payload", "Grüße <b>")
            self.page.click("#publish-form button")
            self.page.wait(f"document.getElementById('messages').innerText.includes('room/{qos} (QoS {qos})')")
        self.page.fill("#publish-topic", "from/page")
        self.page.click("#publish-form button")
        until(lambda: outside.out() == "Grüße <b>\n".encode(), outside.state)
        self.publish("-t", "room/1", "-m", "from outside", "-q", "1")
        self.page.wait("document.getElementById('messages').innerText.includes('from outside')")
        self.page.fill("#publish-topic", "wrong/#")
        self.page.click("#publish-form button")
        self.page.wait("document.getElementById('console-state').innerText.startsWith('Not connected: ')")
        self.picture("console")

    def test_keys_and_a_phone_are_enough(self):
        self.subscriber("a-client-with-a-rather-long-identifier-0123456789", "a")
        for name, width, height, dark, phone in (("phone", 390, 844, True, True), ("small", 320, 600, False, True), ("dark", 1280, 900, True, False)):
            self.page.screen(width, height, dark, phone)
            self.open()
            self.page.wait("document.getElementById('state').innerText.startsWith('Version ')")
            self.page.eval("document.getElementById('tab-overview').focus()")
            for view in ("overview", "clients", "subscriptions", "retained", "console"):
                self.page.wait(f"!document.getElementById('{view}').hidden")
                if view == "clients":
                    self.page.wait("document.querySelectorAll('#clients-rows tr').length === 1")
                self.assertLessEqual(self.page.eval("document.documentElement.scrollWidth"), width, f"{name}: {view}")
                self.picture(f"{name}-{view}")
                self.page.key("ArrowRight", windowsVirtualKeyCode=39)


if __name__ == "__main__":
    main()
