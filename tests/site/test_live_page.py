"""The page of the events service in Chromium, while the exchange is used: calls, queues, phones, records."""

from __future__ import annotations

import re

import pytest
from browser_phone import logged_in
from playwright.sync_api import expect
from sipp import within

AT_ONCE = 2000  # ms
PAQUITO, JOSE, MANUELA = "Paquito Txokolatero", "Jose Ortega y Gasset", "Manuela Carmena Vuelve"


@pytest.fixture
def page(browser, lab):
    """The page, with its user logged in; no script fails in it."""
    context, errors = logged_in(browser, lab["events"]), []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("/")
    expect(page.locator("nav.views")).to_be_visible(timeout=20_000)  # on a busy machine
    yield page
    context.close()
    assert errors == []


def show(page, view: str):
    """Open a view; gives its table."""
    page.locator(f'nav a[href="#/{view}"]').click()
    return page.locator("main tbody tr")


def test_nothing_is_shown_without_the_right_password(browser, lab):
    context = browser.new_context(base_url=lab["events"]["url"], ignore_https_errors=True, locale="es")
    page = context.new_page()
    page.goto("/#/calls")
    page.fill("#user", lab["events"]["user"])
    page.fill("#password", "wrong")
    page.press("#password", "Enter")
    expect(page.locator("[role=alert]")).to_be_visible()
    assert page.locator("nav.views").count() == 0
    for path in ("/session", "/records", "/records.csv", "/api"):
        assert context.request.get(path).status == 401, path
    context.close()


def test_call_is_shown_while_it_lasts(page, telephones, records):
    rows = show(page, "calls").filter(has_text=PAQUITO)
    expect(rows).to_have_count(0)
    telephones.answering("6002", seconds=1)
    line = telephones.dial("6001", "6002", answered=False)
    expect(rows).to_have_text(re.compile(f"{PAQUITO} *6001.*{JOSE} *6002.*Sonando"), timeout=AT_ONCE)
    assert line.answered(), line
    expect(rows.locator(".col-state")).to_have_text("Hablando", timeout=AT_ONCE)
    show(page, "phones")
    talking = page.get_by_role("row", name=f"{JOSE} 6002 Hablando")
    expect(talking).to_have_text(re.compile(f"{PAQUITO}.*ulaw"), timeout=AT_ONCE)
    line.hang_up()
    expect(show(page, "calls").filter(has_text=PAQUITO)).to_have_count(0, timeout=AT_ONCE)
    records(1)


def test_caller_who_waits_is_shown(page, telephones, on_lab):
    member = telephones.ringing("6003")
    on_lab("asterisk -rx 'queue add member PJSIP/6003 to ColaUno'")
    try:
        show(page, "queues")
        queue = page.locator("section.queue", has_text="ColaUno")
        # She is a member as an agent, too, who has not logged in.
        members = queue.locator("tbody tr").filter(has_text=MANUELA)
        expect(members.filter(has_text="Libre")).to_have_count(1, timeout=AT_ONCE)
        abandoned = int(queue.locator(".figures dd").nth(3).text_content())
        caller = telephones.dial("6001", "8001", talking=False)
        expect(queue.locator("ol.waiting li")).to_have_text(re.compile(f"1.*{PAQUITO} *6001.*0:0"), timeout=AT_ONCE)
        assert within(5, lambda: member.invited), "the member's phone does not ring"
        caller.hang_up()
        expect(queue.locator("ol.waiting li")).to_have_count(0, timeout=AT_ONCE)
        expect(queue.locator(".figures dd").nth(3)).to_have_text(str(abandoned + 1), timeout=AT_ONCE)
    finally:
        on_lab("asterisk -rx 'queue remove member PJSIP/6003 from ColaUno'")
    expect(members).to_have_count(1, timeout=AT_ONCE)


def test_phone_that_unregisters_is_shown(page, telephones):
    row = show(page, "phones").filter(has_text=JOSE)
    phone = telephones.answering("6002")
    expect(row.locator(".col-address")).to_contain_text("UDP", timeout=AT_ONCE)
    expect(row.locator(".col-state")).to_have_text("Libre", timeout=AT_ONCE)
    phone.leave()
    expect(row.locator(".col-state")).to_have_text("No registrado", timeout=AT_ONCE)


def test_record_of_a_call_is_found_in_english_too(page, telephones, records):
    telephones.answering("6002")
    telephones.dial("6001", "6002").hang_up()
    (record,) = records(1)
    page.click("button[lang=en]")
    rows = show(page, "records")
    expect(page.get_by_role("heading", name="Records")).to_be_visible()
    page.get_by_label(re.compile("^Number")).fill("6002")
    page.keyboard.press("Enter")
    expect(rows.first).to_have_text(re.compile(f"{PAQUITO} *6001.*{JOSE} *6002.*Answered"), timeout=AT_ONCE)
    found = page.request.get("/records", params={"number": "6002", "size": "1"}).json()["records"]
    assert [one["uniqueid"] for one in found] == [record["uniqueid"]]
    lines = page.request.get("/records.csv", params={"number": "6002"}).text().splitlines()
    assert record["uniqueid"] in lines[1]
