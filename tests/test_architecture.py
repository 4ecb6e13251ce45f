"""The rooms' arrows: eval → agent → {world_model, planners, envs} → the ground floor, and the three never meet."""

import ast

import pytest
from conftest import ROOT

ROOMS = {"envs", "world_model", "planners", "agent", "eval"}
ALLOWED = {
    "jepa_mpc": set(),
    "envs": set(),
    "world_model": set(),
    "planners": set(),
    "agent": {"envs", "world_model", "planners"},
    "eval": {"envs", "world_model", "planners", "agent"},
}


def imported_rooms(source):
    """The rooms that a module imports: the second part of `jepa_mpc.<room>…`, and a bare one by its old name."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            first, second, *_ = [*name.split("."), "", ""]
            if first in ROOMS or (first == "jepa_mpc" and second in ROOMS):
                yield first if first in ROOMS else second


def files(room):
    # The ground floor's folder links to the rooms, which are not part of it.
    return sorted((ROOT / room).glob("*.py") if room == "jepa_mpc" else (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_lies_below_it(room):
    assert files(room)
    for path in files(room):
        foreign = set(imported_rooms(path.read_text())) - ALLOWED[room] - {room}
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


@pytest.mark.parametrize(
    "line",
    [
        "from jepa_mpc.planners.base import Plan",
        "from jepa_mpc import planners",
        "import jepa_mpc.planners",
        "import planners.base",
    ],
)
def test_every_form_of_import_is_seen(line):
    assert set(imported_rooms(f"def inside():\n    {line}")) == {"planners"}


def test_the_arrows_that_are_drawn_are_there():
    """The test above would pass on files that import nothing, so what should be seen is seen."""
    seen = {room: {other for path in files(room) for other in imported_rooms(path.read_text())} for room in ALLOWED}
    assert seen["agent"] >= ALLOWED["agent"]
    assert seen["eval"] >= ALLOWED["eval"]


def test_a_room_is_only_ever_imported_by_its_full_name():
    """`import envs` would be somebody else's."""
    for path in [path for room in ALLOWED for path in files(room)] + sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            bare = {module.split(".")[0] for module in modules} & ROOMS
            assert not bare, f"{path.relative_to(ROOT)} imports {bare} bare"


def test_agents_are_never_told_of_success():
    """Rivals that learn from reward are, while they learn; the oracle plans by the pose's error, which says so too."""
    told = {"oracle.py", "train_her.py", "dreamer_env.py"}
    for path in (path for path in (ROOT / "agent").rglob("*.py") if path.name not in told):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not names & {"success", "error", "tolerance", "goal_qpos"}, path.name
