"""The dialplan is consistent: every jump has a target, and no dialled digits reach Dial unfiltered."""

from __future__ import annotations

import re
from dataclasses import dataclass

import asterisk_files
import pytest
import rendering

DIALPLAN = rendering.ROLES / "pbx/templates/etc/asterisk/extensions.conf.j2"
CONFERENCES = rendering.ROLES / "pbx/templates/etc/asterisk/confbridge.conf.j2"
# Spanish core sounds 1.6.1 that may be played; for a missing one Asterisk plays English without a warning.
SPANISH_PROMPTS = {
    "beep",
    "pbx-invalid",
    "vm-enter-num-to-call",
    "vm-sorry",
    "vm-goodbye",
    "vm-deleted",
    "vm-nobodyavail",
    "vm-isonphone",
    "vm-saved",
    "agent-incorrect",
    "confbridge-join",
    "confbridge-leave",
    "conf-onlyperson",
    "confbridge-only-one",
    "agent-loginok",
    "agent-loggedoff",
    "agent-pass",
    "agent-user",
}
# Values that a caller chooses. FILTER removes all characters but the given ones.
UNFILTERED = re.compile(r"\$\{(EXTEN|CALLERID|DB\(|CDR|CHANNEL\(exten)")


@dataclass(frozen=True)
class Step:
    """One priority: its place, its application and the arguments."""

    context: str
    extension: str
    priority: int
    label: str | None
    application: str
    arguments: str

    def __str__(self):
        return f"[{self.context}] {self.extension},{self.priority}"


def steps(text: str) -> list[Step]:
    """Every priority of a dialplan, `same` and `n` resolved."""
    found = []
    for section in asterisk_files.parse(text):
        extension, priority = None, 0
        for key, value in section.settings:
            if key not in ("exten", "same"):
                assert section.name == "general" or key in ("include", "switch"), f"[{section.name}] {key}"
                continue
            if key == "exten":
                extension, _, value = value.partition(",")
            if value.startswith("hint,"):
                assert re.fullmatch(r"hint,(PJSIP|confbridge|Queue):?/?[\w-]+", value), value
                continue
            match = re.fullmatch(r"(n|\d+)(?:\((\w+)\))?,(\w+)\((.*)\)", value)
            assert match and extension, f"[{section.name}] {key} => {value}"
            priority = priority + 1 if match[1] == "n" else int(match[1])
            found.append(Step(section.name, extension, priority, match[2], match[3], match[4]))
    return found


def split(arguments: str) -> list[str]:
    """Arguments at their top-level commas."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "({[") - (character in ")}]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def jumps(step: Step) -> list[tuple[str, str, str]]:
    """(context, extension, priority or label) of every place that a step may jump to."""
    name, arguments = step.application.lower(), split(step.arguments)
    targets = []
    if name in ("gosub", "goto"):
        targets = [arguments]
    elif name in ("gosubif", "gotoif"):
        condition, _, branches = step.arguments.partition("?")
        targets = [split(branch) for branch in branches.split(":") if branch]
    return [place(step, [re.sub(r"\(.*\)$", "", part) for part in target]) for target in targets]


def place(step: Step, target: list[str]) -> tuple[str, str, str]:
    """A jump's target, its missing parts taken from the step."""
    return tuple([step.context, step.extension][: 3 - len(target)] + target)


@pytest.fixture(scope="module", params=["defaults", "unusual"])
def description(request):
    """The two descriptions, by name."""
    return {} if request.param == "defaults" else rendering.UNUSUAL


@pytest.fixture(scope="module")
def known(description, tmp_path_factory):
    """The variables that the templates see."""
    return rendering.variables(rendering.FACTS["Debian 12"], description, tmp_path_factory.mktemp("secrets"), "pbx")


@pytest.fixture(scope="module")
def dialplan(known):
    """Every step of the rendered dialplan."""
    return steps(rendering.render(DIALPLAN, known))


def test_priorities_begin_at_1_without_gaps(dialplan):
    by_extension = {}
    for step in dialplan:
        by_extension.setdefault((step.context, step.extension), []).append(step.priority)
    for where, priorities in by_extension.items():
        assert priorities == list(range(1, len(priorities) + 1)), where


def test_every_jump_has_a_target(dialplan):
    places = {(step.context, step.extension, str(step.priority)) for step in dialplan}
    places |= {(step.context, step.extension, step.label) for step in dialplan if step.label}
    wrong = [
        f"{step} jumps to {target}"
        for step in dialplan
        for target in jumps(step)
        if "$" not in "".join(target) and target not in places and target[0] != "call-centres"
    ]
    assert not wrong


def test_extension_ends_with_hangup_or_return(dialplan):
    last = {(step.context, step.extension): step for step in dialplan}
    wrong = [
        str(step)
        for step in last.values()
        if step.application not in ("Hangup", "Return", "Goto") and step.arguments != "unknown-number,s,1"
    ]
    assert not wrong


def test_unfiltered_caller_input_is_not_dialled(dialplan):
    wrong = [
        f"{step} {step.application}({step.arguments})"
        for step in dialplan
        if step.application in ("Dial", "System", "TrySystem", "Queue", "Page", "Originate", "ConfBridge")
        and UNFILTERED.search(step.arguments)
    ]
    wrong += [
        f"{step} passes {step.arguments}"
        for step in dialplan
        if step.application in ("Gosub", "GosubIf")
        and UNFILTERED.search(step.arguments)
        and not step.extension.startswith("_")
    ]
    assert not wrong


def test_catch_all_pattern_passes_no_digits(dialplan):
    wild = [step for step in dialplan if re.match(r"_.*[.!]$", step.extension)]
    assert wild and all((step.application, step.arguments) == ("Gosub", "unknown-number,s,1") for step in wild)


def test_special_extensions_are_not_unknown_numbers(dialplan):
    """h, i, s, t: an extension that takes them would run after every hangup."""
    assert not [str(step) for step in dialplan if re.match(r"_\[[^]]*[a-z][^]]*\]!?$", step.extension)]


def test_prompts_exist_in_spanish(dialplan, known):
    played = {}
    for step in dialplan:
        if step.application in ("Playback", "Background", "BackGround", "Read"):
            prompts = split(step.arguments)[1 if step.application == "Read" else 0]
            played.update({prompt: str(step) for prompt in prompts.split("&") if prompt})
    for section in asterisk_files.parse(rendering.render(CONFERENCES, known)):
        played.update(
            {value: f"confbridge.conf [{section.name}]" for key, value in section.settings if key.startswith("sound_")}
        )
    assert played
    assert {prompt: where for prompt, where in played.items() if prompt not in SPANISH_PROMPTS} == {}


def test_every_described_number_can_be_dialled(dialplan, known):
    wanted = (
        {phone["number"] for phone in known["pbx_phones"]}
        | set(known["pbx_conferences"])
        | set(known["pbx_codes"].values())
    )
    wanted |= {
        entry["number"] for entry in [*known["pbx_queues"], *known["pbx_call_centres"], *known["pbx_applications"]]
    }
    assert wanted <= {step.extension for step in dialplan if step.context in ("phones", "services")}
    # A phone transfers calls to each of them, and to nothing else.
    assert wanted == {step.extension for step in dialplan if step.context == "transferred"}


def test_context_of_phones_exists(known):
    sections = asterisk_files.parse(rendering.render(DIALPLAN.with_name("pjsip.conf.j2"), known))
    contexts = {section.get("context") for section in sections} - {None}
    there = {section.name for section in asterisk_files.parse(rendering.render(DIALPLAN, known))}
    assert contexts and contexts <= there
    endpoints = {
        section.name
        for section in sections
        if not section.template and asterisk_files.setting(sections, section, "type") == "endpoint"
    }
    assert endpoints == {phone["number"] for phone in known["pbx_phones"]}
