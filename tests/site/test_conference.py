"""The conference on 6000, as its participants hear it."""

from __future__ import annotations


def test_participants_hear_each_other_and_announcements(telephones, records):
    """The participants are silent during announcements, which are then received unmixed."""
    first = telephones.dial("6001", "6000", talking=False)
    assert first.hears("conf-onlyperson"), first
    second = telephones.dial("6002", "6000", talking=False)
    assert second.hears("confbridge-only-one"), second
    assert first.hears("confbridge-join"), first
    third = telephones.dial("6003", "6000", talking=False)
    assert third.hears("conf-otherinparty"), third
    assert first.hears("confbridge-join") and second.hears("confbridge-join"), (first, second)
    lines = [first, second, third]
    for speaker in lines:
        speaker.media.talking = True
        for listener in lines:
            assert listener is speaker or listener.hears_party(speaker.media), (listener, speaker)
        speaker.media.talking = False
    third.hang_up()
    assert first.hears("confbridge-leave") and second.hears("confbridge-leave"), (first, second)
    first.media.talking = second.media.talking = True
    assert first.hears_party(second.media) and second.hears_party(first.media)
    first.hang_up()
    second.hang_up()
    # A participant has a record for each one who came later, and the last has one for the call alone.
    rows = records(4)
    assert sorted(row["src"] for row in rows) == ["6001", "6001", "6002", "6003"], rows
    calls = {row["uniqueid"]: (row["src"], row["dst"], row["disposition"]) for row in rows}
    assert sorted(calls.values()) == [(number, "6000", "ANSWERED") for number in ("6001", "6002", "6003")], rows
