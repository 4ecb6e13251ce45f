"""An exported agent acts as the agent does that it was made of, without PyTorch, and names what is wrong."""

import importlib.util
import itertools
import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT
from scipy.stats import ks_2samp

from jepa_mpc.agent import decision_graph
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.agent.decision_graph import graph_of
from jepa_mpc.agent.export import ExportConfig, _require_same, difference, export, noise_for
from jepa_mpc.agent.exported import INFO, NEXT, ExportedAgent, ExportInfo
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.agent.robot import Driver, Pace
from jepa_mpc.errors import UserError
from jepa_mpc.eval.speed.exported import ExportedSpeedConfig, measure
from jepa_mpc.planners import CEMConfig, GradientConfig, ICEMConfig, MPPIConfig
from jepa_mpc.planners.cem import CEM
from jepa_mpc.settings import to_json
from jepa_mpc.world_model.interface import Bounds, Interface
from jepa_mpc.world_model.latent_policy.policy import Regression
from jepa_mpc.world_model.latent_policy.retrieval import Retrieval, RetrievalConfig
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.model.reachability import ReachabilityConfig
from jepa_mpc.world_model.model.surprise import UsualMiss

BOUNDS = Bounds(np.array([-1, -2], np.float32), np.array([1, 0.5], np.float32))
MIDDLE = [0, -0.75]
BLOCK, SIDE = 2, 16
SEARCH = ICEMConfig(num_samples=12, num_elites=4, num_iterations=2)


def blind_at_the_goal(model, future, z_now, z_goal):
    """An objective of a stranger's, which knows no distance where the goal is what is seen."""
    there = (z_now[:, None, None] == z_goal).all(-1)
    return torch.where(there, torch.nan, model.latent_distance(future, z_goal))


def small_model(num_views, num_felt):
    """Random weights, all of them: as a model begins, its predictor says that nothing moves."""
    torch.manual_seed(0)
    sizes = {
        "encoder": EncoderConfig(image_size=SIDE, num_views=num_views, channels=(4, 8)),
        "predictor": PredictorConfig(width=16, depth=1),
        "proprio_dim": num_felt,
    }
    metric = ReachabilityConfig(hidden=16, metric_dim=4, velocity=True)
    model = JEPA(JEPAConfig(2 * BLOCK, embed_dim=8, projector_hidden=16, reachability=metric, **sizes)).eval()
    for parameter in model.predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.usual_miss = UsualMiss(0.5, (1.0, 0.5), 0.1)
    return model.requires_grad_(False)


def small_agent(num_views=1, num_felt=0, **settings):
    settings, model = (
        {"planner": SEARCH, "history_len": 2, "offset_rate": 0.2, **settings},
        small_model(num_views, num_felt),
    )
    return PlanningAgent(model, BOUNDS, BLOCK, AgentConfig(**settings), small_policy(settings.get("warm_start")))


def small_policy(kind):
    """Random weights; what is retrieved is of episodes of five frames, far apart."""
    if kind == "retrieval":
        policy = Retrieval(50, 8, 2 * BLOCK, RetrievalConfig(num_near=20, reach=2, num_plans=6))
        torch.nn.init.normal_(policy.z, std=3.0), torch.nn.init.normal_(policy.action)
        policy.left.copy_(4 - torch.arange(50) % 5)
        return policy.eval()
    return Regression(8, 2 * BLOCK, 16).eval().requires_grad_(False) if kind else None


def info_of(agent):
    low, high = (tuple(end.tolist()) for end in BOUNDS)
    seen = [f"camera {index}" for index in range(agent.model.config.encoder.num_views)]
    felt = tuple(f"joint {index}" for index in range(agent.num_proprio))
    interface = Interface(low, high, BLOCK, 0.1, SIDE, tuple(seen if len(seen) > 1 else ()), felt)
    return ExportInfo("square", interface, to_json(agent.config), "abc", "def")


def pictures(count, seed=0, num_views=1):
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, num_views * SIDE, 3), np.uint8)


ONE_ROUND = {"num_samples": 12, "num_iterations": 1}
WAYS = {
    "icem": {
        "planner": ICEMConfig(**ONE_ROUND, num_elites=4),
        "objective": "test_export:blind_at_the_goal",
        "warm_start": "retrieval",
    },
    "mppi, proposed, a block ahead, by two cameras and what is felt": {
        "num_views": 2,
        "num_felt": 3,
        "planner": MPPIConfig(**ONE_ROUND, temperature=2.0),
        "history_len": 1,
        "receding_horizon": 2,
        "reduction": "terminal",
        "effort_weight": 0.0,
        "warm_start": "inverse",
        "blocks_ahead": 1,
    },
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns an agent and the file that it is exported to, by its name in `WAYS`; each is traced once."""
    made, folder = {}, tmp_path_factory.mktemp("exported")

    def make(name):
        if name not in made:
            agent, path = small_agent(**WAYS[name]), folder / f"{len(made)}.onnx"
            path.write_bytes(graph_of(agent, info_of(agent)))
            made[name] = agent, path
        return made[name]

    return make


@pytest.fixture
def loaded(exported):
    return ExportedAgent.load(exported("icem")[1])


@pytest.mark.parametrize("name", WAYS)
def test_it_acts_as_the_agent_does_with_the_same_noise(exported, name):
    """Six episodes of nine decisions, longer than what is remembered; in each, one picture does not come."""
    agent, path = exported(name)
    mine, blocks = ExportedAgent.load(path), []
    for episode in range(6):
        goal, *seen = pictures(10, episode, agent.model.config.encoder.num_views)[:, None]
        felt = np.random.default_rng(episode).normal(size=(9, 1, agent.num_proprio))
        felt[episode] = np.nan
        seen[1 + episode] = None
        for each in (agent, mine):
            each.reset(goal, [episode])
        for picture, now in zip(seen, felt, strict=True):
            noise, told = noise_for(agent), (picture, None if picture is None or not agent.num_proprio else now)
            block = mine.act(*told, noise=noise)
            assert block.shape == (1, BLOCK, 2)
            assert block.dtype == np.float32
            np.testing.assert_allclose(block, agent.act(*told), atol=1e-5, rtol=0)
            np.testing.assert_allclose(mine.surprise(), agent.surprise(), rtol=1e-4)
            blocks.append(block)
    assert np.std(blocks, axis=0).min() > 0.05  # it does this and that


EVERY_WAY = {
    **WAYS,
    "icem, proposed, a block ahead": {"history_len": 1, "horizon": 1, "warm_start": "inverse", "blocks_ahead": 1},
    "one frame": {"history_len": 1},
    "three frames, three blocks": {"history_len": 3, "horizon": 3, "receding_horizon": 2},
    "latent, minimum": {"objective": "latent", "reduction": "minimum", "effort_weight": 2.0, "offset_rate": 0.0},
    "cem, two blocks ahead": {"planner": CEMConfig(num_samples=12, num_elites=4), "blocks_ahead": 2},
    "two rounds": {},
    "converges": {"planner": replace(SEARCH, num_iterations=6, min_std=0.3), "horizon": 1},
    "cem, proposed": {
        "planner": CEMConfig(num_samples=12, num_elites=4),
        "warm_start": "gcbc",
        "history_len": 3,
        "horizon": 3,
    },
    "retrieval alone": {"planner": replace(SEARCH, num_iterations=0), "warm_start": "retrieval", "horizon": 3},
    "a policy alone": {
        "planner": replace(SEARCH, num_iterations=0),
        "warm_start": "inverse",
        "horizon": 3,
        "receding_horizon": 2,
    },
}


@pytest.mark.parametrize("name", EVERY_WAY)
def test_the_parts_of_a_graph_decide_as_the_agent_does(name):
    """What is traced is tried before it is traced, for each way to plan; to trace all of them would take minutes."""
    agent = small_agent(**EVERY_WAY[name])
    encode, ways, begun = decision_graph._parts(agent)
    by_way = {decide.way: decide for decide in ways}
    seen = pictures(9, num_views=agent.model.config.encoder.num_views)
    nothing = [torch.full((1, agent.num_proprio), torch.nan)] * bool(agent.num_proprio)
    is_seen = [number != 5 for number in range(8)]
    agent.reset(seen[:1], [0])
    (z_goal,) = encode(torch.from_numpy(seen[:1]), *nothing)
    answers = begun
    for num_done, picture in enumerate(seen[1:, None]):
        state = {key.removeprefix(NEXT): value for key, value in answers.items() if key.startswith(NEXT)}
        state |= {"z_goal": z_goal, "z": encode(torch.from_numpy(picture), *nothing)[0]}
        state["seen"] = torch.tensor([is_seen[num_done]])
        if agent.config.planner.num_iterations:
            state["noise"] = torch.from_numpy(noise_for(agent))
        config = agent.config
        decide = by_way[min(num_done, config.history_len), num_done % config.receding_horizon == 0]
        answers = decide.answer({key: state[key] for key in decide.given})
        block = agent.act(picture if is_seen[num_done] else None)
        np.testing.assert_allclose(answers["block"], block, atol=1e-6, rtol=0)
        np.testing.assert_allclose(answers["surprise"], agent.surprise(), rtol=1e-5)
    if name == "converges":
        assert min(agent.rounds_done) < 6


def test_where_no_cost_is_a_number_the_middle_is_sent_and_that_is_said(loaded):
    seen = pictures(3)
    loaded.reset(seen[[0, 1]], [0, 1])
    with pytest.warns(UserWarning, match="no finite cost in 1 of 2 episodes; the middle of the bounds is sent"):
        blocks = loaded.act(seen[[2, 1]])
    np.testing.assert_array_equal(blocks[1], [MIDDLE] * BLOCK)
    assert np.abs(blocks[0] - MIDDLE).max() > 0.05
    loaded.act(seen[[2, 2]])  # and it goes on


def test_its_own_noise_searches_as_the_agents_does(exported):
    """The first blocks of many episodes have one distribution, each action of them and their differences too."""
    agent, path = exported("icem")
    mine, seen, firsts = ExportedAgent.load(path), pictures(2), []
    for each in (agent, mine):
        each.reset(seen[:1].repeat(600, 0), range(600))
        firsts.append(each.act(seen[1:].repeat(600, 0)).reshape(600, -1))
    for theirs, ours in zip(*(np.hstack([each, np.diff(each)]).T for each in firsts), strict=True):
        assert ks_2samp(theirs, ours).pvalue > 1e-4
    drawn = np.concatenate([rng.standard_normal(mine.noise_shape) for rng in map(np.random.default_rng, range(50))])
    assert drawn.shape[1:] == (agent.config.horizon, 2 * BLOCK)


def test_an_episode_is_its_own_and_the_seed_decides(loaded):
    seen, seeds, runs = pictures(6), [np.int64(7), -8, 2**64 - 1], []
    for order in ([0, 1, 2], [2, 0, 1]):
        loaded.reset(seen[:3][order], [seeds[index] for index in order])
        runs.append([loaded.act(seen[3:][order])[np.argsort(order)] for _ in range(4)])
    np.testing.assert_array_equal(*runs)
    loaded.reset(seen[:1], [8])
    assert np.abs(loaded.act(seen[3:4]) - runs[0][0][0]).max() > 0.01


def test_what_it_returns_is_the_callers_own_and_within_bounds(loaded):
    seen, runs = pictures(20), []
    for disturbed in (False, True):
        loaded.reset(seen[:1], [0])
        blocks = []
        for picture in seen[1:, None]:
            block, surprise = loaded.act(picture), loaded.surprise()
            blocks.append(block.copy())
            if disturbed:
                block *= 0.5
                surprise[:] = 0
        runs.append(blocks)
    np.testing.assert_array_equal(*runs)
    for action in np.concatenate(runs[0]).reshape(-1, 2):
        assert (action >= loaded.bounds.low).all()
        assert (action <= loaded.bounds.high).all()


HERE, THERE = pictures(2)[:1], pictures(2)[1:]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda agent: agent.act(HERE), r"call reset\(goals, seeds\) before act"),
        (lambda agent: agent.reset(THERE / 255, [0]), "goals must be uint8, 0 to 255, not float64"),
        (lambda agent: agent.reset(pictures(2)[None], [0]), "goes to one goal picture an episode, not 2; choose one"),
        (lambda agent: (agent.reset(THERE, [0]), agent.act(None)), r"act\(None\) may follow, but not come first"),
        (lambda agent: agent.reset(THERE[:, :8], [0]), r"goals must be \(..., 16, 16, 3\), not \(1, 8, 16, 3\)"),
        (lambda agent: agent.reset(THERE, [0, 1]), "1 goals need a seed each, not 2 seeds"),
        (lambda agent: agent.reset(THERE, [0.5]), r"seeds must be whole numbers, one a goal, not \[0.5\]"),
        (lambda agent: agent.reset(THERE, [2**70]), "seeds must be numbers of 64 bits"),
        (lambda agent: (agent.reset(THERE, [0]), agent.act(pictures(3))), "1 goals were given and 3 pictures"),
        (lambda agent: (agent.reset(THERE, [0]), agent.act(HERE.astype(np.float32))), "pictures must be uint8"),
        (
            lambda agent: (agent.reset(THERE, [0]), agent.act(HERE, noise=np.zeros((1, 3)))),
            r"floats \(1, 12, 2, 4\), not",
        ),
        (
            lambda agent: (agent.reset(THERE, [0]), agent.act(HERE, noise=np.full((1, *agent.noise_shape), np.nan))),
            r"noise must be finite floats \(1, 12, 2, 4\)",
        ),
        (lambda agent: agent.surprise(), r"call act\(pictures\) before asking for surprise"),
        (lambda agent: (agent.reset(THERE, [0]), agent.surprise()), r"call act\(pictures\) before asking for surprise"),
    ],
)
def test_misuse_is_named(loaded, call, message):
    with pytest.raises(UserError, match=message):
        call(loaded)


def test_an_agent_whose_reset_has_failed_goes_on_as_it_was(loaded):
    blocks = []
    for disturbed in (False, True):
        loaded.reset(THERE, [0])
        loaded.act(HERE)
        if disturbed:
            with pytest.raises(UserError):
                loaded.reset(HERE, [2**70])
        blocks.append(loaded.act(HERE))
    np.testing.assert_array_equal(*blocks)


BLOCKED = """
import sys
import time
class Blocked:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("torch", "gymnasium", "mujoco", "dm_control", "safetensors", "scipy", "onnx", "tqdm"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import numpy as np
from jepa_mpc import Driver
from jepa_mpc.agent.exported import ExportedAgent
agent = ExportedAgent.load(sys.argv[1])
goal, now = np.load(sys.argv[2])
agent.reset(goal[None], [3])
np.save(sys.argv[3], [agent.act(now[None]) for _ in range(4)])
"""


def test_it_needs_neither_pytorch_nor_a_simulator(exported, loaded, tmp_path):
    _, path = exported("icem")
    seen, told = tmp_path / "seen.npy", tmp_path / "told.npy"
    np.save(seen, pictures(2))
    subprocess.run([sys.executable, "-c", BLOCKED, path, seen, told], check=True, cwd=ROOT)
    loaded.reset(pictures(2)[:1], [3])
    np.testing.assert_array_equal(np.load(told), [loaded.act(pictures(2)[1:]) for _ in range(4)])


class Flickering:
    """A robot whose two cameras show other pictures each time, and which feels as many numbers."""

    period, (low, high) = 0.1, BOUNDS

    def __init__(self):
        self._shown = itertools.cycle(pictures(50, num_views=2))
        self.act(None)

    def observe(self):
        return self._seen

    def act(self, action):
        picture = next(self._shown)
        self._seen = (list(np.split(picture, 2, axis=1)), time.monotonic(), picture[0, 0])

    def stop(self):
        pass


def test_it_drives_a_robot(exported):
    """What was sent is what it answers again, shown the same."""
    mine = ExportedAgent.load(exported("mppi, proposed, a block ahead, by two cameras and what is felt")[1])
    (goal,) = pictures(1, seed=1, num_views=2)
    blocks = list(Driver(Flickering(), mine, Pace(reserve=0.01)).drive(goal, 6, seed=4))
    assert len(blocks) == 6
    mine.reset(goal[None], [4])
    for now, later in itertools.pairwise(blocks):
        seen = None if now.picture is None else (now.picture[None], now.proprio[None])
        answer = mine.act(*(seen or (None,)))
        if later.in_time:
            np.testing.assert_array_equal(later.actions, answer[0])
    assert any(block.in_time for block in blocks[1:])


def test_an_export_that_does_not_look_ahead_is_not_driven_as_if_it_did(loaded):
    with pytest.raises(UserError, match="blocks_ahead must be 1 for an agent that is driven so, not 0"):
        Driver(Flickering(), loaded)


def test_the_file_says_what_a_robot_must_know(exported, loaded):
    agent, path = exported("icem")
    assert loaded.info == info_of(agent)
    assert loaded.action_block == BLOCK
    np.testing.assert_array_equal(loaded.bounds, BOUNDS)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert str(ROOT) not in str(path.read_bytes())
    weights = sum(parameter.numel() for parameter in agent.model.parameters())
    stored = sum(np.prod(each.dims) for each in model.graph.initializer if np.prod(each.dims) > 8)
    assert stored < 1.5 * weights  # once, though every way to decide needs them


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "foreign", "cut", "text"])
def test_what_is_no_exported_agent_is_named(exported, tmp_path, damage):
    path = tmp_path / "agent.onnx"
    blank = onnx.helper.make_graph([], "g", [], [])
    content = {
        "empty": b"",
        "foreign": onnx.helper.make_model(blank, ir_version=8).SerializeToString(),
        "cut": exported("icem")[1].read_bytes()[:-1000],
        "text": b"no protobuf",
    }
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(content[damage])
    with pytest.raises(UserError, match=r"agent\.onnx.*(write one|export it again) with `jepa-mpc export`$") as error:
        ExportedAgent.load(path)
    assert "\n" not in str(error.value)


def retold(path, change):
    """The file with another story beside the graph."""
    model = onnx.load(path)
    told = json.loads(next(each.value for each in model.metadata_props if each.key == INFO))
    del model.metadata_props[:]
    model.metadata_props.add(key=INFO, value=change(told) if callable(change) else change)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", r"is damaged \(Expecting"),
        ("[]", "is no exported agent"),
        (lambda told: json.dumps({**told, "format_version": 9}), "has format 9, this version reads 1"),
        (lambda told: json.dumps({**told, "more": 1}), "is damaged: more is unknown"),
        (
            lambda told: json.dumps({**told, "interface": {**told["interface"], "image_size": 32}}),
            r"picture_size is \(32, 32\)",
        ),
        (lambda told: json.dumps({**told, "interface": {**told["interface"], "action_block": 4}}), "blocks are"),
        (lambda told: json.dumps({**told, "interface": {**told["interface"], "action_low": [3, 3]}}), "no bounds"),
    ],
)
def test_what_stands_beside_the_graph_is_held_against_it(exported, tmp_path, change, message):
    path = tmp_path / "agent.onnx"
    path.write_bytes(retold(exported("icem")[1], change))
    with pytest.raises(UserError, match=rf"agent\.onnx.*{message}"):
        ExportedAgent.load(path)


@pytest.mark.parametrize("num_threads", [0, -1, 1.5, None])
def test_threads_are_counted(exported, num_threads):
    with pytest.raises(UserError, match="num_threads must be at least 1, not"):
        ExportedAgent.load(exported("icem")[1], num_threads)


def test_the_bundled_reacher_is_exported_by_a_command(run_command, tmp_path):
    path, small = tmp_path / "reacher.onnx", ["--history-len", 1, "--horizon", 1, "--num-iterations", 1]
    code, out, err = run_command("export", "--checkpoint", "reacher", "--output", path, *small)
    assert (code, "error" in err) == (0, False)
    assert "task reacher" in out
    mine = ExportedAgent.load(path)
    config = replace(AgentConfig(planner=ICEMConfig(num_iterations=1)), history_len=1, horizon=1, offset_rate=0.2)
    assert mine.info.planning == to_json(replace(config, precision="float32"))
    agent = PlanningAgent.load("reacher", config)
    assert (mine.info.interface.action_block, mine.info.interface.step_seconds) == (agent.action_block, 0.04)
    seen = np.random.default_rng(1).integers(0, 256, (7, 64, 64, 3), np.uint8)
    for each in (agent, mine):
        each.reset(seen[:1], [0])
    assert max(difference(agent, mine, picture) for picture in seen[1:, None]) < 1e-5
    told = tmp_path / "speed.json"
    code, out, _ = run_command("speed exported", "--file", path, "--num-decisions", 12, "--output", told)
    assert (code, "by more than 1e-05 in 0 of 12 decisions" in " ".join(out.split())) == (0, True)
    assert 0 < json.loads(told.read_text())["largest_difference"] < 1e-5
    code, _, err = run_command("export", "--output", path)
    assert (code, err) == (1, f"error: {path} exists already; delete it or choose another --output\n")


@pytest.mark.slow
def test_a_thousand_decisions_of_reacher_are_the_agents_but_for_ties(tmp_path):
    """Where candidates tie up to rounding, another may be taken."""
    path = tmp_path / "reacher.onnx"
    export(ExportConfig(path))
    found = measure(ExportedSpeedConfig(path))
    assert found["median_difference"] < 1e-6
    assert found["decisions_apart"] <= 5


class Nosy(CEM):
    def noise(self, num_samples, horizon, generators):
        return torch.ones(len(generators), num_samples, horizon, len(self.low))


@dataclass(frozen=True)
class NosyConfig(CEMConfig):
    def make(self, low, high, steps_per_block=1):
        return Nosy(self, low, high, steps_per_block)


def by_numpy(model, future, z_now, z_goal):
    return torch.from_numpy(np.abs(future.numpy()).sum(-1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"planner": GradientConfig(num_samples=12)}, "search gradient is no graph: it has a plan of its own"),
        ({"planner": NosyConfig(num_samples=12)}, "is no graph: it has a noise of its own"),
        ({"objective": "test_export:by_numpy", "horizon": 1}, "no graph can be made of how this agent plans: "),
    ],
)
def test_what_is_no_graph_is_refused_in_a_line(settings, message):
    agent = small_agent(**settings)
    with pytest.raises(UserError, match=message) as error:
        graph_of(agent, info_of(agent))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--deadline-ms", "5"], "a graph has no clock by which to leave rounds out; say --deadline-ms None"),
        (["--precision", "bfloat16"], "an exported agent computes in float32; leave --precision out"),
        (["--planner", "gradient"], "search gradient is no graph: it has a plan of its own; say --planner icem"),
        (["--checkpoint", "nowhere"], "no checkpoint at nowhere"),
    ],
)
def test_the_command_refuses_in_a_line(run_command, tmp_path, options, message):
    code, out, err = run_command("export", "--output", tmp_path / "x.onnx", *options)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named(exported, run_command, tmp_path, monkeypatch):
    _, path = exported("icem")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="runs by ONNX Runtime; `pip install onnxruntime` adds it"):
        ExportedAgent.load(path)
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else there(name))
    code, _, err = run_command("export", "--output", tmp_path / "x.onnx")
    line = "error: to export takes onnxscript; install it with `pip install 'jepa-mpc[export]'`\n"
    assert (code, err) == (1, line)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("calibration", Calibration(), "takes pictures as they are; export one without a calibration"),
        ("numbers", object(), "goes to pictures, not by numbers; export one without a probe"),
    ],
)
def test_what_stands_beside_the_model_is_no_part_of_a_graph(part, value, message):
    agent = small_agent()
    setattr(agent, part, value)
    with pytest.raises(UserError, match=message):
        graph_of(agent, info_of(agent))


def test_a_file_that_acts_in_another_way_is_not_kept(exported):
    _, path = exported("icem")
    other = small_agent(**WAYS["icem"], effort_weight=50.0)
    with pytest.raises(UserError, match="the graph does not act as the agent does"):
        _require_same(other, ExportedAgent.load(path))
