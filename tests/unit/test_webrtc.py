"""What browsers' phones need of the exchange's configuration."""

from __future__ import annotations

import asterisk_files
import pytest
import rendering

PHONES = [{"number": "6001", "name": "Ana"}, {"number": "6004", "name": "Eva", "webrtc": "yes"}]


def sections(tmp_path, role: str, name: str, **description) -> list[asterisk_files.Section]:
    """The sections of a role's file for a description, without TLS on the HTTP server."""
    known = rendering.variables(rendering.FACTS["Debian 12"], description, tmp_path, role)
    template = rendering.ROLES / role / "templates/etc/asterisk" / f"{name}.j2"
    return asterisk_files.parse(rendering.render(template, known))


@pytest.mark.parametrize(
    ("description", "ice"),
    [
        ({}, "no"),
        ({"pbx_phones": PHONES[:1]}, "no"),
        ({"pbx_phones": PHONES}, "yes"),
        ({"pbx_phones": [{**PHONES[1], "webrtc": "no"}]}, "no"),
        ({"labredes_sip_transports": ["udp", "wss"]}, "yes"),
    ],
)
def test_ice_is_on_where_browsers_are(tmp_path, description, ice):
    (general, *_) = sections(tmp_path, "asterisk", "rtp.conf", **description)
    assert general.get("icesupport") == ice


def test_only_a_browser_that_vanishes_loses_its_call(tmp_path):
    found = {
        section.name: (section.get("webrtc"), section.get("rtp_timeout"), section.get("rtp_timeout_hold"))
        for section in sections(tmp_path, "pbx", "pjsip.conf", pbx_phones=PHONES)
        if "callerid" in dict(section.settings)
    }
    assert found == {"6001": (None, None, None), "6004": ("yes", "30", "30")}
