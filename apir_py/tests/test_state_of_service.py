"""What clients that ask for state get from the service, and what its metrics say."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import subprocess
import time
from datetime import date, datetime, timedelta, timezone

import pytest
from apir_py.event import Filter
from apir_py.hub import SPACING, Client, change_line
from apir_py.items import TOPICS, Change
from apir_py.today import Today
from fake_ami import FakeAmi, until
from recorded import Pbx
from running_service import Running

from apir_py import metrics

LISTS = {
    "names": {"6001": "Ana", "6002": "Luis"},
    "phones": {"6001": False, "6002": False},
    "agents": {"6001": "Ana"},
    "queues": {"sales": "8001"},
    "conferences": ["6000"],
    "mailboxes": ["6001"],
    "metrics_networks": [ipaddress.ip_network("127.0.0.0/8")],
}


class Exchange(FakeAmi):
    """An AMI server whose lists tell what happens at a Pbx, and which sends its events."""

    def __init__(self) -> None:
        """Nothing happens yet."""
        super().__init__()
        self.pbx = pbx = Pbx(lambda event: self.event(event.name, **event.fields))
        self.rows = {
            "BridgeList": pbx.bridge_rows,
            "CoreShowChannels": pbx.channel_rows,
            "QueueStatus": pbx.queue_rows,
            "ConfbridgeList": lambda: pbx.conference_rows("6000") or None,
            "VoicemailUsersList": [{"Event": "VoicemailUserEntry", "VoiceMailbox": "6001", "NewMessageCount": "3"}],
        }


@contextlib.asynccontextmanager
async def running(certificate, **options):
    """An exchange with a call, and the service on it, which knows it."""
    async with Exchange() as ami:
        ami.pbx.call("6001", "6002")
        async with Running(ami, certificate, **{**LISTS, **options}) as service:
            await until(lambda: service.service.hub.known)
            yield ami, service


async def state_socket(service, user="ana", messages="state"):
    """A WebSocket of a client that wants state, which has been greeted and has read the snapshots."""
    client = await service.socket(user, messages)
    hello, *snapshots = await client.read(1 + len(TOPICS))
    assert hello["type"] == "hello"
    assert [line["topic"] for line in snapshots] == list(TOPICS)
    assert {line["type"] for line in snapshots} == {"snapshot"}
    return client, {line["topic"]: line["items"] for line in snapshots}


async def test_snapshots_come_first_and_changes_follow(certificate):
    async with running(certificate) as (ami, service):
        client, snapshots = await state_socket(service)
        (call,) = snapshots["calls"]
        assert (call["state"], call["caller"]) == ("talking", {"number": "6001", "name": "Ana"})
        assert snapshots["voicemail"] == [{"id": "6001", "name": "Ana", "new": 3, "old": None}]
        ami.pbx.hang_up(*list(ami.pbx.channels))
        lines = await client.read(3)
    assert {(line["v"], line["type"], line["topic"]) for line in lines} == {
        (1, "gone", "calls"),
        (1, "change", "phones"),
    }
    assert lines[0]["id"] == call["id"]
    assert {line["item"]["state"] for line in lines[1:]} == {"offline"}


async def test_change_comes_within_100_milliseconds(certificate):
    async with running(certificate) as (ami, service):
        client, _ = await state_socket(service)
        delays = []
        for number in range(20):
            started = time.perf_counter()
            ami.event("MessageWaiting", Mailbox="6001@from-internal", Waiting="1", New=str(number + 10), Old="0")
            (line,) = await client.read()
            delays.append(time.perf_counter() - started)
            assert line["item"]["new"] == number + 10
    assert sorted(delays)[10] < 0.1


async def test_burst_of_one_item_is_few_changes(certificate):
    async with running(certificate) as (ami, service):
        client, _ = await state_socket(service)
        started = time.monotonic()
        for number in range(100):
            ami.event("MessageWaiting", Mailbox="6001@from-internal", Waiting="1", New=str(number), Old="0")
            await asyncio.sleep(0.004)
        news = [(await client.read())[0]["item"]["new"]]
        while news[-1] != 99:
            news.append((await client.read())[0]["item"]["new"])
    assert len(news) <= (time.monotonic() - started) / SPACING + 2


async def test_client_chooses_events_state_or_both(certificate):
    async with running(certificate) as (ami, service):
        state, _ = await state_socket(service)
        both, _ = await state_socket(service, messages="both")
        events = await service.socket(messages="events")
        ami.event("MessageWaiting", Mailbox="6001@from-internal", Waiting="1", New="7", Old="0")
        assert [line["type"] for line in await state.read()] == ["change"]
        assert [line["type"] for line in await both.read(2)] == ["event", "change"]
        assert [line["type"] for line in await events.read(2)] == ["hello", "event"]
        assert await service.login() == 200
        status, text = await service.get(f"/api?ticket={await service.ticket()}&messages=all")
    assert (status, json.loads(text)["error"]) == (400, "messages should be one of events, state, both")


async def test_answers_to_lists_are_no_events(certificate):
    async with running(certificate) as (ami, service):
        client = await service.socket()
        await client.read()
        connection = service.service.exchange.connection
        taken: list[list] = []
        await connection.ask_list({"Action": "CoreShowChannels"}, taken.append, 5)
        assert [row["Event"] for row in taken[0]] == ["CoreShowChannel"] * 2
        # the rest of a list that has ended is none, either
        ami.event("CoreShowChannel", ActionID=ami.actions[-1]["ActionID"])
        ami.event("OriginateResponse", ActionID="another's")
        assert [line["event"] for line in await client.read()] == ["OriginateResponse"]


async def test_list_is_taken_at_its_place_among_events(certificate):
    """Events that follow a list in the same packet are applied after it."""
    async with Exchange() as ami, Running(ami, certificate, **LISTS) as service:
        await until(lambda: service.service.hub.known)
        order: list[str] = []
        connection = service.service.exchange.connection
        connection.on_event = lambda event: order.append(event.name)
        answer = ami.answer_list

        def with_events(writer, action):
            ami.event("Before")
            answer(writer, action)
            ami.event("After")

        ami.answer_list = with_events
        await connection.ask_list({"Action": "BridgeList"}, lambda rows: order.append("list"), 5)
        await until(lambda: len(order) == 3)
    assert order == ["Before", "list", "After"]


async def test_user_sees_items_of_his_filter_alone(certificate):
    async with running(certificate) as (ami, service):
        client, snapshots = await state_socket(service, "luis")  # Queue*
        assert [topic for topic in TOPICS if snapshots[topic]] == ["queues"]
        ami.pbx.meet("6003")
        waiting = ami.pbx.join("6003")
        (line,) = await client.read()
        assert (line["topic"], [who["call"] for who in line["item"]["waiting"]]) == ("queues", [waiting])


async def test_item_that_a_user_may_no_longer_see_is_gone():
    lines: list[dict] = []
    client = Client("x", Filter(numbers=["6002"]), 10, 1000, "state")
    client.put = lambda line: lines.append(json.loads(line))
    for number in ("6003", "6002", "6002", "6003", "6003", "6002"):
        person = {"number": number, "name": ""}
        call = {"id": "1", "caller": person, "callee": None, "answered_by": None, "queue": None, "conference": None}
        change = Change("calls", "1", {**call, "channels": []})
        client.put_change(change, change_line(change))
    change = Change("calls", "1", None)
    client.put_change(change, change_line(change))
    assert [line["type"] for line in lines] == ["change", "change", "gone", "change", "gone"]


async def test_lost_exchange_empties_nothing(certificate):
    async with running(certificate) as (ami, service):
        client, before = await state_socket(service)
        assert before["calls"]
        ami.answer_list, answer = lambda *_: None, ami.answer_list
        ami.drop()
        assert [line["state"] for line in await client.read(2)] == ["lost", "connected"]
        late, snapshots = await state_socket(service)
        assert snapshots["calls"] == before["calls"]
        ami.pbx.channels.clear()
        ami.pbx.bridges.clear()
        ami.answer_list = answer
        ami.drop()
        for listener in (client, late):
            lines = await listener.read(2 + len(TOPICS))
            assert [line.get("state") for line in lines[:2]] == ["lost", "connected"]
            assert [line["type"] for line in lines[2:]] == ["snapshot"] * len(TOPICS)
            assert {line["topic"]: line["items"] for line in lines[2:]}["calls"] == []


async def test_fault_in_the_model_begins_anew(certificate):
    async with running(certificate) as (ami, service):
        hub = service.service.hub
        take = hub.model.take_contacts
        hub.model.take_contacts = lambda number, contacts: 1 / 0
        ami.event("ContactStatus", AOR="6002", URI="x", ContactStatus="Reachable")
        await until(lambda: hub.losses)
        hub.model.take_contacts = take
        await until(lambda: hub.model.ready)
        await asyncio.sleep(0.05)
        tasks = [repr(task) for task in asyncio.all_tasks()]
        assert [sum(name in task for task in tasks) for name in ("Watch.rounds", "Watch.follow_up")] == [1, 1]


async def test_refused_list_leaves_the_rest(certificate):
    async with Exchange() as ami:
        ami.rows.update(QueueStatus=None, VoicemailUsersList=None)
        ami.pbx.call("6001", "6002")
        async with Running(ami, certificate, **LISTS) as service:
            await until(lambda: service.service.hub.known)
            _, snapshots = await state_socket(service)
            assert [call["state"] for call in snapshots["calls"]] == ["talking"]
            ami.rows["CoreShowChannels"] = None
            connection = service.service.exchange.connection
            await service.service.watch.pieces(connection)[0]()
            _, snapshots = await state_socket(service)
    assert [call["state"] for call in snapshots["calls"]] == ["talking"]
    assert snapshots["voicemail"] == [{"id": "6001", "name": "Ana", "new": None, "old": None}]


async def test_missed_events_are_made_good_by_the_next_round(certificate):
    async with running(certificate) as (ami, service):
        service.service.watch.round_seconds = 0.2
        client, _ = await state_socket(service)
        service.service.stop_watching()
        service.service.connected("again")
        await client.read(len(TOPICS))
        ami.pbx.send_to = lambda event: None
        ami.pbx.hang_up(*list(ami.pbx.channels))
        assert [line["type"] for line in await client.read()] == ["gone"]


async def test_channels_that_one_list_passes_over_stay(certificate):
    """Asterisk passes a channel over that is renamed while the list is made."""
    async with running(certificate) as (ami, service):
        client, _ = await state_socket(service)
        rows = [[], ami.pbx.channel_rows(), [], []]
        ami.rows["CoreShowChannels"] = lambda: rows.pop(0)
        channels = service.service.watch.pieces(service.service.exchange.connection)[0]
        await channels()
        ami.event("MessageWaiting", Mailbox="6001@from-internal", Waiting="1", New="7", Old="0")
        assert [line["topic"] for line in await client.read()] == ["voicemail"]
        await channels()
        assert (await client.read())[0]["type"] == "gone"
        assert not rows


async def test_registered_phones_are_asked_for(certificate):
    async with Exchange() as ami:
        ami.values = {
            "PJSIP_AOR(6002,contact)": "6002;@0f",
            "PJSIP_CONTACT(6002;@0f,uri)": "sip:6002@192.0.2.7:5060;transport=tcp",
            "PJSIP_CONTACT(6002;@0f,status)": "Reachable",
            "PJSIP_CONTACT(6002;@0f,rtt)": "2500",
            "PJSIP_CONTACT(6002;@0f,user_agent)": "<b>Phone</b>",
        }
        async with Running(ami, certificate, **LISTS) as service:
            await until(lambda: service.service.hub.known)
            client, snapshots = await state_socket(service)
            phone = next(item for item in snapshots["phones"] if item["id"] == "6002")
            contact = {"address": "192.0.2.7:5060", "transport": "tcp", "latency_ms": 2.5, "user_agent": "<b>Phone</b>"}
            assert (phone["state"], phone["contacts"]) == ("idle", [contact])
            ami.values.clear()
            ami.event("ContactStatus", AOR="6002", URI="x", ContactStatus="Removed")
            (line,) = await client.read()
            assert (line["item"]["id"], line["item"]["registered"]) == ("6002", False)
            a, _ = ami.pbx.call("6001", "6002")
            ami.values[f"{ami.pbx.channels[a]['Channel']} CHANNEL(audionativeformat)"] = "(alaw)"
            while True:
                (line,) = await client.read()
                if line["topic"] == "phones" and line["item"]["codec"]:
                    break
            assert (line["item"]["id"], line["item"]["codec"]) == ("6001", "alaw")


async def test_many_phones_leave_few_questions_open(certificate):
    phones = {str(number): False for number in range(1000, 1300)}
    waiting, most = set(), 0

    class Slow(Exchange):
        def answer(self, writer, action, **headers):
            nonlocal most
            if action["Action"] != "Getvar":
                super().answer(writer, action, **headers)
                return
            waiting.add(action["ActionID"])
            most = max(most, len(waiting))
            asyncio.get_running_loop().call_later(0.002, self.late, writer, action, headers)

        def late(self, writer, action, headers):
            waiting.discard(action["ActionID"])
            super().answer(writer, action, **headers)

    async with Slow() as ami, Running(ami, certificate, **{**LISTS, "phones": phones}) as service:
        await until(lambda: service.service.hub.known, 8)
        asked = len(ami.actions)
        for number in phones:
            ami.event("ContactStatus", AOR=number, URI="x", ContactStatus="Reachable")
        await until(lambda: len(ami.actions) >= asked + 300)
    assert 10 < most <= 50


async def test_metrics_tell_which_call_records_wait(certificate, tmp_path):
    path = tmp_path / "status.json"
    async with running(certificate, records_status=str(path)) as (_, service):
        assert "call_records" not in (await service.get("/metrics"))[1]
        path.write_text('{"waiting": 3, "waiting_events": 20, "oldest_seconds": 1.5, "rejected": 1, "problem": ""}')
        text = (await service.get("/metrics"))[1]
        assert "\napir_py_call_records_waiting 3\n" in text
        assert "\napir_py_call_records_events_waiting 20\n" in text
        assert "\napir_py_call_records_oldest_seconds 1.5\n" in text
        assert "\napir_py_call_records_rejected 1\n" in text
        path.write_text("[")
        assert "call_records" not in (await service.get("/metrics"))[1]


async def test_metrics_tell_when_the_last_copy_was_made(certificate, tmp_path):
    path = tmp_path / "status.json"
    async with running(certificate, copies_status=str(path)) as (_, service):
        assert "_copy_" not in (await service.get("/metrics"))[1]
        path.write_text('{"since": 5, "copied": 1790000000, "problem": "Restic check ended with 1."}')
        text = (await service.get("/metrics"))[1]
        assert "\napir_py_copy_timestamp_seconds 1790000000\n" in text
        assert "\napir_py_copy_checked_timestamp_seconds 0\n" in text
        assert "\napir_py_copy_failed 1\n" in text
        path.write_text("[]")
        assert "_copy_" not in (await service.get("/metrics"))[1]


async def test_metrics_tell_the_state(certificate):
    async with running(certificate) as (ami, service):
        agent = ami.pbx.log_in("6001")
        caller = ami.pbx.join("6003")
        ami.pbx.agent_answers(caller, agent, ami.pbx.ring_agent(caller, "6001"), "6001")
        gave_up = ami.pbx.join("6004")
        ami.pbx.unqueue(gave_up, abandoned=True)
        ami.pbx.join("6005")
        await until(lambda: service.service.hub.model.published["queues"]["sales"]["abandoned"])
        _, text = await service.get("/metrics")
    lines = set(text.splitlines())
    assert {
        'apir_py_calls{state="talking"} 2',
        'apir_py_calls{state="waiting"} 1',
        'apir_py_calls{state="held"} 0',
        "apir_py_phones 2",
        "apir_py_phones_registered 0",
        'apir_py_queue_callers{queue="sales"} 1',
        'apir_py_queue_members{queue="sales",state="talking"} 1',
        'apir_py_queue_answered_today{queue="sales"} 1',
        'apir_py_queue_abandoned_today{queue="sales"} 1',
        'apir_py_queue_answered_total{queue="sales"} 1',
        'apir_py_agents{state="talking"} 1',
        'apir_py_voicemail_new_messages{mailbox="6001"} 3',
        "# TYPE apir_py_queue_abandoned_total counter",
        "apir_py_exchange_connected 1",
    } <= lines
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line[0] != "#"}
    assert 0 <= values['apir_py_queue_longest_wait_seconds{queue="sales"}'] < 30 * 366 * 86400
    assert 1.9 < values["apir_py_certificate_days_left"] <= 2
    assert abs(values["apir_py_certificate_expires_timestamp_seconds"] - time.time() - 2 * 86400) < 600


def test_labels_are_escaped():
    text = metrics.written([metrics.Metric("m", "gauge", "x", {(("queue", 'a"b\\c\nd'),): 1.5})])
    assert text == '# HELP m x\n# TYPE m gauge\nm{queue="a\\"b\\\\c\\nd"} 1.5\n'


@pytest.mark.parametrize("key", ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:prime256v1"])
def test_end_of_a_certificate_is_read(tmp_path, key):
    for days in (1, 20000):  # two forms of times: the second is after 2049
        path = tmp_path / f"{days}.pem"
        command = f"openssl req -x509 -newkey {key} -nodes -days {days} -subj /CN=x -keyout /dev/null -out {path}"
        subprocess.run(command.split(), check=True, capture_output=True)
        shown = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-enddate"], capture_output=True, text=True)
        end = datetime.strptime(shown.stdout.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=timezone.utc)
        assert metrics.certificate_ends(str(path)) == end.timestamp()


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(tmp_path, text):
    path = tmp_path / "x.pem"
    path.write_text(text)
    with pytest.raises(ValueError):
        metrics.certificate_ends(str(path))


def test_counts_survive_a_restart_and_end_at_midnight(tmp_path):
    days = [date(2026, 1, 31)]
    today = Today(str(tmp_path), ["sales"], lambda: days[-1])
    for kind in ("answered", "answered", "abandoned"):
        today.add("sales", kind)
    today.save()
    again = Today(str(tmp_path), ["sales", "new"], lambda: days[-1])
    assert (again.counts("sales"), again.counts("new")) == ((2, 1), (0, 0))
    assert not again.roll()
    days.append(days[-1] + timedelta(days=1))
    assert again.roll()
    assert again.counts("sales") == (0, 0)
    assert Today(str(tmp_path), ["sales"], lambda: days[-1]).counts("sales") == (0, 0)
    assert again.since_start["sales"] == {"answered": 0, "abandoned": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["today.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"day": "2026-01-31", "queues": {"sales": {"answered": "x"}}}', "\xff"])
def test_counts_that_cannot_be_read_begin_at_zero(tmp_path, text):
    (tmp_path / "today.json").write_text(text, encoding="latin-1")
    assert Today(str(tmp_path), ["sales"], lambda: date(2026, 1, 31)).counts("sales") == (0, 0)


async def test_counts_are_kept_at_the_end_of_the_service(certificate, tmp_path):
    async with running(certificate, state_directory=str(tmp_path)) as (ami, service):
        gave_up = ami.pbx.join("6004")
        ami.pbx.unqueue(gave_up, abandoned=True)
        await until(lambda: service.service.today.counts("sales") == (0, 1))
    kept = json.loads((tmp_path / "today.json").read_text())
    assert kept == {"day": date.today().isoformat(), "queues": {"sales": {"answered": 0, "abandoned": 1}}}
