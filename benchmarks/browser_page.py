"""What writing on the device costs a reader of the page: seconds until the first character, and memory.

Knows nothing of what is written.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.e2e.conftest import FLAGS, FULL_SPEED, chromium
from tests.e2e.test_process import serving

NETWORK = {"offline": False, "latency": 20, "downloadThroughput": 20e6 / 8, "uploadThroughput": 20e6 / 8}
MEGABYTE = 1e6
POLL_SECONDS = 0.1
SETTLE_SECONDS = 3.0  # until a page has nothing left to do
# Clicks as a reader does: where to write, and Write as soon as the progress bar is there. Returns the milliseconds
# from the first click until a character was there, and how often the bar was moved until then.
CLICK = """() => new Promise((resolve) => {
    const text = document.querySelector(".active .document");
    const bar = document.getElementById("here-progress");
    const here = document.getElementById("write-here");
    const write = document.getElementById("write");
    const before = text.textContent.length;
    const start = performance.now();
    let steps = 0;
    new MutationObserver(() => {
        if (text.textContent.length > before) resolve({ milliseconds: performance.now() - start, steps });
    }).observe(text, { childList: true, subtree: true, characterData: true });
    if (here.checked) {
        write.click();
    } else {
        new MutationObserver((records) => {
            steps += records.filter(({ attributeName }) => attributeName === "value").length;
            if (records.some(({ attributeName }) => attributeName === "hidden") && !bar.hidden) write.click();
        }).observe(bar, { attributes: true });
        here.click();
    }
})"""


# Chooses full speed and this device, and writes; a promise that resolves once the text is there.
WRITE_HERE = """new Promise((resolve) => {
    document.getElementById("new").click();
    const speed = document.getElementById("speed");
    speed.value = "full";
    speed.dispatchEvent(new Event("change", { bubbles: true }));
    const state = document.getElementById("state");
    let wrote = false;
    new MutationObserver(() => {
        wrote ||= state.dataset.state === "writing";
        if (wrote && state.dataset.state === "done") {
            resolve(document.querySelector(".active .document").textContent.length);
        }
    }).observe(state, { attributes: true });
    if (!document.getElementById("write-here").checked) document.getElementById("write-here").click();
    document.getElementById("write").click();
})"""


class UnwatchedPage:
    """A page that Playwright has no part in: of those that it drives, the browser keeps all that they download."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._session = browser.new_browser_cdp_session()
        self._session.on("Target.receivedMessageFromTarget", lambda event: self._take(event["message"]))
        self._answers: dict[int, Any] = {}
        self._sent = 0
        profile = self._session.send("Target.createBrowserContext")["browserContextId"]
        target = self._session.send("Target.createTarget", {"url": url, "browserContextId": profile})["targetId"]
        attached = self._session.send("Target.attachToTarget", {"targetId": target, "flatten": False})
        self._session_id = attached["sessionId"]

    def _take(self, message: str) -> None:
        answer = json.loads(message)
        self._answers[answer.get("id", 0)] = answer

    def send(self, method: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol to the page, and wait for its result."""
        self._sent += 1
        message = json.dumps({"id": self._sent, "method": method, "params": parameters})
        self._session.send("Target.sendMessageToTarget", {"message": message, "sessionId": self._session_id})
        while self._sent not in self._answers:
            self.wait(POLL_SECONDS)
        return self._answers.pop(self._sent)["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return found["result"].get("value")

    def wait(self, seconds: float) -> None:
        """Let time pass; what has come meanwhile is taken in."""
        time.sleep(seconds)
        self._session.send("Browser.getVersion")


def measure_page(checkpoint: Path) -> None:
    """Print them, of the page of a server with a checkpoint."""
    with serving(checkpoint) as (_, url), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        context.add_init_script(FULL_SPEED)
        page = opened(context, url)
        throttle = context.new_cdp_session(page)
        throttle.send("Network.enable")
        throttle.send("Network.emulateNetworkConditions", NETWORK)
        cold = page.evaluate(CLICK)
        print("\nthe page: from the click on Write to the first character")
        print(
            f"  nothing cached, 20 Mbit/s  {cold['milliseconds'] / 1000:.2f} s, progress in {cold['steps']} steps"
        )
        page.wait_for_selector("#state[data-state=done]")
        page.close()
        page = opened(context, url)
        print(f"  files in the cache         {page.evaluate(CLICK)['milliseconds'] / 1000:.2f} s")
        page.wait_for_selector("#state[data-state=done]")
        page.click("#new")
        print(f"  engine loaded              {page.evaluate(CLICK)['milliseconds'] / 1000:.2f} s")
        page.close()
        measure_memory(browser, url)
        browser.close()


def measure_memory(browser: Browser, url: str) -> None:
    """Print how much memory the process of a page has before and after texts that are written on the device."""
    page = UnwatchedPage(browser, url)
    page.wait(SETTLE_SECONDS)
    before = renderer_memory(browser)
    characters = page.evaluate(WRITE_HERE)
    written = renderer_memory(browser)
    page.evaluate(WRITE_HERE)
    again = renderer_memory(browser)
    page.send("HeapProfiler.collectGarbage")
    kept = renderer_memory(browser)
    print(f"memory of the page's process: {before:.0f} MB; {written:.0f} MB when {characters} characters have been")
    print(f"  written on the device, {again:.0f} MB after another text, {kept:.0f} MB once garbage has been")
    print(f"  collected; load {os.getloadavg()[0]:.1f}")


def opened(context: BrowserContext, url: str) -> Page:
    """A page that has nothing left to do, with a new text."""
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(url, wait_until="networkidle")
    page.click("#new")
    return page


def renderer_memory(browser: Browser) -> float:
    """Megabytes of memory of the largest page's process, with its threads and WebAssembly."""
    session = browser.new_browser_cdp_session()
    found: dict[str, Any] = session.send("SystemInfo.getProcessInfo")
    session.detach()
    sizes = [private_bytes(info["id"]) for info in found["processInfo"] if info["type"] == "renderer"]
    return max(sizes) / MEGABYTE


def private_bytes(pid: int) -> int:
    """The bytes that a process has written to and shares with no other.

    What it has read of the browser's own files is left out: whether that is shared depends on what else runs.
    """
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty"):
            total += int(line.split()[1]) * 1024
    return total
