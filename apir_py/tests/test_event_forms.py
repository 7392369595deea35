"""Events as text and as JSON, and the filters."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from apir_py.event import Event, Filter, as_json, as_object, as_text

AT = datetime(2026, 1, 31, 8, 15, 0, 123456, timezone.utc)


def event(name: str = "Newchannel", **fields: str) -> Event:
    """An event at a fixed time."""
    return Event(name, dict(fields), AT)


def test_json_has_version_time_name_and_fields():
    assert json.loads(as_json(as_object(event(CallerIDName="Recepción")))) == {
        "v": 1,
        "type": "event",
        "at": "2026-01-31T08:15:00.123Z",
        "event": "Newchannel",
        "fields": {"CallerIDName": "Recepción"},
    }


def test_json_keeps_letters_and_escapes_what_terminals_obey():
    line = as_json({"name": "ñ\x1b[2J\x7f\x9b\u202e\n"})
    assert line == '{"name":"ñ\\u001b[2J\\u007f\\u009b\\u202e\\n"}'
    assert json.loads(line) == {"name": "ñ\x1b[2J\x7f\x9b\u202e\n"}


def test_text_is_one_line_without_empty_headers():
    text = as_text(event(Channel="PJSIP/6001-00000001", CallerIDName='José "Pepe"', Exten="", Num="<unknown>"))
    assert text[20:] == 'Newchannel Channel=PJSIP/6001-00000001 CallerIDName="José \\"Pepe\\""'


def test_text_shows_each_value_of_a_repeated_header():
    assert as_text(Event("Hangup", {"ChanVariable": ["A", "B"]}, AT)).endswith("Hangup ChanVariable=A ChanVariable=B")


@pytest.mark.parametrize("character", ["\x1b", "\r", "\n", "\x9b", "\x7f", "\u202e", "\0"])
def test_text_never_has_a_control_character(character):
    assert as_text(event(f"E{character}", **{f"K{character}": f"v{character}"})).isprintable()


@pytest.mark.parametrize(
    ("wanted", "name", "passes"),
    [
        (["Hangup"], "Hangup", True),
        (["hangup"], "Hangup", True),
        (["Queue*"], "QueueCallerJoin", True),
        (["Queue*", "Hangup"], "Hangup", True),
        (["Queue"], "QueueCallerJoin", False),
        ([], "Hangup", True),
    ],
)
def test_filter_by_event(wanted, name, passes):
    assert Filter(events=wanted)(event(name)) is passes


@pytest.mark.parametrize(
    ("wanted", "fields", "passes"),
    [
        (["PJSIP/6001"], {"Channel": "PJSIP/6001-00000001"}, True),
        (["pjsip/6001-*1"], {"Channel": "PJSIP/6001-00000001"}, True),
        (["PJSIP/6001"], {"DestChannel": "PJSIP/6001-00000001"}, True),
        (["PJSIP/6001"], {"Channel": "PJSIP/6002-00000001"}, False),
        (["PJSIP/6001"], {"AppData": "PJSIP/6001-00000001"}, False),
        (["PJSIP/6001"], {}, False),
    ],
)
def test_filter_by_channel(wanted, fields, passes):
    assert Filter(channels=wanted)(event(**fields)) is passes


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"CallerIDNum": "6001"}, True),
        ({"ConnectedLineNum": "6001"}, True),
        ({"Exten": "6001"}, True),
        ({"Channel": "PJSIP/6001-00000001"}, True),
        ({"Interface": "Local/6001@agents"}, True),
        ({"EndpointName": "6001"}, True),
        ({"Agent": "6001"}, True),
        ({"CallerIDNum": "60011"}, False),
        ({"CallerIDNum": "+34600160010"}, False),
        ({"Exten": "*6001"}, False),
        ({"Channel": "PJSIP/6002-00006001"}, False),
        ({"Uniqueid": "1764140400.6001"}, False),
    ],
)
def test_filter_by_number(fields, passes):
    assert Filter(numbers=["6001"])(event(**fields)) is passes


def test_filter_by_number_takes_it_as_it_is():
    assert not Filter(numbers=["6..1"])(event(Exten="6001"))
    assert Filter(numbers=["*21"])(event(Exten="*21"))


def test_filters_of_different_kinds_have_to_match_together():
    both = Filter(events=["Hangup"], numbers=["6001"])
    assert both(event("Hangup", Exten="6001"))
    assert not both(event("Hangup", Exten="6002"))
    assert not both(event("Newchannel", Exten="6001"))
