"""The page in Chromium, against a stand-in for the service: what it shows, what it says, and who can use it."""

from __future__ import annotations

import hashlib
import json
import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import fill_in, launch, log_in
from page_server import COOKIE, JOSE, PAQUITO, WEB, PageServer, ago, call, member, person, phone, queue, record, waiting
from playwright.sync_api import Error, Page, expect, sync_playwright
from screenshots import PICTURES, take

VIEWS = ["calls", "queues", "phones", "agents", "conferences", "voicemail", "records"]
NETWORK_CHANGED = "ERR_NETWORK_CHANGED"
RIGHT_TO_LEFT = "\u202eetirw\u202c"
HOSTILE = {
    "image": "<img src=x onerror=\"document.title='taken'\">",
    "script": "<script>document.title='taken'</script>",
    "direction": f"{RIGHT_TO_LEFT}\u2066 name",
    "long": "W" * 65536,
    "emoji": "Ana 👩‍🚒🏳️‍🌈",
}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running():
    server = PageServer()
    server.url = server.start()
    yield server
    server.stop()


@pytest.fixture
def server(running):
    running.reset()
    return running


@pytest.fixture
def open_page(browser, server):
    """Opens pages in contexts of their own; none of them may write an error that the test does not expect."""
    contexts, errors = [], []

    def open_(width=1280, height=800, scheme="light", locale="es-ES", login=True, view="", script="", clock=False):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.expected = ["401 (Unauthorized)", NETWORK_CHANGED]

        def note(message):
            if message.type in ("error", "warning") and not any(text in message.text for text in page.expected):
                errors.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        if script:
            page.add_init_script(script)
        if clock:
            page.clock.install()
        if login:
            context.add_cookies([{"name": COOKIE, "value": server.enter("ana"), "url": server.url}])
        visit(page, server.url + (f"#/{view}" if view else ""), "nav.views" if login else "#user")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not errors


def visit(page: Page, url: str, selector: str) -> None:
    """Open a page; again if the machine's interfaces changed meanwhile, as they do when a container starts."""
    changes: list[str] = []
    page.on("requestfailed", lambda request: changes.append(request.failure or ""))
    for _ in range(5):
        changes.clear()
        try:
            page.goto(url)
            page.wait_for_selector(selector)
            return
        except Error:
            if not any(NETWORK_CHANGED in change for change in changes):
                raise
            page.goto("about:blank")
    raise AssertionError("the machine's network does not come to rest")


def show(page: Page, view: str) -> None:
    """Choose a view."""
    page.click(f'nav.views a[href="#/{view}"]')
    expect(page.locator(f'nav.views a[href="#/{view}"]')).to_have_attribute("aria-current", "page")


def texts(language: str) -> dict:
    """The texts of a language."""
    source = (WEB / "locale" / f"{language}.js").read_text(encoding="utf-8")
    return json.loads(source.split("export default ", 1)[1].rstrip().rstrip(";").replace(",\n}", "\n}"))


def sources() -> str:
    """All modules of the page but what is not its own and the texts."""
    files = [WEB.glob("*.js"), WEB.glob("views/*.js")]
    return "\n".join(path.read_text(encoding="utf-8") for found in files for path in sorted(found))


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


# ---- Login and session ----


def test_wrong_password_is_said_and_the_right_one_enters(server, open_page):
    page = open_page(login=False)
    assert page.get_attribute("#user", "autocomplete") == "username"
    assert page.get_attribute("#password", "autocomplete") == "current-password"
    fill_in(page, password="wrong")
    expect(page.locator("[role=alert]")).to_contain_text("no son correctos")
    expect(page.locator("#password")).to_be_focused()
    assert page.locator("nav.views").count() == 0
    page.fill("#password", "right")
    page.press("#password", "Enter")
    expect(page.locator("h1")).to_have_text("Llamadas")


def test_limited_login_says_how_long_to_wait(server, open_page):
    page = open_page(login=False)
    page.expected.append("429")
    server.login_answer = (429, {"Retry-After": "42"})
    fill_in(page, password="wrong")
    expect(page.locator("[role=alert]")).to_contain_text("Espere 42 segundos")


def test_without_service_login_says_so(server, open_page):
    page = open_page(login=False)
    page.expected.append("ERR_")
    server.go_down()
    fill_in(page)
    expect(page.locator("[role=alert]")).to_contain_text("no responde")


def test_session_end_asks_again_and_keeps_the_view(server, open_page):
    page = open_page(view="queues")
    expect(page.locator("main")).to_contain_text("ColaUno")
    server.end_sessions()
    # At once, not at the next attempt to connect.
    expect(page.locator(".note")).to_contain_text("La sesión ha terminado", timeout=900)
    assert "ColaUno" not in page.content()
    fill_in(page)
    expect(page.locator("h1")).to_have_text("Colas")
    expect(page.locator("main")).to_contain_text("ColaUno")


def test_restarted_service_that_knows_no_session_asks_again(server, open_page):
    page = open_page(view="phones")
    page.wait_for_selector("tbody tr")  # it is connected
    server.sessions.clear()
    server.close(1001)
    expect(page.locator(".note")).to_contain_text("La sesión ha terminado")
    assert page.url.endswith("#/phones")


def test_logout_leaves_nothing_behind(server, open_page):
    page = open_page()
    expect(page.locator("main")).to_contain_text("Paquito")
    page.click("text=Salir")
    expect(page.locator(".note")).to_have_text("Ha salido del panel.")
    assert "Paquito" not in page.content()
    assert not server.sessions
    page.wait_for_timeout(100)
    assert not server.sockets


def test_logout_that_nobody_answers_is_said(server, open_page):
    page = open_page()
    page.expected += ["ERR_", "closed before receiving a handshake"]
    server.go_down()
    page.click("text=Salir")
    expect(page.locator(".note")).to_contain_text("la sesión puede seguir abierta")


def test_restricted_user_sees_what_he_is_sent(server, open_page):
    page = open_page(view="queues", login=False)
    log_in(page, f"{server.url}#/queues", "luis")
    expect(page.locator(".queue")).to_have_count(1)
    expect(page.locator("main")).to_contain_text("Soporte")
    for view in ("calls", "phones", "agents", "conferences", "voicemail"):
        show(page, view)
        expect(page.locator("main .empty")).to_be_visible()


# ---- Views ----


def test_calls_show_who_whom_state_and_for_how_long(server, open_page):
    page = open_page()
    row = page.locator("tbody tr", has_text="Eva Núñez")
    expect(row).to_contain_text("915550188")
    expect(row).to_contain_text("ColaUno 8001")
    expect(row).to_contain_text("atiende Manuela Carmena Vuelve 6003")
    expect(row.locator(".badge")).to_have_text("Hablando")
    assert re.fullmatch(r"3:3\d", row.locator(".col-time .duration").inner_text())
    assert re.fullmatch(r"1:0\d", row.locator(".col-talk .duration").inner_text())
    assert page.locator("tbody tr").first.inner_text().startswith("Recepción"), "the newest is not first"


def test_phones_show_address_latency_codec_and_call(server, open_page):
    page = open_page(view="phones")
    row = page.locator("tbody tr", has_text="6003")
    for text in ("Manuela Carmena Vuelve", "WebRTC", "192.0.2.77:51514", "WSS", "186 ms", "opus", "Eva Núñez", "JsSIP"):
        expect(row).to_contain_text(text)
    page.click("label:has-text('No registrados')")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("Sala de juntas")


def test_queue_shows_callers_members_and_today(server, open_page):
    page = open_page(view="queues")
    tile = page.locator(".queue", has_text="8001")
    expect(tile.locator(".waiting li")).to_have_text(
        [re.compile(r"1.*Ana Ruiz.*2:3\d"), re.compile(r"2.*934555120.*0:\d\d")]
    )
    paused = tile.locator("tbody tr", has_text="Jose Ortega y Gasset 6002").last
    expect(paused).to_contain_text("En pausa")
    expect(paused).to_contain_text("Comida")
    expect(paused).to_contain_text("15:0")
    expect(tile.locator("tbody tr", has_text="Manuela")).to_contain_text("Eva Núñez")
    assert tile.locator(".figure dd").all_inner_texts()[2:] == ["40", "3"]


def test_empty_views_say_what_will_appear(server, open_page):
    server.content = {topic: [] for topic in server.content}
    server.records = []
    page = open_page()
    try:
        for view in VIEWS[:-1]:
            show(page, view)
            expect(page.locator("main .empty")).to_contain_text(re.compile("[Aa]quí aparecer"))
        show(page, "records")
        expect(page.locator("main .empty")).to_contain_text("Ningún registro")
    finally:
        server.records = PageServer().records


NEW = person("6010", "Nueva Persona")
CHANGES = {
    "calls": call("new", NEW, JOSE, 1),
    "queues": queue("ColaDos", "8003", [waiting(1, NEW, 3)], []),
    "phones": phone(NEW, host=99),
    "agents": {"id": "6010", "name": NEW["name"], "state": "idle", "since": ago(0), "caller": None, "queues": []},
    "conferences": {
        "id": "6001",
        "since": ago(0),
        "participants": [{**NEW, "since": ago(0), "muted": False, "talking": False}],
    },
    "voicemail": {"id": "6010", "name": NEW["name"], "new": 1, "old": 0},
}


def test_each_view_shows_a_change_within_300_ms(server, open_page):
    page = open_page()
    for view, item in CHANGES.items():
        show(page, view)
        page.wait_for_selector("main tbody tr")
        page.evaluate(
            """name => { window.seen = new Promise(resolve => {
              const look = () => document.querySelector('main').textContent.includes(name) && resolve(Date.now());
              new MutationObserver(look).observe(document.querySelector('main'), {childList: true, subtree: true});
            }) }""",
            NEW["name"],
        )
        begin = time.time()
        server.change(view, item)
        took = page.evaluate("window.seen") / 1000 - begin
        assert took < 0.3, view
        server.gone(view, item["id"])
        expect(page.locator("main")).not_to_contain_text(NEW["name"])


def test_changed_item_replaces_the_old_one(server, open_page):
    page = open_page()
    row = page.locator("tbody tr", has_text="Recepción")
    expect(row.locator(".badge")).to_have_text("Sonando")
    changed = dict(server.content["calls"][4], state="talking", answered=ago(0))
    server.change("calls", changed)
    expect(row.locator(".badge")).to_have_text("Hablando")
    assert page.locator("tbody tr").count() == 7


def test_queue_turns_red_when_a_caller_waits_2_minutes(server, open_page):
    server.content["queues"] = [queue("ColaUno", "8001", [waiting(1, PAQUITO, 100)], [member(JOSE, "idle")])]
    page = open_page(view="queues", clock=True)
    tile = page.locator(".queue")
    expect(tile).not_to_have_class(re.compile("late"))
    page.clock.run_for(10_000)
    expect(tile).not_to_have_class(re.compile("late"))
    page.clock.run_for(15_000)
    expect(tile).to_have_class(re.compile("late"))
    expect(tile).to_contain_text("Alguien espera más de 2 minutos")
    expect(page.locator(".views .late")).to_contain_text("Colas")


def test_clock_of_the_host_counts_not_that_of_the_browser(server, open_page):
    script = "const now = Date.now; Date.now = () => now() + 3600e3;"
    page = open_page(script=script)
    time_ = page.locator("tbody tr", has_text="Recepción").locator(".col-time").inner_text()
    assert re.fullmatch(r"0:[01]\d", time_)


def test_a_second_changes_durations_and_nothing_else(server, open_page):
    page = open_page(view="queues", clock=True)
    page.wait_for_selector("tbody tr")
    page.wait_for_timeout(300)
    page.evaluate(
        """() => { window.changed = [];
          new MutationObserver(records => window.changed.push(...records.map(
            ({target}) => (target.closest ? target : target.parentElement).className)))
          .observe(document.body, {childList: true, subtree: true, characterData: true, attributes: true}) }"""
    )
    page.clock.run_for(3200)  # one of three ticks may find the same second
    changed = page.evaluate("window.changed")
    assert len(changed) >= 10
    assert set(changed) == {"duration"}


def test_duration_runs_on_when_it_comes_into_sight(server, open_page):
    server.content["calls"] = [call(f"c{n}", person(str(n)), JOSE, 600) for n in range(60)]
    page = open_page(clock=True)
    last = page.locator("tbody tr").last.locator(".col-time")
    first = last.text_content()
    page.clock.run_for(1100)
    last.scroll_into_view_if_needed()
    expect(last).not_to_have_text(first, timeout=1500)


# ---- The connection ----


def test_lost_service_is_said_with_its_time_and_comes_back(server, open_page):
    page = open_page(clock=True)
    page.expected.append("ERR_")
    page.wait_for_selector("tbody tr")
    server.go_down()
    banner = page.locator("#banner")
    expect(banner).to_contain_text(re.compile(r"Sin conexión con el servicio desde las \d\d:\d\d:\d\d"))
    assert page.get_attribute("#banner", "role") == "status"
    expect(page.locator(".content.stale tbody tr")).to_have_count(7)
    expect(page).to_have_title(re.compile("^Sin conexión"))
    first = page.locator(".col-time .duration").all_inner_texts()
    page.clock.run_for(2200)  # a tick that finds the same second is followed by one that does not
    assert page.locator(".col-time .duration").all_inner_texts() == first, "durations go on while nothing is known"
    server.content["calls"] = server.content["calls"][:2]
    server.go_down(False)
    expect(banner).to_contain_text(re.compile(r"El servicio vuelve a estar conectado desde las .*, tras 0:0\d"))
    expect(page.locator(".stale")).to_have_count(0)
    expect(page.locator("tbody tr")).to_have_count(2)


def test_lost_exchange_is_said_with_reason_and_comes_back(server, open_page):
    page = open_page(view="phones")
    server.exchange_is("lost", "no answer to Ping within 10 s")
    banner = page.locator("#banner")
    expect(banner).to_contain_text(re.compile(r"La centralita no está conectada desde las \d\d:\d\d:\d\d"))
    expect(banner).to_contain_text("no answer to Ping within 10 s")
    expect(page.locator(".stale")).to_have_count(1)
    server.exchange = ("connected", "Asterisk Call Manager/7.0.3")
    server.send({"type": "exchange", "state": "connected", "reason": "Asterisk Call Manager/7.0.3"})
    expect(banner).to_contain_text("La centralita vuelve a estar conectada")
    expect(page.locator(".stale")).to_have_count(1)  # until it is known what is so now
    for topic, items in server.content.items():
        server.snapshot(topic, items)
    expect(page.locator(".stale")).to_have_count(0)


def test_exchange_that_is_away_at_first_is_said(server, open_page):
    server.exchange = ("lost", "connection refused")
    page = open_page()
    expect(page.locator("#banner")).to_contain_text("connection refused")
    expect(page.locator("main .empty")).to_contain_text("vuelva a estar conectada")
    server.exchange_is("connected", "Asterisk Call Manager/7.0.3")
    expect(page.locator("tbody tr")).to_have_count(7)


def test_slow_client_comes_back_and_says_what_it_missed(server, open_page):
    page = open_page()
    page.wait_for_selector("tbody tr")
    server.close(4008)
    expect(page.locator("#banner")).to_contain_text("se han perdido cambios")
    expect(page.locator("#banner")).to_contain_text("Se perdieron cambios; lo que se ve es el estado actual")


def test_attempts_come_after_1_2_4_and_at_most_30_seconds(server, open_page):
    page = open_page(script="Math.random = () => 0;", clock=True)
    page.expected.append("503")
    page.wait_for_selector("tbody tr")
    page.clock.pause_at(time.time() + 20)
    server.overloaded = True
    server.close(1001)
    for number, delay in enumerate([1, 2, 4, 8, 16, 30, 30], 1):
        page.wait_for_timeout(200)
        page.clock.run_for(delay * 1000 - 10)
        assert server.refused_tickets == number - 1
        with page.expect_response("**/ticket"):
            page.clock.run_for(20)
    expect(page.locator(".stale")).to_have_count(1)


def test_dead_line_is_noticed_without_a_close(server, open_page):
    page = open_page(clock=True)
    page.expected.append("ERR_")
    page.wait_for_selector("tbody tr")
    server.down = True  # sockets stay open and silent
    page.clock.run_for(31_000)
    expect(page.locator("#banner")).to_contain_text("Sin conexión con el servicio")


def test_title_counts_waiting_callers(server, open_page):
    page = open_page()
    expect(page).to_have_title("2 en espera · Llamadas · labredes.pbx")
    server.change("queues", queue("ColaUno", "8001", [], []))
    expect(page).to_have_title("Llamadas · labredes.pbx")


# ---- Records ----


def test_records_are_searched_by_number_and_day(server, open_page):
    page = open_page(view="records")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.fill("[name=number]", "934 555-120")
    page.fill("[name=from]", "2020-01-31")
    page.fill("[name=to]", "2038-01-31")
    page.press("[name=to]", "Enter")
    expect(page.locator("tbody tr")).to_have_count(14)
    offset = page.evaluate("new Date(2020, 0, 31).toISOString() + new Date(2038, 0, 31, 23, 59, 59, 999).toISOString()")
    asked = server.asked[-1]
    assert (asked["number"], asked["from"] + asked["to"]) == ("934555120", offset)
    link = page.locator("a[download]").get_attribute("href")
    assert link.startswith("records.csv?number=934555120&from=2020-")
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(14)
    expect(page.locator("[name=number]")).to_have_value("934 555-120")


def test_text_in_the_form_outlives_a_lost_connection(server, open_page):
    page = open_page(view="records")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.fill("[name=number]", "6001")
    page.fill("[name=from]", "2020-01-31")
    server.close(1001)
    expect(page.locator("#banner")).to_contain_text("Sin conexión con el servicio")
    expect(page.locator("[name=number]")).to_have_value("6001")
    expect(page.locator("[name=from]")).to_have_value("2020-01-31")


def test_records_come_in_pages_and_as_csv(server, open_page):
    page = open_page(view="records")
    page.click("text=Más antiguas")
    expect(page.locator("tbody tr")).to_have_count(20)
    expect(page.locator("text=Página 2")).to_be_visible()
    assert page.locator("text=Más antiguas").count() == 0
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(50)
    with page.expect_download() as download:
        page.click("text=Descargar CSV")
    assert len(download.value.path().read_text().splitlines()) == 71


def test_search_for_what_is_no_number_is_refused_in_words(server, open_page):
    page = open_page(view="records")
    page.expected.append("400 (Bad Request)")
    page.fill("[name=number]", "6001' OR 1=1 --&x=%")
    page.press("[name=number]", "Enter")
    expect(page.locator("main [role=alert]")).to_contain_text("Esta búsqueda no es posible")
    assert server.asked[-1] == {"number": "6001'OR1=1&x=%", "page": "1"}


def test_user_without_records_has_no_such_view(server, open_page):
    server.session["records"] = False
    try:
        page = open_page(view="records")
        expect(page.locator("h1")).to_have_text("Llamadas")
        assert page.locator('nav a[href="#/records"]').count() == 0
    finally:
        server.session["records"] = True


# ---- The phone's module ----

PHONE = """export function mountPhone(element, { language, onState }) {
  element.textContent = `phone in ${language}`;
  onState({ missed: 2, ringing: false });
  window.ring = () => onState({ missed: 2, ringing: true });
  return { setLanguage: (code) => { element.textContent = `phone in ${code}` }, unmount() { window.unmounted = true } };
}"""


@pytest.fixture
def phone_server(server):
    server.session["phone"] = True
    yield server
    server.session["phone"] = False


def test_phone_is_loaded_when_opened_and_stays(phone_server, open_page):
    page = open_page(login=False)
    loaded = []

    def answer(route):
        loaded.append(route.request.method)
        route.fulfill(body=PHONE, content_type="text/javascript")

    page.route("**/phone/phone.js", answer)
    log_in(page, phone_server.url)
    page.wait_for_selector("tbody tr")
    assert loaded == []
    show(page, "phone")
    expect(page.locator("#phone")).to_have_text("phone in es")
    expect(page.locator('nav a[href="#/phone"] .count')).to_have_text("2 perdidas")
    page.evaluate("window.ring()")
    expect(page.locator('nav a[href="#/phone"].late .count')).to_have_text("1 Sonando")
    page.click("button[lang=en]")
    expect(page.locator("#phone")).to_have_text("phone in en")
    show(page, "calls")
    expect(page.locator("#phone")).to_be_hidden()
    assert loaded == ["GET"]
    page.click("text=Log out")
    page.wait_for_function("() => window.unmounted")


def test_phone_that_cannot_be_loaded_is_reported(phone_server, open_page):
    page = open_page(login=False)
    page.expected += ["404", "Failed to fetch dynamically imported module"]
    page.route("**/phone/phone.js", lambda route: route.fulfill(status=404))
    log_in(page, phone_server.url)
    show(page, "phone")
    expect(page.locator("[role=alert]")).to_have_text("No se ha podido cargar el teléfono. Recargue la página.")


def test_without_a_browser_phone_there_is_no_view(server, open_page):
    page = open_page()
    page.wait_for_selector("tbody tr")
    assert page.locator('nav a[href="#/phone"]').count() == 0


# ---- Languages ----


def test_languages_have_the_same_texts_and_values():
    es, en = texts("es"), texts("en")
    assert list(es) == list(en)

    def values(text):
        return sorted(set(re.findall(r"\{\w+\}", json.dumps(text))))

    assert [key for key in es if values(es[key]) != values(en[key]) or type(es[key]) is not type(en[key])] == []


def test_every_text_is_used_and_every_used_one_is_there():
    source = sources()
    used = set(re.findall(r"\bt\(\s*\"([^\"]+)\"", source)) | set(re.findall(r"\"(login\.\w+)\"", source))
    assert len(used) > 50
    assert used - set(texts("es")) == set()
    prefixes = tuple(re.findall(r"`([a-z]+\.)\$\{", source))
    literal = set(re.findall(r'"([a-z.]+)"', source))
    assert [key for key in texts("es") if key not in literal and not key.startswith(prefixes)] == []


def test_no_text_is_hard_coded(server, open_page):
    def mark(text):
        return [f"⟦{form}⟧" for form in text] if isinstance(text, list) else f"⟦{text}⟧"

    marked = json.dumps({key: mark(text) for key, text in texts("es").items()})
    page = open_page(login=False)
    page.route("**/locale/es.js", lambda r: r.fulfill(body=f"export default {marked}", content_type="text/javascript"))
    unmarked = """() => { const found = [];
      const own = node => !(node.closest('[translate=no]') || node.closest('noscript'));
      const look = (text, where) => {
        if (/\\p{L}/u.test(text.replace(/⟦[^⟧]*⟧/g, ''))) found.push(where + ': ' + text) };
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) if (own(walker.currentNode.parentElement)) look(walker.currentNode.data, 'text');
      for (const element of document.body.querySelectorAll('*')) if (own(element))
        for (const name of ['aria-label', 'title', 'placeholder', 'alt', 'data-label'])
          if (element.hasAttribute(name)) look(element.getAttribute(name), name);
      look(document.title.replace('labredes.pbx', ''), 'document');
      return found }"""
    page.reload()
    page.wait_for_selector("#user")
    assert page.evaluate(unmarked) == []
    log_in(page, server.url)
    for view in VIEWS:
        show(page, view)
        page.wait_for_selector("main tbody tr")
        assert page.evaluate(unmarked) == [], view
    server.exchange_is("lost", "reason")
    page.wait_for_selector("#banner p")
    assert page.evaluate(unmarked) == []


def test_language_is_the_services_until_another_is_chosen(server, open_page):
    server.session["language"] = "en"
    try:
        page = open_page(locale="es-ES")
        expect(page.locator("h1")).to_have_text("Calls")
        expect(page.locator("tbody tr", has_text="Dirección")).to_contain_text("Service")
        page.click("button[lang=es]")
        expect(page.locator("h1")).to_have_text("Llamadas")
        expect(page.locator("tbody tr", has_text="Dirección")).to_contain_text("Servicio")
        expect(page.locator("th").first).to_have_text("De")
        assert page.evaluate("document.documentElement.lang") == "es"
        page.reload()
        expect(page.locator("h1")).to_have_text("Llamadas")
    finally:
        server.session["language"] = "es"


# ---- Who uses it, and how ----


def test_axe_finds_nothing_serious(phone_server, open_page):
    server = phone_server
    axe, found = Axe(), []

    def check(page, where):
        # Of what axe looks at, the scheme changes the colours alone.
        for scheme, rules in (("dark", {"runOnly": ["color-contrast"]}), ("light", {})):
            page.emulate_media(color_scheme=scheme)
            report = axe.run(page, options={"resultTypes": ["violations"], **rules}).response
            assert report["passes"], "axe has looked at nothing"
            for violation in report["violations"]:
                if violation["impact"] in ("serious", "critical"):
                    targets = [node["target"] for node in violation["nodes"]]
                    found.append(f"{where}, {scheme}: {violation['id']}: {violation['help']} {targets[:3]}")

    page = open_page(login=False)
    fill_in(page, password="wrong")
    page.wait_for_selector("[role=alert] svg")
    check(page, "login")
    page.fill("#password", "right")
    page.press("#password", "Enter")
    for view in VIEWS:
        show(page, view)
        page.wait_for_selector("main tbody tr")
        check(page, view)
    show(page, "phone")
    page.wait_for_selector("#phone form")
    check(page, "phone")
    server.exchange_is("lost", "no answer to Ping within 10 s")
    page.wait_for_selector("#banner .bad")
    show(page, "queues")
    check(page, "lost")
    server.exchange_is("connected", "Asterisk Call Manager/7.0.3")
    page.set_viewport_size({"width": 390, "height": 844})
    for view in ("calls", "queues"):
        show(page, view)
        check(page, f"{view} narrow")
    assert not found, "\n".join(found)


def test_no_view_is_wider_than_the_window(phone_server, open_page):
    page = open_page()
    for view in [*VIEWS, "phone"]:
        show(page, view)
        page.wait_for_selector("#phone form" if view == "phone" else "main tbody tr")
        for width in (320, 390, 768, 1024):
            page.set_viewport_size({"width": width, "height": 800})
            assert overflow(page) <= 0, (view, width)


def test_page_is_used_by_keyboard_alone(server, open_page):
    page = open_page()
    page.wait_for_selector("tbody tr")
    page.evaluate("document.activeElement.blur()")
    order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.textContent.match(/\\p{L}+/u)?.[0] ?? ''"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"{order[-1]} has the focus and does not show it"
    links = ["Llamadas", "Colas", "Teléfonos", "Agentes", "Conferencias", "Buzones", "Registro"]
    assert order == ["Ir", "ES", "EN", "Salir", *links, ""]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Buzones")
    expect(page.locator("h1")).to_be_focused()
    show(page, "phones")
    page.focus(".choice input")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_skip_link_leads_to_the_content(server, open_page):
    page = open_page(view="queues")
    page.focus(".skip")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    expect(page.locator("h1")).to_have_text("Colas")


def test_screen_reader_hears_callers_and_not_seconds(server, open_page):
    page = open_page()
    page.wait_for_selector("tbody tr")
    live = "[role=status], [role=log], [role=alert], [aria-live]"
    assert page.locator(f":is({live}) .duration").count() == 0
    log = page.locator("[role=log]")
    assert log.text_content() == "", "those who waited before are announced"
    queue_ = server.content["queues"][1]
    server.change("queues", {**queue_, "waiting": [waiting(1, NEW, 0)], "longest_wait_since": ago(0)})
    expect(log).to_have_text("En espera en Soporte: Nueva Persona 6010.")
    assert page.evaluate("[...document.querySelectorAll('header.top, nav, main')].length") == 3
    expect(page.get_by_role("table", name="Llamadas")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Duración")).to_be_visible()


def test_table_stays_a_table_as_cards(server, open_page):
    page = open_page(width=390, height=844)
    page.wait_for_selector("tbody tr")
    assert page.get_by_role("row").count() == 8
    assert page.get_by_role("columnheader").count() == 6
    expect(page.get_by_role("cell", name="Paquito Txokolatero 6001")).to_be_visible()


def test_reduced_motion_means_none(server, open_page):
    page = open_page()
    assert page.evaluate("getComputedStyle(document.querySelector('.figure')).transitionDuration") in ("0s", "")


def test_page_follows_the_systems_colours(server, open_page):
    colours = {
        scheme: open_page(scheme=scheme, login=False).evaluate(
            "getComputedStyle(document.documentElement).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    assert colours == {"light": "rgb(243, 245, 248)", "dark": "rgb(14, 19, 26)"}


# ---- Names that callers choose ----


def test_hostile_names_are_shown_as_text(server, open_page):
    highest = "Math.max(...[...document.querySelectorAll('tbody tr, main li')].map(row => row.offsetHeight))"
    people = {kind: person(f"66{number}", name) for number, (kind, name) in enumerate(HOSTILE.items())}
    every = list(people.values())
    server.content = {
        "calls": [
            call(kind, who, who, 5, answered_by=PAQUITO, queue=who["name"], state="<b>") for kind, who in people.items()
        ],
        "phones": [
            {
                **phone(who, host=1, codec=who["name"]),
                "contacts": [dict.fromkeys(("address", "transport", "user_agent"), who["name"])],
            }
            for who in every
        ],
        "queues": [
            queue(who["name"], "8", [waiting(1, who, 200)], [member(who, "paused", reason=who["name"], caller=who)])
            for who in every
        ],
        "agents": [
            {
                "id": who["number"],
                "name": who["name"],
                "state": "idle",
                "since": ago(1),
                "caller": who,
                "queues": [who["name"]],
            }
            for who in every
        ],
        "conferences": [
            {
                "id": "6000",
                "since": ago(1),
                "participants": [{**who, "since": ago(1), "muted": True, "talking": False} for who in every],
            }
        ],
        "voicemail": [{"id": who["number"], "name": who["name"], "new": 1, "old": 1} for who in every],
    }
    old, server.records = server.records, [record(n, n, who, who, 9, who["name"]) for n, who in enumerate(every)]
    try:
        page = open_page()
        for view in VIEWS:
            show(page, view)
            page.wait_for_selector("main tbody tr")
            main = page.locator("main").inner_text()
            assert HOSTILE["image"] in main and HOSTILE["script"] in main and HOSTILE["emoji"] in main, view
            assert "etirw name" in main and "\u202e" not in main and "\u2066" not in main, view
            assert "W" * 81 not in main and page.locator("main :is(img, script, b)").count() == 0, view
            for width in (390, 1280):
                page.set_viewport_size({"width": width, "height": 800})
                assert overflow(page) <= 0, (view, width)
                assert page.evaluate(highest) < 600, (view, width)
        assert "taken" not in page.title()
        server.exchange_is("lost", HOSTILE["image"])
        expect(page.locator("#banner")).to_contain_text(HOSTILE["image"])
    finally:
        server.records = old


def test_lines_that_are_no_messages_are_passed_over(server, open_page):
    page = open_page()
    page.wait_for_selector("tbody tr")
    for line in ("{", "null", "[]", '"x"', '{"v": 2, "type": "snapshot", "topic": "calls", "items": []}'):
        server._call(server._send(line))
    server.send({"type": "snapshot", "topic": "unheard", "items": []}, {"type": "unheard"})
    server.change("calls", call("after", NEW, JOSE, 1))
    expect(page.locator("main")).to_contain_text(NEW["name"])
    expect(page.locator("tbody tr")).to_have_count(8)


# ---- Speed ----


def test_page_is_usable_in_a_second_and_below_200_kb(server, open_page):
    page = open_page()
    page.wait_for_selector("tbody tr")
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})
    sizes, urls = [], []
    network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.on("request", lambda request: urls.append(request.url))
    page.add_init_script(
        """new MutationObserver((_, observer) => {
          if (!document.querySelector('main tbody tr')) return;
          window.usable = performance.now();
          observer.disconnect();
        }).observe(document, {childList: true, subtree: true})"""
    )
    times = []
    for _ in range(3):
        sizes.clear()
        page.reload()
        times.append(page.wait_for_function("() => window.usable").json_value())
    print(f"usable after {min(times):.0f} ms, {sum(sizes):.0f} bytes in {len(sizes)} requests, without compression")
    assert min(times) < 1000
    assert 20_000 < sum(sizes) <= 200_000
    assert not [url for url in urls if "/phone/" in url]


def test_every_module_of_the_page_is_preloaded():
    index = (WEB / "index.html").read_text(encoding="utf-8")
    preloaded = set(re.findall(r'rel="modulepreload" href="([^"]+)"', index))
    modules = {path.relative_to(WEB).as_posix() for path in WEB.rglob("*.js")}
    assert preloaded == {name for name in modules if not name.startswith("phone/")}


def test_released_file_is_the_one_of_the_recipe():
    for path in (WEB / "vendor").glob("*.js"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert f"`{digest}`" in (WEB / "vendor" / "README.md").read_text(encoding="utf-8")


def test_500_calls_and_200_phones_stay_fluent(server, open_page):
    server.content["calls"] = [call(f"c{n}", person(str(n), "Ana Ruiz"), JOSE, n) for n in range(500)]
    server.content["phones"] = [phone(person(str(6000 + n), "Ana Ruiz"), host=n + 1) for n in range(200)]
    page = open_page()
    browser_ = page.context.new_cdp_session(page)
    browser_.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        """Milliseconds that the page's thread has computed for: other programs do not count."""
        metrics = browser_.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration") * 1000

    def scroll() -> None:
        page.evaluate(
            """() => new Promise(resolve => { let left = 50;
              const step = () => { scrollBy(0, 60); --left ? requestAnimationFrame(step) : resolve() };
              step() })"""
        )

    for view, rows in (("calls", 500), ("phones", 200)):
        show(page, view)
        expect(page.locator("tbody tr")).to_have_count(rows)
        page.wait_for_timeout(300)
        begin = busy()
        scroll()
        frame = (busy() - begin) / 50
        begin = busy()
        for n in range(20):
            changed = call(f"c{n}", person(str(n), "Eva Núñez"), JOSE, n, state="talking")
            server.change("calls", changed)
            page.evaluate("() => new Promise(requestAnimationFrame)")
        change = (busy() - begin) / 20
        print(f"{view}: {frame:.1f} ms to scroll by a frame, {change:.1f} ms for a change")
        assert frame < 15
        assert change < 50


def test_screenshots_are_small_enough_to_keep(server, browser, tmp_path):
    take(browser, server.url, tmp_path)
    sizes = {path.stem: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == sorted(name for name, *_ in PICTURES)
    assert min(sizes.values()) > 10_000
    assert max(sizes.values()) < 150_000
