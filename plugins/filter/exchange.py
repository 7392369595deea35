# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter exchange_problems: what phones, queues and numbers must have in common, which no rule of one value can say."""

from __future__ import annotations

from ansible.module_utils.parsing.convert_bool import boolean


def exchange_problems(phones, conferences, queues, call_centres, applications, codes, agent_seconds, webrtc):
    """One sentence for each problem, naming the entry and the cure; webrtc: whether browsers can connect."""
    numbers = [(f"pbx_phones[{index}]", phone["number"]) for index, phone in enumerate(phones)]
    numbers += [(f"pbx_conferences[{index}]", number) for index, number in enumerate(conferences)]
    for variable, entries in {"queues": queues, "call_centres": call_centres, "applications": applications}.items():
        numbers += [(f"pbx_{variable}[{index}]", entry["number"]) for index, entry in enumerate(entries)]
    problems = number_problems(numbers + [(f"pbx_codes.{key}", code) for key, code in codes.items()])
    for index, phone in enumerate(phones):
        entry = f"pbx_phones[{index}] ({phone['number']})"
        if phone.get("pin") and not boolean(phone["mailbox"]):
            problems.append(f"{entry}: has a pin but no mailbox; remove one of the two.")
        if boolean(phone["webrtc"]) and not webrtc:
            problems.append(
                f"{entry}: has webrtc, but labredes_events_enabled is false and labredes_sip_transports has no wss; "
                "change one of them or remove webrtc."
            )
    agents = {str(phone["number"]): bool(phone.get("agent")) for phone in phones}
    problems += queue_problems(queues, agents, int(agent_seconds))
    for index, centre in enumerate(call_centres):
        for key, number in centre["departments"].items():
            if str(number) not in agents:
                entry = f"pbx_call_centres[{index}] ({centre['number']})"
                problems.append(f"{entry}: department {key} is {number}, which is not a phone; add it to pbx_phones.")
    return problems


def number_problems(numbers):
    """Sentences about (entry, number) pairs of which a number is used twice."""
    problems: list[str] = []
    owners: dict[str, str] = {}
    for entry, number in numbers:
        if str(number) in owners:
            problems.append(f"{entry}: {number} is taken by {owners[str(number)]}; give it another number.")
        owners.setdefault(str(number), entry)
    return problems


def queue_problems(queues, agents, agent_seconds):
    """Sentences about queues. ``agents`` maps the number of each phone to whether its user is an agent."""
    problems: list[str] = []
    names: dict[str, str] = {}
    for index, queue in enumerate(queues):
        entry, name = f"pbx_queues[{index}] ({queue['name']})", str(queue["name"]).lower()
        if name in names:
            problems.append(f"{entry}: the name is taken by {names[name]}; choose another.")
        names.setdefault(name, entry)
        listed = [str(number) for number in queue["agents"]]
        for number in dict.fromkeys(listed):
            if number not in agents:
                problems.append(f"{entry}: agent {number} is not a phone; add it to pbx_phones or remove it.")
            elif not agents[number]:
                problems.append(
                    f"{entry}: phone {number} has no agent name; give it agent: in pbx_phones or remove it."
                )
            if listed.count(number) > 1:
                problems.append(f"{entry}: agent {number} is listed twice; remove one.")
        ring, wait = int(queue["timeout"]), int(queue["max_wait"])
        if ring <= agent_seconds:
            problems.append(f"{entry}: timeout {ring} must be longer than the {agent_seconds} s of pbx_agent_seconds.")
        if wait < ring:
            problems.append(f"{entry}: max_wait {wait} is shorter than timeout {ring}; make it longer.")
    return problems


class FilterModule:
    """The filter, by name."""

    def filters(self):
        """The name that templates use."""
        return {"exchange_problems": exchange_problems}
