"""A connection to AMI: what arrives, what is noticed, what is refused."""

from __future__ import annotations

import asyncio

import pytest
from apir_py.ami import LARGEST_MESSAGE, Connection, Refused, Settings, Unreachable, Untrusted, tls_context
from fake_ami import FakeAmi, Followed, message, until


async def test_event_arrives_with_its_headers():
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.event("Newchannel", Channel="PJSIP/6001-00000001", ConnectedLineName="")
        await until(lambda: seen.events)
    (event,) = seen.events
    assert event.name == "Newchannel"
    assert event.fields == {"Privilege": "call,all", "Channel": "PJSIP/6001-00000001", "ConnectedLineName": ""}


async def test_event_that_comes_with_the_login_follows_it():
    class Hasty(FakeAmi):
        """Sends an event in one segment with the answer to the login."""

        def answer(self, writer, action, **headers):
            event = message({"Event": "FullyBooted"}) if action["Action"] == "Login" else b""
            writer.write(message({"ActionID": action["ActionID"]}, **headers) + event)

    order = []
    async with Hasty() as ami:
        followed = Followed(ami)
        followed.exchange.on_connected = order.append
        followed.exchange.on_event = lambda event: order.append(event.name)
        task = asyncio.ensure_future(followed.exchange.run())
        await until(lambda: len(order) == 2)
        task.cancel()
    assert order == ["Asterisk Call Manager/5.0.2", "FullyBooted"]


async def test_empty_last_header_is_kept():
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.send(b"Event: Newexten\r\nAppData: \r\n\r\n")
        await until(lambda: seen.events)
    assert seen.events[0].fields == {"AppData": ""}


async def test_repeated_header_is_a_list():
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.send(b"Event: Hangup\r\nChanVariable: A=1\r\nChanVariable: B=2\r\n\r\n")
        await until(lambda: seen.events)
    assert seen.events[0].fields == {"ChanVariable": ["A=1", "B=2"]}


async def test_letters_survive_each_split_of_the_stream(monkeypatch):
    monkeypatch.setattr("apir_py.ami.READ_EVERY", 0)
    data = message({"Event": "NewCallerid", "CallerIDName": "Recepción ñ €"})
    async with FakeAmi() as ami, Followed(ami) as seen:
        for byte in data:
            ami.send(bytes([byte]))
            await asyncio.sleep(0.0005)
        await until(lambda: seen.events)
    assert seen.events[0].fields["CallerIDName"] == "Recepción ñ €"


async def test_bytes_that_are_no_letters_are_replaced():
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.send(b"Event: NewCallerid\r\nCallerIDName: Recepci\xf3n\r\n\r\n")
        ami.event("Hangup")
        await until(lambda: len(seen.events) == 2)
    assert seen.events[0].fields["CallerIDName"] == "Recepci\N{REPLACEMENT CHARACTER}n"


async def test_event_of_64_kilobytes_arrives_whole():
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.event("UserEvent", Body="ñ" * 32768)
        ami.event("Hangup")
        await until(lambda: len(seen.events) == 2)
    assert seen.events[0].fields["Body"] == "ñ" * 32768


async def test_burst_of_events_wakes_the_program_seldom(monkeypatch):
    monkeypatch.setattr("apir_py.ami.READ_EVERY", 0.2)
    received = []
    take = Connection.data_received
    monkeypatch.setattr(Connection, "data_received", lambda self, data: (received.append(data), take(self, data)))
    async with FakeAmi() as ami, Followed(ami) as seen:
        received.clear()
        for _event in range(50):
            ami.event("Newstate")
            await asyncio.sleep(0.001)
        await until(lambda: len(seen.events) == 50)
    assert len(received) <= 4


async def test_thousand_events_arrive_in_order():
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.send(b"".join(message({"Event": "UserEvent", "Number": str(number)}) for number in range(1000)))
        await until(lambda: len(seen.events) == 1000)
    assert [event.fields["Number"] for event in seen.events] == [str(number) for number in range(1000)]


async def test_message_without_an_end_is_cut_off():
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.send(b"Event: UserEvent\r\nBody: " + b"x" * LARGEST_MESSAGE)
        await until(lambda: len(seen.states) > 1)
    assert seen.states[1] == "Lost: a message without an end, of over 1024 KiB"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\r\n\r\n\r\n",
        b"no header\r\n\r\n",
        b"Event: A\r\nEvent: B\r\n\r\n",
        b"Event: X\r\nActionID: 1\r\n\r\n",
        b": \r\n\r\n",
    ],
)
async def test_nonsense_does_not_end_the_connection(nonsense):
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.send(nonsense)
        ami.event("Hangup")
        await until(lambda: seen.events and seen.events[-1].name == "Hangup")
    assert seen.states == ["connected"]


async def test_shutdown_event_arrives_before_the_end():
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.event("Shutdown", Shutdown="Cleanly", Restart="False")
        await until(lambda: seen.events)
        ami.drop()
        await until(lambda: len(seen.states) > 2)
    assert seen.events[0].name == "Shutdown"
    assert seen.states == ["connected", "Lost: the exchange closed the connection", "connected"]


async def test_pong_that_does_not_come_ends_the_connection():
    async with FakeAmi() as ami:
        ami.answers_pings = False
        async with Followed(ami, ping_every=0.05, answer_within=0.1) as seen:
            await until(lambda: len(seen.states) > 2)
    assert seen.states[:3] == ["connected", "Lost: no answer to Ping within 0.1 s", "connected"]


async def test_pong_keeps_the_connection():
    async with FakeAmi() as ami, Followed(ami, ping_every=0.02, answer_within=1) as seen:
        await until(lambda: len(ami.actions) > 5)
    assert seen.states == ["connected"]


async def test_exchange_that_restarts_is_found_again():
    async with FakeAmi() as ami, Followed(ami) as seen:
        ami.event("Hangup")
        await until(lambda: seen.events)
        ami.send(b"Event: Hangup\r\nChannel: PJS")  # cut in mid-event: its rest must not stick to the next one
        await asyncio.sleep(0.02)
        ami.server.close()
        ami.drop()
        await until(lambda: any(state.startswith("Unreachable") for state in seen.states))
        async with FakeAmi(port=ami.port) as restarted:
            await until(lambda: seen.states[-1] == "connected")
            restarted.event("Newchannel")
            await until(lambda: len(seen.events) == 2)
    assert [event.name for event in seen.events] == ["Hangup", "Newchannel"]


async def test_attempts_back_off_to_the_longest_delay():
    delays = []
    async with FakeAmi() as ami:
        pass
    followed = Followed(ami, first_delay=0.01, longest_delay=0.05)
    followed.exchange.on_lost = lambda error, delay: delays.append(delay)
    task = asyncio.ensure_future(followed.exchange.run())
    await until(lambda: len(delays) == 5)
    task.cancel()
    assert delays == [0.01, 0.02, 0.04, 0.05, 0.05]


async def test_exchange_that_drops_each_login_is_not_hurried():
    async with FakeAmi() as ami, Followed(ami, first_delay=0.1) as seen:
        delays = []
        seen.exchange.on_lost = lambda error, delay: delays.append(delay)
        while len(delays) < 2:
            ami.drop()
            await asyncio.sleep(0.005)
    assert delays == [0.1, 0.2]


async def failure(followed: Followed) -> Exception:
    """What the first attempt raises."""
    with pytest.raises((Unreachable, Refused, Untrusted)) as caught:
        await followed.exchange.run(lambda error: False)
    return caught.value


@pytest.mark.parametrize("wrong", [{"secret": "wrong"}, {"username": "nobody"}])
async def test_wrong_login_is_refused_although_ami_stays_silent(wrong):
    async with FakeAmi() as ami:
        error = await failure(Followed(ami, **wrong))
    assert (type(error), str(error)) == (Refused, "Authentication failed")


async def test_secret_is_never_sent():
    async with FakeAmi() as ami, Followed(ami):
        assert ami.actions[-1]["Action"] == "Login"
    assert "s3cret" not in str(ami.actions)


@pytest.mark.parametrize("character", ["\r\nAction: Originate", "\n", "\0", "\udcff"])
@pytest.mark.parametrize("name", ["username", "secret"])
def test_login_cannot_end_a_line_of_ami(name, character):
    with pytest.raises(ValueError, match=f"the {name} has a character"):
        Settings(**{"host": "h", "port": 1, "username": "u", "secret": "s", name: "x" + character})


def test_secret_is_not_shown_by_its_settings():
    assert "s3cret" not in repr(Settings("h", 1, "u", "s3cret"))


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_8.4p1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"A" * 5000])
async def test_other_server_is_not_ami(greeting):
    async with FakeAmi(greeting) as other:
        error = await failure(Followed(other))
    assert (type(error), str(error)) == (Unreachable, "what answers there is not AMI")


async def test_server_without_a_greeting_is_given_up():
    async with FakeAmi(b"") as other:
        error = await failure(Followed(other, answer_within=0.1))
    assert str(error) == "no greeting of AMI within 0.1 s (a TLS port?)"


async def test_closed_port_is_unreachable():
    async with FakeAmi() as ami:
        pass
    assert str(await failure(Followed(ami))) == "Connection refused"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "x" * 300])
async def test_unknown_host_is_unreachable(host):
    async with FakeAmi() as ami:
        assert isinstance(await failure(Followed(ami, host=host)), Unreachable)


async def test_tls_with_the_known_certificate_connects(certificate):
    path, _, context = certificate
    async with FakeAmi(tls=context) as ami, Followed(ami, tls=tls_context(path)) as seen:
        ami.event("Hangup")
        await until(lambda: seen.events)
    assert seen.states == ["connected"]


async def test_tls_with_an_unknown_certificate_is_untrusted(certificate):
    async with FakeAmi(tls=certificate[2]) as ami:
        error = await failure(Followed(ami, tls=tls_context()))
    assert isinstance(error, Untrusted)
    assert "its certificate is not trusted: self" in str(error)


async def test_tls_with_the_certificate_of_another_host_is_untrusted(certificate):
    path, _, context = certificate
    async with FakeAmi(tls=context) as ami:
        error = await failure(Followed(ami, tls=tls_context(path), tls_name="other.example.com"))
    assert isinstance(error, Untrusted)
    assert "other.example.com" in str(error)


async def test_tls_to_a_plain_port_is_untrusted():
    async with FakeAmi() as ami:
        error = await failure(Followed(ami, tls=tls_context()))
    assert isinstance(error, Untrusted)
