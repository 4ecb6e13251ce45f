"""The rooms' arrows: eval → agent → {world_model, planners, envs}, and the three at the bottom never meet."""

import ast

import pytest
from conftest import ROOT

ALLOWED = {
    "envs": set(),
    "world_model": set(),
    "planners": set(),
    "agent": {"envs", "world_model", "planners"},
    "eval": {"envs", "world_model", "planners", "agent"},
}


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_lies_below_it(room):
    for path in (ROOT / room).rglob("*.py"):
        foreign = (set(imported_rooms(path)) & set(ALLOWED)) - ALLOWED[room] - {room}
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_agents_are_never_told_of_success():
    """Rivals that learn from reward are, while they learn; the oracle plans by the pose's error, which says so too."""
    told = {"oracle.py", "her.py", "dreamer_env.py"}
    for path in (path for path in (ROOT / "agent").rglob("*.py") if path.name not in told):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not names & {"success", "error", "tolerance", "goal_qpos"}, path.name
