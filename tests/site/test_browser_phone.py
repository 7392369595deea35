"""The browser phone in Chromium: calls with SIP telephones, by what both sides hear."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from browser_phone import BrowserPhone, hears_tone, linear, logged_in
from playwright.sync_api import expect
from sipp import within

NO_MICROPHONE = """error => {
  navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("", error); };
}"""


@pytest.fixture(scope="module")
def context(browser, lab):
    """A context in which the page's user is logged in, one for all tests."""
    return logged_in(browser, lab["events"])


@pytest.fixture
def page(context, telephones):
    """A function that opens the phone in a tab of its own; its calls end before those of telephones."""
    phones = []

    def open_phone(script: str = "") -> BrowserPhone:
        phones.append(BrowserPhone(context, script))
        return phones[-1]

    yield open_phone
    for phone in phones:
        phone.close()


@pytest.fixture
def phone(page, lab):
    """A registered browser phone, in whose page no script has failed."""
    phone = page()
    phone.log_in(**lab["webrtc_phone"])
    phone.registered()
    yield phone
    assert phone.errors == []


@pytest.fixture
def number(lab):
    """The number of the browser phone."""
    return lab["webrtc_phone"]["number"]


def hearing(line) -> callable:
    """What a SIPp telephone hears, as a function that gives samples."""
    return lambda: linear(line.media.heard[-4000:])


def assert_connected(first, second, on_lab) -> None:
    """Two SIPp telephones hear each other; then their call is ended."""
    for one, other in ((first, second), (second, first)):
        assert within(5, lambda one=one, other=other: one.media.frames_of(other.media) > 25), (one, other)
    on_lab("asterisk -rx 'channel request hangup all'")


def test_wrong_password_is_said_and_does_not_register(page, number, on_lab, lab):
    phone = page()
    phone.log_in(number, "wrong")
    phone.says("El número o la contraseña no son correctos.")
    assert "Contact:" not in on_lab(f"asterisk -rx 'pjsip show aor {number}' | grep {number}/ || true")
    phone.log_in(**lab["webrtc_phone"])
    phone.registered()
    phone.button("Desconectar").click()
    phone.says("El teléfono se ha desconectado.")
    assert within(3, lambda: f"{number}/sip:" not in on_lab(f"asterisk -rx 'pjsip show aor {number}'"))


def test_sound_both_ways_hold_and_mute(phone, telephones):
    other = telephones.softphone("6002")
    assert other.registered()
    phone.dial("6002")
    phone.talking("6002")
    expect(phone.call("6002")).to_contain_text("Jose Ortega y Gasset")
    assert hears_tone(other.received) > 0.9
    packets, energy = phone.heard()
    assert packets > 25 and energy > 0.001, (packets, energy)
    for name in ("Silenciar", "Espera"):
        phone.button(name).click()
        expect(phone.button(name)).to_have_attribute("aria-pressed", "true")
        assert hears_tone(other.received, wanted=False) < 0.1, name
        phone.button(name).click()
        expect(phone.button(name)).to_have_attribute("aria-pressed", "false")
        assert hears_tone(other.received) > 0.9, name
    packets, energy = phone.heard()
    assert packets > 25 and energy > 0.001, (packets, energy)
    phone.button("Colgar").click()
    phone.idle()
    assert other.says("terminated|closed")


def test_incoming_call_rings_is_answered_and_ends(phone, telephones, number):
    caller = telephones.dial("6001", number, answered=False)
    expect(phone.call("6001")).to_contain_text("Paquito Txokolatero")
    expect(phone.call("6001")).to_contain_text("Llamada entrante")
    assert phone.sounding()
    phone.button("Contestar").click()
    phone.talking("6001")
    assert not phone.sounding()
    assert caller.answered() and hears_tone(hearing(caller)) > 0.9, caller
    packets, energy = phone.heard()
    assert packets > 25 and energy > 0.0001, (packets, energy)
    caller.hang_up()
    phone.says("Han colgado.")
    phone.idle()


def test_views_are_readable_by_everyone(page, telephones, number, lab, tmp_path):
    """PICTURES, a directory, gets the pictures of the docs."""
    phone = page()
    assert phone.barriers() == []
    phone.log_in(**lab["webrtc_phone"])
    phone.registered()
    telephones.answering("6002")
    phone.dial("6002")
    phone.talking("6002")
    phone.button("Transferir").click()
    telephones.dial("6001", number, answered=False)
    expect(phone.button("Contestar")).to_be_visible()
    for width, scheme in ((1280, "light"), (390, "dark"), (390, "light")):
        phone.page.set_viewport_size({"width": width, "height": 844})
        phone.page.emulate_media(color_scheme=scheme)
        assert phone.barriers() == [], (width, scheme)
        assert phone.page.evaluate("document.documentElement.scrollWidth") == width
        phone.page.screenshot(path=Path(os.environ.get("PICTURES", tmp_path)) / f"phone-{width}.png")


def test_missed_call_is_listed_and_called_back(phone, telephones, number, lab, on_lab):
    telephones.dial("6001", number, answered=False)
    expect(phone.button("Contestar")).to_be_visible()
    on_lab("asterisk -rx 'channel request hangup all'")
    phone.says("Llamada perdida de Paquito Txokolatero (6001).")
    phone.page.reload()
    phone.log_in(**lab["webrtc_phone"])
    phone.registered()
    missed = phone.view.locator("li").filter(has_text="Paquito Txokolatero (6001)")
    expect(missed).to_have_text(re.compile(r"^\s*\d\d:\d\d"))
    telephones.answering("6001")
    missed.get_by_role("button", name="Llamar al 6001").click()
    phone.talking("6001")
    expect(missed).to_have_count(0)


def test_voicemail_light_and_its_button(phone, telephones, number, prompts, inbox):
    caller = telephones.dial("6001", number, answered=False, talking=False)
    phone.button("Rechazar").click()
    assert caller.answered() and caller.leaves_message(), caller
    box = phone.view.locator(".phone-voicemail")
    expect(box).to_contain_text("1 nuevo")
    box.get_by_role("button", name="Llamar al 6500").click()
    phone.talking("6500")
    assert phone.heard(2)[1] > 0.0001


def test_joins_the_conference(phone, telephones):
    other = telephones.dial("6001", "6000", talking=False)
    phone.dial("6000")
    phone.talking("6000")
    assert hears_tone(hearing(other), 10) > 0.8, other
    other.media.talking = True
    assert within(5, lambda: phone.heard(0.5)[1] > 0.0001)


def test_keys_choose_in_the_call_centre(phone, telephones):
    department = telephones.answering("6002")
    phone.dial("11888")
    phone.talking("11888")
    phone.page.wait_for_timeout(1000)
    phone.button("Tecla 2").click()
    expect(phone.view.locator("output")).to_have_text("2")
    assert department.talks()
    assert hears_tone(hearing(department)) > 0.9
    assert "6004" in department.callers()[0]


def test_keyboard_keys_are_sent_as_telephone_events(phone, telephones):
    other = telephones.answering("6002")
    phone.dial("6002")
    phone.talking("6002")
    assert other.talks()
    phone.button("Espera").focus()
    phone.page.keyboard.type("19*#")
    assert within(5, lambda: other.media.keys == "19*#"), other.media.keys
    phone.heard(0.1)  # handles what the browser has sent meanwhile
    assert not [message for message in phone.sent if message.startswith("INFO ")]


def begin_transfer(phone, telephones) -> tuple:
    """Call 6002 and type 6003 as the number to transfer to; returns both telephones."""
    first, second = telephones.answering("6002"), telephones.answering("6003")
    phone.dial("6002")
    phone.talking("6002")
    assert first.talks()
    phone.button("Transferir").click()
    phone.page.keyboard.type("6003")
    return first, second


def test_blind_transfer(phone, telephones, on_lab):
    first, second = begin_transfer(phone, telephones)
    phone.page.keyboard.press("Enter")
    phone.says("Llamada transferida al 6003.")
    phone.idle()
    assert second.talks()
    assert_connected(first, second, on_lab)


def test_attended_transfer(phone, telephones, on_lab):
    first, second = begin_transfer(phone, telephones)
    phone.button("Consultar antes").click()
    phone.talking("6003")
    expect(phone.call("6002")).to_have_attribute("data-state", "held")
    assert second.talks() and hears_tone(hearing(second)) > 0.9
    phone.button("Unir a Jose Ortega y Gasset con Manuela Carmena Vuelve").click()
    phone.says("Llamada transferida al 6003.")
    phone.idle()
    assert_connected(first, second, on_lab)


def test_failures_have_words(phone, on_lab):
    causes = {
        "6981": (17, "Comunica."),
        "6982": (19, "No está disponible o no contesta."),
        "6983": (21, "Han rechazado la llamada."),
    }
    try:
        for number, (cause, _words) in causes.items():
            on_lab(f"asterisk -rx 'dialplan add extension {number},1,Hangup,{cause} into services'")
        for number, (_cause, words) in causes.items():
            phone.dial(number)
            phone.says(words)
            phone.idle()
    finally:
        for number in causes:
            on_lab(f"asterisk -rx 'dialplan remove extension {number}@services'")
    phone.dial("999999")
    phone.says("Ese número no existe.")
    phone.dial("a b?")
    phone.says("Eso no es un número de teléfono.")


def test_missing_microphone_is_said(phone):
    errors = {
        "NotAllowedError": "El navegador no da permiso para usar el micrófono.",
        "NotFoundError": "No se encuentra ningún micrófono.",
        "NotReadableError": "El micrófono no funciona",
    }
    for error, words in errors.items():
        phone.page.evaluate(NO_MICROPHONE, error)
        phone.dial("6000")
        phone.says(words)
        phone.idle()


def test_insecure_page_offers_no_login(page):
    phone = page("Object.defineProperty(window, 'isSecureContext', { value: false });")
    phone.says("Los navegadores solo dan el micrófono a páginas seguras")
    expect(phone.button("Conectar")).to_have_count(0)


def test_call_goes_on_after_a_lost_network(phone, telephones, on_lab):
    other = telephones.answering("6002")
    phone.dial("6002")
    phone.talking("6002")
    assert other.talks()
    phone.page.context.set_offline(True)
    phone.says("Este equipo no tiene red.")
    phone.page.context.set_offline(False)
    phone.says("Se ha recuperado la conexión con la centralita.")
    phone.talking("6002")
    with phone.page.expect_websocket(
        lambda socket: socket.url.endswith("/ws")
    ):  # another network, while the old connection has not ended
        phone.page.evaluate("dispatchEvent(new Event('online'))")
    phone.registered()
    # The exchange knows the new connection: it can end the call.
    assert phone.heard()[0] > 25 and hears_tone(hearing(other)) > 0.9
    on_lab("asterisk -rx 'channel request hangup all'")
    phone.idle()


def test_comes_back_after_a_crash_of_asterisk(phone, on_lab):
    phone.dial("6000")
    phone.talking("6000")
    on_lab("systemctl kill --signal=KILL asterisk; systemctl stop asterisk")
    phone.says("Se ha perdido la conexión con la centralita.")
    on_lab("systemctl start asterisk", seconds=60)
    phone.says("La llamada se ha cortado.", 30)
    phone.registered()
    phone.idle()
    phone.dial("6000")
    phone.talking("6000")
    assert phone.heard()[0] > 25


def test_closing_the_page_ends_call_and_registration(phone, on_lab, number):
    phone.dial("6000")
    phone.talking("6000")
    phone.close()
    assert within(3, lambda: on_lab("asterisk -rx 'core show channels count'").startswith("0 active channels"))
    assert f"{number}/sip:" not in on_lab(f"asterisk -rx 'pjsip show aor {number}'")
