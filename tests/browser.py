"""A headless Chromium that is spoken to over the DevTools protocol."""

import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
"""By which a browser is known on the machines of most people."""

_PATIENCE = 60.0


def program() -> str | None:
    """The path of a browser, if there is one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """A tab; `events` are all that it told, each with `method` and `params`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop, self._socket = loop, socket
        self._calls = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a method of the protocol returns."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), _PATIENCE))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._calls += 1
        await self._socket.send_str(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._calls:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited where it is a promise."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, f"{expression}: {done['exceptionDetails']}"
        return done["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression holds."""
        _until(lambda: self.evaluate(expression), expression)

    def open(self, path: Path) -> None:
        """A file, until it is loaded."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait(f"document.readyState === 'complete' && location.pathname.endsWith({json.dumps(path.name)})")

    def resize(self, width: int, height: int, scale: float = 1.0, mobile: bool = False) -> None:
        """The window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def prefer(self, **features: str) -> None:
        """What the user prefers: prefers_color_scheme="dark"."""
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=given)

    def key(self, key: str) -> None:
        """Press a key that writes a character."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    def screenshot(self, path: Path) -> None:
        """What is seen, as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    """An empty tab of a browser with a profile of its own, which is gone in the end."""
    found = program()
    assert found is not None
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
            "--hide-scrollbars", f"--user-data-dir={profile}", "about:blank",
        )  # fmt: skip
        process = subprocess.Popen(
            [found, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        session = loop.run_until_complete(_session())
        try:
            said = Path(profile) / "DevToolsActivePort"
            _until(lambda: said.is_file() and "\n" in said.read_text(), f"{found} to start")
            port = said.read_text().split()[0]
            socket = loop.run_until_complete(_connect(session, port))
            page = Page(loop, socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            yield page
            loop.run_until_complete(socket.close())
        finally:
            loop.run_until_complete(session.close())
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=_PATIENCE)
            loop.close()


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _connect(session: aiohttp.ClientSession, port: str) -> aiohttp.ClientWebSocketResponse:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        tabs = await answer.json(content_type=None)
    address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
    return await session.ws_connect(address, max_msg_size=0)


def _until(holds: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < end, f"waited {_PATIENCE:g} s for {what}"
        time.sleep(0.05)
