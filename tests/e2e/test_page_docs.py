"""The API's page, which asks nobody but this server."""

import httpx
from playwright.sync_api import Browser, expect

from tests.conftest import LiveServer

METHODS = ("get", "post", "put", "patch", "delete")


def test_the_apis_page_lists_every_operation_and_asks_nobody_else(browser: Browser, server: LiveServer) -> None:
    """`/docs` was a white page where the reader's network did not lead to a CDN, from which Swagger UI came.

    Now this server has its files, from the package fastapi-offline.
    """
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    operations = sum(len([method for method in path if method in METHODS]) for path in paths.values())
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{server.url}/docs")
    expect(page.locator(".opblock")).to_have_count(operations)
    expect(page.locator(".opblock", has_text="/generate").first).to_be_visible()
    page.locator(".opblock", has_text="/score").get_by_role("button").first.click()
    expect(page.locator(".opblock.is-open")).to_contain_text("How likely the model finds")
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".responses-table.live-responses-table")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert [url for url in asked if not url.startswith((f"{server.url}/", "data:", "blob:"))] == []
    assert [one for one in complaints if "status of 422" not in one] == []


def test_the_policy_of_the_apis_page_lets_its_own_script_run_and_no_other(
    browser: Browser, server: LiveServer
) -> None:
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"{server.url}/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), { text: 'alert()' }))")
    assert len(complaints) == 1
    assert "Content Security Policy" in complaints[0]
    context.close()
