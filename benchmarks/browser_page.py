"""What writing on the device costs a reader of the page: seconds until the first character, and memory.

Knows nothing of what is written.
"""

import os
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.e2e.conftest import FLAGS, FULL_SPEED, chromium
from tests.e2e.test_process import serving

NETWORK = {"offline": False, "latency": 20, "downloadThroughput": 20e6 / 8, "uploadThroughput": 20e6 / 8}
MEGABYTE = 1e6
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


def measure_page(checkpoint: Path) -> None:
    """Print them, of the page of a server with a checkpoint."""
    with serving(checkpoint) as (_, url), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        context.add_init_script(FULL_SPEED)
        page = opened(context, url)
        before = renderer_memory(browser)
        throttle = context.new_cdp_session(page)
        throttle.send("Network.enable")
        throttle.send("Network.emulateNetworkConditions", NETWORK)
        cold = page.evaluate(CLICK)
        print("\nthe page: from the click on Write to the first character")
        print(
            f"  nothing cached, 20 Mbit/s  {cold['milliseconds'] / 1000:.2f} s, progress in {cold['steps']} steps"
        )
        page.wait_for_selector("#state[data-state=done]")
        grown = renderer_memory(browser) - before
        context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
        kept = renderer_memory(browser) - before
        page.close()
        page = opened(context, url)
        print(f"  files in the cache         {page.evaluate(CLICK)['milliseconds'] / 1000:.2f} s")
        page.wait_for_selector("#state[data-state=done]")
        page.click("#new")
        print(f"  engine loaded              {page.evaluate(CLICK)['milliseconds'] / 1000:.2f} s")
        print(f"memory of the page's process: {before:.0f} MB, and {grown:.0f} MB more after a text on the device,")
        print(f"  {kept:.0f} MB once the page's garbage has been collected; load {os.getloadavg()[0]:.1f}")
        browser.close()


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
    """The bytes of a process that no other process shares."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean", "Private_Dirty")):
            total += int(line.split()[1]) * 1024
    return total
