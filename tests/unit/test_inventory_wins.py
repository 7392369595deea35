"""What the inventory says is in force: no playbook, role or task gives a public variable another value."""

from __future__ import annotations

from pathlib import Path

import pytest
import rendering
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.playbook.block import Block
from ansible.playbook.helpers import load_list_of_blocks
from ansible.playbook.role_include import IncludeRole
from ansible.vars.manager import VariableManager

PLAYBOOKS = sorted(path.name for path in (rendering.ROOT / "playbooks").glob("*.yml") if path.name != "site.yml")


def options(role: str) -> set[str]:
    """The names of a role's public variables."""
    spec = rendering.load(rendering.ROLES / role / "meta/argument_specs.yml")["argument_specs"]["validate"]
    return set(spec["options"])


ROLES = sorted(path.name for path in rendering.ROLES.iterdir())
WANTED = {name: f"the inventory's {name}" for role in ROLES for name in options(role)}


def tasks_of(blocks, play, variables, loader):
    """Every task of a list of blocks, also those of the roles that are included while a playbook runs."""
    for task in blocks:
        if isinstance(task, Block):
            for part in (task.block, task.rescue, task.always):
                yield from tasks_of(part, play, variables, loader)
        elif isinstance(task, IncludeRole) and not task.statically_loaded and "{{" not in task._role_name:
            included, _handlers = task.get_block_list(play=play, variable_manager=variables, loader=loader)
            yield from tasks_of(included, play, variables, loader)
        elif task.args.get("_raw_params") == "connect.yml":  # the one tasks file of the playbooks that includes roles
            path = rendering.ROOT / "playbooks/tasks/connect.yml"
            loader.set_basedir(str(path.parent))
            included = load_list_of_blocks(
                yaml.safe_load(path.read_text()), play, variable_manager=variables, loader=loader
            )
            yield from tasks_of(included, play, variables, loader)
        else:
            yield task


def seen(playbook: Path, inventory: Path):
    """(task, its role's name, its variables) for every task of a playbook that belongs to a role of the collection."""
    loader = DataLoader()
    hosts = InventoryManager(loader, [str(inventory)])
    variables = VariableManager(loader, hosts)
    for play in Playbook.load(str(playbook), variable_manager=variables, loader=loader).get_plays():
        blocks = [block for block in play.compile() if isinstance(block, Block)]
        for task in tasks_of(blocks, play, variables, loader):
            if task._role is not None:
                host = hosts.get_host("pbx1")
                yield (
                    task,
                    task._role._role_name.rpartition(".")[2],
                    variables.get_vars(play=play, host=host, task=task),
                )


@pytest.fixture(scope="module")
def inventory(tmp_path_factory):
    """An inventory that gives every public variable of every role a value of its own."""
    path = tmp_path_factory.mktemp("inventory") / "hosts.yml"
    groups = {"pbx": {"hosts": {"pbx1": None}}, "builders": None, "databases": None}
    path.write_text(yaml.safe_dump({**groups, "all": {"vars": WANTED}}))
    return path


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_every_role_sees_the_inventorys_values(playbook, inventory):
    count = 0
    for task, role, variables in seen(rendering.ROOT / "playbooks" / playbook, inventory):
        expected = {name: WANTED[name] for name in options(role) | options("labredes")}
        assert {name: variables[name] for name in expected} == expected, f"{playbook}: {task}"
        count += 1
    assert count, "no task of a role was seen"


def test_no_task_sets_a_public_variable():
    playbooks = rendering.ROOT / "playbooks"
    for path in [*rendering.ROLES.glob("*/tasks/*.yml"), *playbooks.glob("*.yml"), *playbooks.glob("tasks/*.yml")]:
        for task in all_tasks(yaml.safe_load(path.read_text())):
            set_here = {*(task.get("ansible.builtin.set_fact") or {}), *(task.get("vars") or {})}
            assert not set_here & set(WANTED), f"{path.name}: {task.get('name')}"


def all_tasks(tasks):
    """Every task, play and block of a file, however deep."""
    for task in tasks or []:
        yield task
        for part in ("block", "rescue", "always", "pre_tasks", "tasks", "post_tasks", "handlers", "roles"):
            yield from all_tasks([entry for entry in task.get(part) or [] if isinstance(entry, dict)])
