"""Drives a headless Chromium through its debugging port (the Chrome DevTools Protocol)."""

import base64
import json
import shutil
import tempfile

import websocket
from harness import LIMIT, Program, text, until


class Chromium:
    """A browser with one page."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        # As root there is no sandbox to have.
        self.program = Program(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--hide-scrollbars", "--lang=en-US", "--remote-debugging-port=0", "--remote-allow-origins=*",
             f"--user-data-dir={self.profile}", "about:blank"])
        try:
            url = until(self._url, self.program.state, 60)
            self.socket = websocket.create_connection(url, timeout=LIMIT)
        except BaseException:
            self.program.close()
            raise
        self.number = 0
        self.problems = []
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _url(self):
        for line in text(self.program.err()).splitlines():
            if line.startswith("DevTools listening on "):
                return line.split()[-1]
        return None

    def close(self):
        self.socket.close()
        self.program.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **params):
        """Has the browser do something, and gives what it answers. What goes wrong on the page is collected."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        kind, params = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"]))
        if kind == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])

    def open(self, url):
        self.call("Page.navigate", url=url)
        until(lambda: self.eval("document.readyState") == "complete", url)

    def eval(self, expression):
        """The value of a JavaScript expression on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def text(self, selector):
        return self.eval(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def wait(self, expression):
        """Waits until a JavaScript expression is true."""
        return until(lambda: self.eval(expression), lambda: f"{expression}; the page shows: {self.eval('document.body.innerText')}")

    def click(self, selector):
        """Clicks where an element is, as with a mouse."""
        place = self.eval(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def key(self, key, **more):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    def fill(self, selector, value):
        self.eval(f"document.querySelector({json.dumps(selector)}).focus(), document.querySelector({json.dumps(selector)}).select?.()")
        self.call("Input.insertText", text=value)

    def screen(self, width, height, dark=False, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def screenshot(self, file):
        with open(file, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
