"""The main command, as a person meets it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import CHECKPOINT, ROOT
from PIL import Image
from watching import KINDS, assert_asked_the_pairs, watch_agents

from jepa_mpc import envs, places
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.errors import UserError
from jepa_mpc.eval import measure, report, run_planning
from jepa_mpc.eval.metrics import Rate
from jepa_mpc.eval.results import PairResults, PictureResults, SuiteResults
from jepa_mpc.eval.run_planning import RunConfig, evaluate
from jepa_mpc.places import HOME_VARIABLE
from jepa_mpc.planners import CEMConfig
from jepa_mpc.settings import read, to_json
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig


def read_back(path, kind=PairResults):
    return read(kind, json.loads(path.read_text()), path)


@pytest.fixture
def command(run_command, monkeypatch, tmp_path):
    """Runs the command from a folder of its own; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *options: run_command("plan", "--task", "reacher", "--checkpoint", CHECKPOINT, *options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One real run, in a process of its own."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, ROOT / "eval/run_planning.py", "--task", "reacher", "--checkpoint", CHECKPOINT]
    done = subprocess.run(
        [*command, "--num-episodes", "5", "--output", folder / "out"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_results_hold_what_a_figure_needs(finished):
    folder, _ = finished
    results = json.loads((folder / "results.json").read_text())
    assert results["task"] == "reacher"
    expected = {"name": "standard", "goal_offset": 25, "budget": 50, "tolerance": 0.05}
    assert {name: results["protocol"][name] for name in expected} == expected
    assert results["num_episodes"] == 5
    assert results["success_rate"] == np.mean([episode["success"] for episode in results["episodes"]])
    low, high = results["success_interval"]
    assert 0 <= low <= results["success_rate"] <= high <= 1
    for name in ("random", "do_nothing"):
        assert 0 <= results["baselines"][name]["success_rate"] <= 1
    assert 0 < results["decision_ms"]["median"] <= results["decision_ms"]["p95"]
    assert results["planner"]["num_samples"] > 0
    assert {"checkpoint", "commit", "command", "seed", "parameters", "machine"} <= set(results)
    for episode in results["episodes"]:
        assert {"pair", "success", "steps", "first_hit", "held", "strict", "final_error", "best_error"} < set(episode)
        assert episode["success"] == (episode["best_error"] < 0.05) == (episode["steps"] is not None)


def test_the_bundled_checkpoint_beats_chance(finished):
    results = json.loads((finished[0] / "results.json").read_text())
    assert results["success_rate"] >= 0.8
    assert results["baselines"]["do_nothing"]["success_rate"] <= 0.2


def test_pictures_and_videos_show_the_episodes(finished):
    folder, _ = finished
    frames = iio.imread(folder / "episodes.mp4")
    gif = iio.imread(folder / "episodes.gif")
    assert frames.shape[-1] == gif.shape[-1] == 3
    assert frames.shape[1:3] == gif.shape[1:3]
    assert len(frames) == 51 + 15
    assert frames[0].std() > 20
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1  # something moved
    assert iio.imread(folder / "latent_distance.png").std() > 5


def test_the_table_says_what_results_json_says(finished):
    folder, table = finished
    results = json.loads((folder / "results.json").read_text())
    assert f"{results['success_rate']:.1%}" in table
    assert f"n = {results['num_episodes']}" in table
    assert f"median {results['decision_ms']['median']:.1f} ms" in table
    stored = read_back(folder / "results.json")
    stored = dataclasses.replace(stored, first_hit=Rate(0.75, 0, 1), held=Rate(0.5, 0, 1), strict=Rate(0.25, 0, 1))
    assert dict(report.describe(stored, None))["touched / held / strict"] == "75.0% / 50.0% / 25.0%"


def test_the_same_seed_gives_the_same_episodes(command, read_results, tmp_path):
    for name in ("a", "b"):
        assert command("--num-episodes", 2, "--no-video", "--output", tmp_path / name)[0] == 0
    assert read_results(tmp_path / "a")["episodes"] == read_results(tmp_path / "b")["episodes"]
    assert not (tmp_path / "a" / "episodes.mp4").exists()


@pytest.mark.parametrize(("protocol", "budget", "held_for"), [("far", 100, 1), ("hold", 50, 5), ("strict", 100, 2)])
def test_protocols_report_their_own_rule_beside_the_others(command, read_results, tmp_path, protocol, budget, held_for):
    options = ["--protocol", protocol, "--num-episodes", 3, "--no-video", "--output", tmp_path / "out"]
    assert command(*options)[0] == 0
    results = read_results(tmp_path / "out")
    assert (results["protocol"]["budget"], results["protocol"]["steps"]) == (budget, held_for)
    assert results["protocol"]["goal_offset"] == (25 if protocol == "hold" else None)
    assert results["protocol"]["tolerance"] == (0.01 if protocol == "strict" else 0.05)
    own = {"far": "first_hit", "hold": "held", "strict": "strict"}[protocol]
    assert results["success_rate"] == results[own][0]
    assert [e["steps"] for e in results["episodes"]] == [e[own] for e in results["episodes"]]
    assert results["success_rate"] >= 2 / 3  # what the bundled model does nearly always


@pytest.mark.parametrize(("protocol", "seed"), [("standard", 3), ("far", 11)])
def test_every_agent_is_asked_the_same_pairs(command, read_results, tmp_path, monkeypatch, protocol, seed):
    monkeypatch.setattr(measure, "NUM_TIMED_DECISIONS", 1)
    seen = watch_agents(monkeypatch)
    options = ["--protocol", protocol, "--num-episodes", 3, "--seed", seed, "--budget", 50, "--no-video"]
    assert command(*options, "--output", tmp_path / "out")[0] == 0
    env, spec = envs.make("reacher"), envs.get_task("reacher")
    assert_asked_the_pairs(seen, env, spec, tmp_path, seed=seed, num_pairs=3, far=protocol == "far")
    # At random one of the three is reached, under these seeds; what each baseline came to stands under its name.
    results = read_results(tmp_path / "out")
    shown = results["baselines"]
    assert results["seed"] == seed
    assert shown["random"]["success_rate"] == pytest.approx(1 / 3)
    assert shown["do_nothing"]["success_rate"] == 0


def test_another_offset_asks_for_goals_that_far_ahead(command, read_results, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "NUM_TIMED_DECISIONS", 1)
    seen = watch_agents(monkeypatch)
    options = ["--goal-offset", 40, "--num-episodes", 2, "--budget", 5, "--no-video", "--output", tmp_path / "out"]
    assert command(*options)[0] == 0
    env, spec = envs.make("reacher"), dataclasses.replace(envs.get_task("reacher"), goal_offset=40)
    assert_asked_the_pairs(seen, env, spec, tmp_path, seed=0, num_pairs=2)
    assert read_results(tmp_path / "out")["protocol"]["goal_offset"] == 40


def test_every_agent_is_asked_the_same_suite_episodes(command, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "NUM_TIMED_DECISIONS", 1)
    seen = watch_agents(monkeypatch)
    options = ["--protocol", "suite", "--num-episodes", 2, "--seed", 7, "--budget", 5, "--output", tmp_path / "out"]
    assert command(*options)[0] == 0
    ours, *others = (seen[kind.__name__][:2] for kind in KINDS)  # of the easy task and of the hard one
    for theirs in others:
        for asked, expected in zip(theirs, ours, strict=True):
            for part in range(3):
                np.testing.assert_array_equal(asked[part], expected[part])
    assert not np.array_equal(ours[0][0], ours[1][0])


def test_the_suite_protocol_reports_its_reward(command, read_results, tmp_path):
    options = ["--protocol", "suite", "--num-episodes", 2, "--budget", 80, "--output", tmp_path / "out"]
    assert command(*options)[0] == 0
    results = read_results(tmp_path / "out")
    assert set(results["suite"]) == {"reacher-easy", "reacher-hard"}
    for returns in results["suite"].values():
        assert returns["mean"] == np.mean(returns["returns"])
        assert 0 <= min(returns["returns"]) <= max(returns["returns"]) <= 160  # 1 for each control step
    assert results["suite"]["reacher-easy"]["mean"] > 60


@pytest.mark.parametrize(
    ("tick", "deadline", "shown"),
    [
        (1e-3, 1e-3, {"cut_short": 1.0, "late": 1.0, "mean_rounds": 3 / 13}),  # a round in each episode's first search
        (0.0, 1e-3, {"cut_short": 0.0, "late": 0.0, "mean_rounds": 3.0}),
    ],
)
def test_a_deadline_is_reported(command, read_results, tmp_path, monkeypatch, clock, tick, deadline, shown):
    monkeypatch.setattr(measure, "NUM_TIMED_DECISIONS", 4)
    seen = watch_agents(monkeypatch)
    clock.tick = tick  # what a look at the clock takes, and nothing else does
    options = ["--deadline-ms", deadline, "--num-episodes", 2, "--budget", 20, "--no-video"]
    code, table, _ = command(*options, "--output", tmp_path / "out")
    assert code == 0
    decision = read_results(tmp_path / "out")["decision_ms"]
    assert decision["deadline_ms"] == deadline
    # Two episodes of four decisions, and five of a third, of which the first warms up.
    assert {name: pytest.approx(value) for name, value in shown.items()} == {name: decision[name] for name in shown}
    assert decision["n"] == 4
    assert f"{shown['cut_short']:.0%} of searches cut short" in table
    assert [len(seeds) for _, seeds, _ in seen["PlanningAgent"]] == [1, 1, 1]  # a deadline is for one episode


def test_a_goal_image_of_ones_own(command, read_results, tmp_path):
    env = envs.make("reacher", image_size=200)
    env.reset(seed=0)
    env.set_pose([1.0, 0.5])
    iio.imwrite(tmp_path / "goal.png", env.render())
    code, table, err = command("--goal-image", tmp_path / "goal.png", "--output", tmp_path / "out")
    assert "warning" not in err
    results = read_results(tmp_path / "out")
    assert code == 0
    assert results["latent_distance"]["nearest"] < 0.5 * results["latent_distance"]["start"]
    assert "not decided" in table
    assert iio.imread(tmp_path / "out" / "goal_and_final.png").std() > 5


def test_a_budget_within_a_block_is_obeyed(command, read_results, tmp_path, monkeypatch):
    """Of a block of five steps the first three are done, toward a picture as toward a pair's goal."""
    Image.new("RGB", (64, 64)).save(tmp_path / "goal.png")
    kind, counted = type(envs.make("reacher")), []
    advance = kind.advance
    monkeypatch.setattr(kind, "advance", lambda env, action: (counted.append(action), advance(env, action))[1])
    assert command("--goal-image", "goal.png", "--budget", 3, "--output", "picture")[0] == 0
    assert len(counted) == 5 + 3  # the block by which the environment is held against its task comes first
    results = read_results(tmp_path / "picture")
    assert results["budget"] == 3
    assert results["nearest_step"] in (0, 3)


def test_results_read_themselves_back(finished, command, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "NUM_TIMED_DECISIONS", 1)
    Image.new("RGB", (64, 64)).save(tmp_path / "goal.png")
    assert command("--goal-image", "goal.png", "--budget", 5, "--output", "picture")[0] == 0
    assert command("--protocol", "suite", "--num-episodes", 1, "--budget", 5, "--output", "suite")[0] == 0
    for folder, kind in ((finished[0], PairResults), ("picture", PictureResults), ("suite", SuiteResults)):
        path = tmp_path / folder / "results.json"
        results = read_back(path, kind)
        assert to_json(results) == json.loads(path.read_text())
    damaged = json.loads((finished[0] / "results.json").read_text())
    damaged["episodes"][2]["steps"] = "soon"
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=r"damaged.json: episodes.steps must be int, not 'soon'"):
        read_back(tmp_path / "damaged.json")


def test_from_python_the_same_comes_back_and_nothing_need_be_written(finished, tmp_path, monkeypatch):
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    results = evaluate(RunConfig(num_episodes=5, checkpoint=CHECKPOINT), write=False)
    assert results.episodes == read_back(finished[0] / "results.json").episodes
    assert {path.name for path in tmp_path.iterdir()} == {"data"}  # the pairs
    with pytest.raises(UserError, match="--num-episodes must be at least 1"):
        evaluate(RunConfig(num_episodes=0))


def test_no_two_runs_share_a_folder(command, tmp_path, monkeypatch):
    """Started in the same second: the second finds the first's folder taken, whatever it is called."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setattr(measure, "NUM_TIMED_DECISIONS", 1)

    class Frozen(places.datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(places, "datetime", Frozen)
    for _ in range(3):
        assert command("--num-episodes", 1, "--budget", 5, "--no-video")[0] == 0
    folders = sorted((tmp_path / "home/runs").iterdir())
    name = "20260102-030405-reacher-standard"
    assert [folder.name for folder in folders] == [name, f"{name}-2", f"{name}-3"]
    assert all((folder / "results.json").exists() for folder in folders)


@pytest.mark.parametrize("name", run_planning.WRITTEN)
def test_nothing_of_anothers_is_overwritten(command, tmp_path, monkeypatch, name):
    monkeypatch.setattr(measure, "on_pairs", None)  # would fail if the work had begun
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    code, _, err = command("--output", "out")
    assert (code, err) == (1, f"error: out/{name} exists already; delete it or choose another --output\n")
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_a_run_that_was_interrupted_leaves_its_folder_to_any_other(command, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(measure.Trial, "run", interrupted)
        assert command("--num-episodes", 2, "--output", "out", "--no-video")[0] == 130
    assert not (tmp_path / "out").exists()
    assert command("--num-episodes", 1, "--budget", 5, "--output", "out", "--no-video")[0] == 0


def test_a_run_folder_at_work_is_held(command, tmp_path):
    from jepa_mpc.files import claimed

    with claimed(tmp_path / "out", {}):
        code, _, err = command("--output", tmp_path / "out")
    assert code == 1
    assert f"process {os.getpid()} is at work in {tmp_path / 'out'}" in err


def test_a_preset_and_a_planner_are_where_options_begin(command, read_results, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "NUM_TIMED_DECISIONS", 1)
    few = ["--num-episodes", 1, "--budget", 5, "--no-video"]
    assert command("--preset", "lewm", "--num-iterations", 2, *few, "--output", "lewm")[0] == 0
    planner = read_results(tmp_path / "lewm")["planner"]
    expected = {"planner": "cem", "objective": "latent", "reduction": "terminal", "horizon": 5, "receding_horizon": 5}
    expected |= {"num_samples": 300, "num_elites": 30, "num_iterations": 2, "init_std": 1.0, "effort_weight": 0.0}
    assert {name: planner[name] for name in expected} == expected
    assert command("--planner=mppi", "--num-samples", 4, *few, "--output", "mppi")[0] == 0
    planner = read_results(tmp_path / "mppi")["planner"]
    assert (planner["planner"], planner["num_samples"], "num_elites" in planner) == ("mppi", 4, False)


def test_processes_share_the_episodes_evenly(tmp_path, monkeypatch):
    """Three processes have two of six episodes each, and the first one reports what one process does."""
    agent = AgentConfig(CEMConfig(num_samples=16, num_elites=4, num_iterations=2))
    config = RunConfig("two_room", num_episodes=6, budget=10, video=False, output=tmp_path / "out", agent=agent)
    script = tmp_path / "run.py"
    script.write_text(
        "import pathlib\n"
        "from pathlib import PosixPath\n"
        "from jepa_mpc.agent import planning_agent\n"
        "from jepa_mpc.agent.agent_config import AgentConfig\n"
        "from jepa_mpc.agent.numbers import NumberOptions\n"
        "from jepa_mpc.distributed import rank\n"
        "from jepa_mpc.eval import measure\n"
        "from jepa_mpc.eval.run_planning import RunConfig, evaluate\n"
        "from jepa_mpc.planners import CEMConfig\n"
        "measure.NUM_TIMED_DECISIONS = 1\n"
        "reset = planning_agent.PlanningAgent.reset\n"
        "def watched(self, goals, seeds):\n"
        "    with open(f'batches-{rank()}', 'a') as file: file.write(f'{len(goals)} ')\n"
        "    reset(self, goals, seeds)\n"
        "planning_agent.PlanningAgent.reset = watched\n"
        f"evaluate({config!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    done = subprocess.run([*launcher, script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.read_text().split()[0] for path in sorted(tmp_path.glob("batches-*"))] == ["2"] * 3
    monkeypatch.setattr(measure, "NUM_TIMED_DECISIONS", 1)
    seen = watch_agents(monkeypatch)
    episodes = evaluate(config, write=False).episodes, read_back(tmp_path / "out/results.json").episodes
    assert len(seen["PlanningAgent"][0][1]) == 6
    assert [each.pair for each in episodes[1]] == list(range(6))
    for one, three in zip(*episodes, strict=True):
        assert (one.success, one.steps, one.distance) == (three.success, three.steps, three.distance)
        assert one.final_error == pytest.approx(three.final_error, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--goal-offset", "200"], "--goal-offset must be below an episode's 200 steps"),
        (["--goal-offset", "50", "--protocol", "far"], "--goal-offset is for goals of the same episode"),
        (["--task", "recher"], "unknown task 'recher'; did you mean reacher?"),
        (["--num-episodes", "0"], "--num-episodes must be at least 1, not 0"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--planner", "mppi", "--temperature", "0"], "--temperature must be above 0"),
        (["--checkpoint", "nowhere"], "no checkpoint at nowhere"),
        (["--goal-image", "nowhere.png"], "no picture at nowhere.png"),
        (["--goal-image", "x.png", "--protocol", "suite"], "one episode to that picture; leave --protocol out"),
        (["--goal-image", "x.png", "--num-episodes", "20"], "one episode to that picture; leave --num-episodes out"),
        (["--goal-image", "x.png", "--goal-offset", "9"], "--goal-offset is for goals of the same episode"),
        (["--goal-offset", "9", "--protocol", "suite"], "--goal-offset is for goals of the same episode"),
        (["--task", "two_room", "--protocol", "suite"], "task 'two_room' has no rewarded suite tasks"),
        (["--preset", "lewn"], "unknown planning preset 'lewn'; did you mean lewm?"),
        (["--planner", "mpi"], "unknown planner 'mpi'; did you mean mppi?"),
        (["--device", "cuda:9"], "device 'cuda:9' is not there"),
        (["--num-elites", "1000"], "--num-elites must lie in"),
        (["--budget", "0"], "--budget must be at least 1, not 0"),
        (["--deadline-ms", "-1"], "--deadline-ms must be above 0"),
        (["--horizon", "20"], "this model's predictor sees at most"),
        (["--output", "file"], "file cannot be a folder: there is a file of that name"),
    ],
)
def test_bad_input_gets_one_line_and_a_non_zero_exit(command, tmp_path, monkeypatch, options, message):
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    (tmp_path / "file").write_text("mine")
    code, _, err = command(*options)
    assert code != 0
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "home").exists()


def spoiled(tmp_path, change):
    folder = tmp_path / "spoiled"
    shutil.copytree(CHECKPOINT, folder)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "walker"}, "was trained on task 'walker', not 'reacher'"),
        ({"format_version": 0}, "has format 0, this version reads 1"),
        ({"model": None}, "is damaged"),
    ],
)
def test_checkpoints_that_do_not_fit_get_one_line(command, tmp_path, change, message):
    folder = spoiled(tmp_path, lambda config: config.update(change))
    code, _, err = command("--checkpoint", folder)
    assert (code, err.count("\n")) == (1, 1)
    assert message in err


def test_pictures_have_the_size_that_the_checkpoint_learned_from(monkeypatch):
    runs, small = [], JEPA(JEPAConfig(10, encoder=EncoderConfig(image_size=32, channels=(4, 4)))).eval()
    _, info = run_planning.load_checkpoint(CHECKPOINT)
    monkeypatch.setattr(run_planning, "load_checkpoint", lambda *_, **__: (small.requires_grad_(False), info))
    monkeypatch.setattr(run_planning, "on_pairs", lambda run: runs.append(run) or measure.on_pairs(run))
    agent = AgentConfig(CEMConfig(num_samples=4, num_elites=2, num_iterations=1), objective="latent")
    results = evaluate(RunConfig(num_episodes=1, budget=5, agent=agent), write=False)
    assert runs[0].env.observation_space.shape == (32, 32, 3)
    assert runs[0].spec.image_size == 32
    assert results.parameters == sum(weights.numel() for weights in small.parameters()) > 0


def test_pictures_of_another_simulator_warn(command, tmp_path):
    folder = spoiled(tmp_path, lambda config: config["data"].update(simulator="mujoco 9.9.9"))
    code, _, err = command("--checkpoint", folder, "--num-episodes", 1, "--no-video")
    assert code == 0
    assert "warning: checkpoint" in err
    assert "learned from pictures of mujoco 9.9.9" in err


def test_no_opengl_is_said_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from jepa_mpc import envs; envs.make('reacher').reset()"],
        cwd=ROOT,
        env={"PATH": "", "MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa", "LD_LIBRARY_PATH": "/nowhere"},
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        pytest.skip("OSMesa is installed here, so OpenGL cannot be made to fail this way")
    assert "no OSMesa; install it with `apt-get install libosmesa6`" in done.stderr.splitlines()[-1]
