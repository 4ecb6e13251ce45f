"""Names find what is registered, what a stranger's module registers, and what it just defines."""

import importlib
import re
import sys

import pytest

from jepa_mpc.errors import UserError
from jepa_mpc.planners import PLANNERS, CEMConfig
from jepa_mpc.registry import Registry, same, split_camera, takes


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A stranger's module in the folder that one stands in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strangers_module.py").write_text(
        "import builtins\nbuiltins.strangers_registry.register('by_name', 7)\ndefined = 8\n"
    )
    yield "strangers_module"
    sys.modules.pop("strangers_module", None)


@pytest.fixture
def registry(monkeypatch):
    registry = Registry("planner")
    monkeypatch.setattr("builtins.strangers_registry", registry, raising=False)
    registry.register("cem", 1)
    registry.register("mppi", 2)
    return registry


def test_names_find_values_in_their_order(registry):
    assert list(registry) == ["cem", "mppi"]
    assert registry["mppi"] == 2
    assert "cem" in registry
    assert "icem" not in registry
    assert registry.name_of(2) == f"{__name__}:mppi"
    assert PLANNERS.name_of(CEMConfig) == "cem"


@pytest.mark.parametrize(("name", "hint"), [("mpi", "did you mean mppi? "), ("p", "did you mean mppi? "), ("xyzw", "")])
def test_unknown_names_get_a_hint_and_the_names_there_are(registry, name, hint):
    with pytest.raises(UserError, match=re.escape(f"unknown planner '{name}'; {hint}there are: cem, mppi") + "$"):
        registry[name]


def test_where_names_are_many_a_command_lists_them():
    registry = Registry("task", listed_by="jepa-mpc tasks")
    registry.register("reacher", 1)
    with pytest.raises(UserError, match=r"unknown task 'recher'; did you mean reacher\?$"):
        registry["recher"]
    with pytest.raises(UserError, match=r"unknown task 'xyzw'; `jepa-mpc tasks` lists them$"):
        registry["xyzw"]


def test_a_name_is_given_once(registry):
    registry.register("cem", 1)
    with pytest.raises(UserError, match="there is a planner 'cem' already"):
        registry.register("cem", 3)
    assert registry["cem"] == 1


def test_strangers_come_by_module_and_name(registry, module):
    assert registry[f"{module}:by_name"] == 7
    assert registry["by_name"] == 7
    assert registry[f"{module}:defined"] == 8
    assert list(registry) == ["cem", "mppi", "by_name"]


def test_what_a_module_registered_is_found_however_it_was_imported(registry, module):
    importlib.import_module(module)
    assert registry[f"{module}:by_name"] == 7
    assert registry.name_of(7) == f"{module}:by_name"
    with pytest.raises(UserError, match="'strangers_module' has no 'mppi'"):
        registry[f"{module}:mppi"]


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("dot", "dot", True),
        ("my_robot:dot", "dot", True),
        ("dot", "my_robot:dot", True),
        ("my_robot:dot", "his_robot:dot", False),
        ("my_robot:dot", "my_robot:dash", False),
        ("dot", "reacher", False),
        ("my_robot:dot", "reacher", False),
    ],
)
def test_a_name_with_its_module_means_the_same(one, other, answer):
    assert same(one, other) is answer


def test_installed_packages_list_modules_that_register(registry, module, tmp_path, monkeypatch):
    package = tmp_path / "strangers-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: strangers\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[jepa_mpc]\nall = {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry["by_name"] == 7


def test_the_folder_one_stands_in_hides_no_installed_module(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    (tmp_path / "wave.py").write_text("open = 1\n")
    assert callable(registry["wave:open"])


def test_references_are_imported_when_asked_for(registry):
    registry.register("join", "os.path:join")
    assert registry["join"]("a", "b") == "a/b"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (":x", "':x' names no module"),
        (".near:x", "'.near:x' names no module"),
        ("./near:x", "names no module"),
        ("no_such_module:x", "no module 'no_such_module'"),
        ("strangers_module:cem", "'strangers_module' has no 'cem'"),
    ],
)
def test_what_is_not_there_is_one_line(registry, module, name, line):
    with pytest.raises(UserError, match=line):
        registry[name]


def test_a_strangers_own_mistake_is_not_ours(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_module.py").write_text("import no_such_thing_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_thing_at_all"):
        registry["broken_module:x"]


def test_a_name_in_a_file_imports_nothing(registry, module):
    line = f"^planner '{module}:by_name' is code that is not loaded; import {module} first, or say --planner {module}:"
    with pytest.raises(UserError, match=line):
        registry.loaded(f"{module}:by_name")
    assert module not in sys.modules
    importlib.import_module(module)
    assert registry.loaded(f"{module}:by_name") == registry.loaded("by_name") == 7


@pytest.mark.parametrize("name", ["os:system", "strangers_module:defined", "os:by_name", "strangers_module:cem"])
def test_a_name_in_a_file_means_what_that_module_has_registered_and_nothing_else(registry, module, name):
    importlib.import_module(module)
    with pytest.raises(UserError, match="is code that is not loaded"):
        registry.loaded(name)


def test_what_a_person_has_named_a_file_may_name_too(registry, module):
    assert registry[f"{module}:defined"] == registry.loaded(f"{module}:defined") == 8


def test_what_is_written_into_a_file_can_be_read_in_the_same_program():
    class MyConfig(CEMConfig):
        pass

    assert PLANNERS.loaded(PLANNERS.name_of(MyConfig)) is MyConfig


@pytest.mark.parametrize("value", [7, None, lambda one: one, lambda *, one, two: one, "os:getcwd"])
def test_what_is_not_of_its_kind_is_refused(value):
    registry = Registry("rule", must=takes(2))
    registry.register("mine", value)
    with pytest.raises(UserError, match="mine is no rule: it must be a function of 2 arguments, not "):
        registry["mine"]
    with pytest.raises(UserError, match="os:getcwd is no rule"):
        registry["os:getcwd"]


@pytest.mark.parametrize("value", [max, divmod, lambda one, two, three=0: one, lambda *all: all, "os.path:join"])
def test_functions_that_can_take_the_arguments_are_of_their_kind(value):
    registry = Registry("rule", must=takes(2))
    registry.register("mine", value)
    assert callable(registry["mine"])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("reacher", ("reacher", "")),
        ("reacher@90,-30", ("reacher", "90,-30")),
        ("gym/my.robots:Arm-v0@front+wrist", ("gym/my.robots:Arm-v0", "front+wrist")),
        ("arm.xml", ("arm.xml", "")),
        ("my/arm.XML@hand/front", ("my/arm.XML", "hand/front")),
        ("/home/user@corp/arm.xml", ("/home/user@corp/arm.xml", "")),
        ("/home/user@corp/arm.xml@hand/front", ("/home/user@corp/arm.xml", "hand/front")),
    ],
)
def test_a_camera_stands_behind_its_task(name, parts):
    assert split_camera(name) == parts


def test_a_model_file_is_the_same_wherever_it_lies_and_is_seen_alike():
    assert same("a/arm.xml@hand/front", "b/arm.xml@hand/front")
    assert not same("a/arm.xml@hand/front", "a/leg.xml@hand/front")
    assert not same("arm.xml@hand/front", "arm.xml@front")
    assert not same("arm.xml@front", "arm.xml")
