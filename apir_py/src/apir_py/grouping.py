"""Which channels belong to the same call."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from apir_py.channels import Call, Channel

if TYPE_CHECKING:
    from apir_py.state import Model


def together(model: Model, start: str) -> set[str]:
    """The channels of the same call: of one origin, one dialled by the other, ends of one Local, or in one bridge.

    An agent who has logged in waits in a call of his own, and belongs to a caller's while they are in one bridge:
    then Asterisk gives all of them the Linkedid of the login, one caller after the other.
    """
    found, todo = {start}, [start]
    while todo:
        channel = model.channels[todo.pop()]
        near: set[str] = set()
        if channel.bridge and model.bridges.get(channel.bridge, "talk") == "talk":
            near |= model.bridged[channel.bridge]
        if not channel.agent:
            near |= model.dials.get(channel.uid, set())
            near |= {uid for uid in model.origins[channel.origin] if not model.channels[uid].agent}
            near |= model.pairs.get(channel.pair, set())
            if channel.dialler:
                near.add(channel.dialler)
        near -= found
        found |= near
        todo += near
    return found


def regroup(model: Model) -> None:
    """Give each channel that has moved to its call, and end or begin calls."""
    done: set[str] = set()
    moved, model.moved = model.moved, set()
    for start in sorted(moved & model.channels.keys()):
        if start not in done:
            group = together(model, start)
            done |= group
            assign(model, group)


def assign(model: Model, group: set[str]) -> None:
    """Make a group of channels one call, which is an old one of theirs if there is any."""
    calls = {model.calls[model.channels[uid].call] for uid in group if model.channels[uid].call in model.calls}
    anchor = elect(model, group)
    if anchor.agent:  # whose caller has gone waits in a call of his own again
        owners = [call for call in calls if call.anchor == anchor.uid]
    else:
        owners = [call for call in calls if call.anchor in group and not model.channels[call.anchor].agent]
        owners = owners or [call for call in calls if call.anchor not in model.channels]
    if owners:
        call = min(owners, key=lambda call: rank(model, call))
        if call.anchor not in group or caller_rank(model.channels[call.anchor]) > caller_rank(anchor):
            call.anchor = anchor.uid
    else:
        id = anchor.origin
        while id in model.calls:
            id = anchor.uid if id == anchor.origin else id + "+"
        call = model.calls[id] = Call(id, anchor, model.at)
    for uid in group:
        channel = model.channels[uid]
        if channel.call != call.id:
            model.out_of_call(channel)
            channel.call = call.id
            call.channels.add(uid)
    model.mark("calls", call.id)


def rank(model: Model, call: Call) -> tuple[bool, datetime, str]:
    """Which of several calls goes on: the least is that of a real channel that began first."""
    anchor = model.channels.get(call.anchor)
    return bool(anchor and anchor.inner), call.began, call.id


def elect(model: Model, group: set[str]) -> Channel:
    """The caller's channel, the oldest if several may be."""
    channels = (model.channels[uid] for uid in group)
    return min(channels, key=lambda channel: (caller_rank(channel), channel.began, channel.uid))


def caller_rank(channel: Channel) -> tuple[bool, bool, bool]:
    """Whose channel is less likely the caller's: an inner one, an agent's, one that was dialled."""
    return channel.inner, bool(channel.agent), channel.dialled
