"""A robot is driven at its own rate, in a time of the tests' own: what it sees late, what it loses, how it stops."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
from conftest import CHECKPOINT, ROOT
from PIL import Image
from test_agent import BLOCK, SEARCH, SPACE, PointModel, agent_with, picture_of

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.agent.robot import Driver, Pace, Seen
from jepa_mpc.agent.simulated_robot import Hardware, SimulatedRobot
from jepa_mpc.errors import UserError
from jepa_mpc.world_model.data.dataset import Dataset
from jepa_mpc.world_model.observation import Observation

PERIOD = 0.02
GOAL = [14.0, 6.0]


class Time:
    """Passes only where somebody sleeps."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


class Answer:
    def __init__(self, value, there, time):
        self._value, self._there, self._time = value, there, time

    def done(self):
        return self._time.now >= self._there

    def result(self):
        return self._value


class Thinking:
    """Decides at once, and says so only so much later."""

    def __init__(self, time, seconds=0.005):
        self._time, self._seconds, self.asked = time, seconds, []

    def submit(self, decide, *args):
        self.asked.append(self._time.now)
        return Answer(
            decide(*args)._replace(at=self._time.now + self._seconds), self._time.now + self._seconds, self._time
        )


class PointRobot:
    """Moves by each action, at once; its pictures are taken with every action, and there a little later."""

    period = PERIOD
    low, high = SPACE.low, SPACE.high

    def __init__(self, time, delay=0.03, lost=()):
        self._time, self._delay, self._lost = time, delay, lost
        self.place, self.num_stops, self.actions = np.array([10.0, 10.0]), 0, []
        self._shown = [(time.now, Seen(picture_of(self.place), time.now))]

    def observe(self):
        seen = [seen for there, seen in self._shown if there <= self._time.now]
        return seen[-1] if seen else None

    def act(self, action):
        now, number = self._time.now, len(self.actions)
        if number not in self._lost:
            self._shown.append((now + self._delay, Seen(picture_of(self.place), now)))
        self.actions.append((now, np.array(action)))
        self.place = self.place + action

    def stop(self):
        self.num_stops += 1


def drive(blocks=14, delay=0.03, lost=(), seconds=0.005, **pace):
    time = Time()
    robot = PointRobot(time, delay, lost)
    agent, _ = agent_with(blocks_ahead=int(pace.get("bridge", True)), horizon=3)
    driver = Driver(robot, agent, Pace(reserve=0.01, **pace), time, Thinking(time, seconds))
    return robot, list(driver.drive(picture_of(GOAL), blocks))


def test_actions_are_sent_at_the_robots_own_rate():
    robot, blocks = drive()
    sent = np.array([at for at, _ in robot.actions])
    assert len(sent) == 14 * BLOCK
    np.testing.assert_allclose(np.diff(sent), PERIOD, atol=1e-9)
    assert all(block.in_time for block in blocks)
    assert robot.num_stops == 1


def test_a_delay_shorter_than_a_block_is_bridged():
    """Each block is decided from the picture of the beginning of the one before it, and the arm comes to rest there."""
    robot, blocks = drive()
    np.testing.assert_allclose(robot.place, GOAL, atol=1)
    assert [block.age for block in blocks[1:]] == pytest.approx([0.03] * 13, abs=0.005)


def test_what_is_recorded_is_what_happened():
    """From one block's picture to the next one's the point has moved by what was sent between them."""
    _, blocks = drive()
    places = np.array([block.picture[0, :2, 0] / 10 for block in blocks])
    moved = np.array([block.actions.sum(0) for block in blocks])
    np.testing.assert_allclose(np.diff(places, axis=0), moved[:-1], atol=0.11)  # pictures are of tenths


@pytest.mark.parametrize("bridge", [True, False])
def test_every_block_is_decided_once(bridge):
    time = Time()
    agent, model = agent_with(blocks_ahead=int(bridge), horizon=3)
    list(Driver(PointRobot(time), agent, Pace(bridge, reserve=0.01), time, Thinking(time)).drive(picture_of(GOAL), 9))
    goal = rehearsed_goal = rehearsal = 1
    assert len(model.seen) == goal + rehearsal + rehearsed_goal + 9  # a picture a block


def test_without_bridging_the_newest_picture_is_answered_late():
    robot, blocks = drive(bridge=False, seconds=0.015)
    assert not any(block.in_time for block in blocks)
    firsts = np.array([action for _, action in robot.actions]).reshape(14, BLOCK, 2)
    np.testing.assert_array_equal(firsts[1:, 0], firsts[:-1, -1])  # the last action goes on until the answer is there


def test_a_lost_picture_is_foreseen_and_the_drive_goes_on():
    robot, blocks = drive(lost=(2 * BLOCK, 5 * BLOCK))
    assert [number for number, block in enumerate(blocks) if block.picture is None] == [2, 5]
    assert np.isnan([block.surprise for block in blocks if block.picture is None]).all()
    assert all(block.in_time for block in blocks)
    np.testing.assert_allclose(robot.place, GOAL, atol=1)


def test_a_picture_that_would_come_too_late_is_not_waited_for():
    _, blocks = drive(delay=0.055, most_blind=99)  # of a block of 0.06, 0.01 are reserved for the decision
    assert all(block.picture is None for block in blocks[1:])
    assert all(block.in_time for block in blocks)


def test_a_robot_that_shows_nothing_is_stopped():
    time = Time()
    agent, _ = agent_with(blocks_ahead=1, horizon=3)
    robot = PointRobot(time, delay=0.055)
    run = Driver(robot, agent, Pace(reserve=0.01), time, Thinking(time)).drive(picture_of(GOAL), 20)
    with pytest.raises(UserError, match="no picture has come in time for 6 blocks; the robot is stopped"):
        list(run)
    assert robot.num_stops == 1
    robot._shown = []
    begun = time.now
    with pytest.raises(UserError, match="the robot has shown no picture in 10 s"):
        list(Driver(robot, agent, Pace(), time, Thinking(time)).drive(picture_of(GOAL), 20))
    assert time.now - begun == pytest.approx(10, abs=0.1)
    assert robot.num_stops == 2


@pytest.mark.parametrize("hold", [True, False])
def test_where_a_decision_is_late_the_last_action_goes_on_or_none(hold):
    robot, blocks = drive(seconds=0.07, hold=hold)
    assert not any(block.in_time for block in blocks[1:])
    sent = np.array([action for _, action in robot.actions]).reshape(-1, BLOCK, 2)
    for before, block in itertools.pairwise(sent[1:]):
        np.testing.assert_array_equal(block[0], before[-1] if hold else np.zeros(2))


@pytest.mark.parametrize("number", [0, 3])
def test_the_robot_is_stopped_however_a_drive_ends(number, monkeypatch):
    time = Time()
    robot, (agent, model) = PointRobot(time), agent_with(blocks_ahead=1, horizon=3)
    run = Driver(robot, agent, Pace(), time, Thinking(time)).drive(picture_of(GOAL), 10)
    for _ in range(number):
        next(run)
    monkeypatch.setattr(model, "rollout", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(run)
    assert robot.num_stops == 1
    robot, (agent, _) = PointRobot(time), agent_with(blocks_ahead=1, horizon=3)
    run = Driver(robot, agent, Pace(), time, Thinking(time)).drive(picture_of(GOAL), 10)
    next(run)
    run.close()  # nobody asks for more
    assert robot.num_stops == 1


def test_the_robot_is_at_rest_once_its_time_is_over_whatever_is_still_thought_about():
    """The last decision takes three blocks, and whoever asks for blocks is in no hurry."""
    time = Time()
    robot, (agent, _) = PointRobot(time), agent_with(blocks_ahead=1, horizon=3)
    thinking, stops = Thinking(time), []
    robot.stop = lambda: stops.append(time.now)
    for block in Driver(robot, agent, Pace(reserve=0.01), time, thinking).drive(picture_of(GOAL), 4):
        thinking._seconds = 3 * BLOCK * PERIOD if block.due > 0 else 0.005
        time.now += 0.5 * BLOCK * PERIOD if stops else 0.0
    assert stops == [pytest.approx(robot.actions[-1][0] + PERIOD, abs=0.003)]


def test_an_agent_of_a_checkpoint_knows_its_period():
    agent = PlanningAgent.load(CHECKPOINT, AgentConfig(blocks_ahead=1))
    with pytest.raises(UserError, match=r"of the robot is .* ms, and the model was trained on steps of 40 ms"):
        Driver(PointRobot(Time()), agent)


def test_an_agent_must_foresee_what_is_bridged():
    for ahead, bridge in ((0, True), (1, False)):
        agent, _ = agent_with(blocks_ahead=ahead, horizon=3)
        with pytest.raises(UserError, match=f"blocks_ahead must be {1 - ahead} for an agent that is driven so"):
            Driver(PointRobot(Time()), agent, Pace(bridge=bridge))


def test_what_is_sent_is_within_the_robots_own_bounds():
    time = Time()
    robot = PointRobot(time)
    robot.low, robot.high = 0.25 * SPACE.low, 0.25 * SPACE.high
    agent, _ = agent_with(blocks_ahead=1, horizon=3)  # which knows wider ones
    list(Driver(robot, agent, Pace(reserve=0.01), time, Thinking(time)).drive(picture_of(GOAL), 6))
    sent = np.array([action for _, action in robot.actions])
    assert (sent >= robot.low).all()
    assert (sent <= robot.high).all()
    assert np.isclose(np.abs(sent), robot.high).any()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("period", 0, "the period of the robot must be above 0, not 0"),
        ("period", "soon", "the period of the robot must be"),
        ("high", np.full(2, np.inf), r"action 0 of the robot has no bounds \(-[\d.]+ to inf\)"),
        ("low", np.ones(2), "action 1 of the robot has its bounds reversed"),
    ],
)
def test_a_robot_that_is_none_is_refused_before_it_moves(name, value, message):
    robot = PointRobot(Time())
    setattr(robot, name, value)
    agent, _ = agent_with(blocks_ahead=1, horizon=3)
    with pytest.raises(UserError, match=message):
        Driver(robot, agent)


def test_a_robot_of_other_actions_or_no_blocks_is_refused():
    time = Time()
    robot = PointRobot(time)
    robot.low, robot.high = -np.ones(3), np.ones(3)
    robot.place = np.array([10.0, 10.0, 0.0])
    agent, _ = agent_with(blocks_ahead=1, horizon=3)
    driver = Driver(robot, agent, Pace(reserve=0.01), time)
    with pytest.raises(UserError, match="num_blocks must be at least 1, not 0"):
        list(driver.drive(picture_of(GOAL), 0))


def test_actions_that_come_later_and_later_end_the_drive():
    time = Time()
    robot, agent = PointRobot(time), agent_with(blocks_ahead=1, horizon=3)[0]
    act = robot.act
    robot.act = lambda action: (act(action), time.sleep(1.3 * PERIOD))
    with pytest.raises(UserError, match=r"actions are \d+ ms late; observe\(\) and act\(\) together must take less"):
        list(Driver(robot, agent, Pace(reserve=0.01), time, Thinking(time)).drive(picture_of(GOAL), 30))
    assert robot.num_stops == 1


@pytest.mark.parametrize("taken", [1.8e9, 0.0, np.nan])
def test_a_picture_of_another_clock_is_named(taken):
    time = Time()
    time.now = 5000.0
    robot, agent = PointRobot(time), agent_with(blocks_ahead=1, horizon=3)[0]
    robot.observe = lambda: (picture_of((10, 10)), taken)
    with pytest.raises(UserError, match=r"s ago; tell it in seconds of time.monotonic\(\)"):
        list(Driver(robot, agent, Pace(reserve=0.01), time, Thinking(time)).drive(picture_of(GOAL), 3))
    assert robot.num_stops == 1


def _hang_up():
    """Ends by SIGHUP, also where the tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_a_robot_that_is_left_alone_is_stopped(place):
    """As by a terminal that is closed."""
    words = ["--robot", "my_arms:Arm", "--goal", "goal.png", "--checkpoint", CHECKPOINT, "--seconds", "60"]
    command = [sys.executable, "-m", "jepa_mpc", "run", *map(str, words), "--output", "run", "--record", "rec.h5"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    run = subprocess.Popen(command, text=True, env=environment, preexec_fn=_hang_up, **pipes)
    log = place / "run/blocks.jsonl"
    while run.poll() is None and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.05)
    run.send_signal(signal.SIGHUP)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 129, err
    assert "stopped" in out
    results = json.loads((place / "run/results.json").read_text())
    assert results["stopped"] == "interrupted"
    assert results["seconds"] == pytest.approx(results["blocks"] * 5 * 0.04)
    with h5py.File(place / "rec.h5") as record:
        assert len(record["pixels"]) > 1


def test_where_nothing_can_be_recorded_is_said_before_the_robot_moves(run_command, place):
    (place / "text.h5").write_text("no data")
    (place / "folder.h5").mkdir()
    words = ["--robot", "my_arms:Arm", "--goal", "goal.png", "--checkpoint", CHECKPOINT, "--seconds", "1"]
    for name in ("text", "folder"):
        code, out, err = run_command("run", *words, "--output", "run", "--record", f"{name}.h5")
        assert code == 1
        assert f"{name}.h5" in err
        assert "record into a file of its own" in err
        assert "stopped" not in out
        assert not (place / "run").exists()
    assert (place / "text.h5").read_text() == "no data"


def test_a_robot_that_cannot_be_stopped_is_told_of():
    time = Time()
    robot, agent = PointRobot(time), agent_with(blocks_ahead=1, horizon=3)[0]
    robot.stop = lambda: 1 / 0
    with pytest.raises(UserError, match=r"the robot's stop\(\) failed, so it may move still: division by zero"):
        list(Driver(robot, agent, Pace(reserve=0.01), time, Thinking(time)).drive(picture_of(GOAL), 3))


def test_a_simulated_robot_is_its_simulation_by_the_clock():
    time, env, other = Time(), envs.make("two_room"), envs.make("two_room")
    env.reset(seed=3)
    other.reset(seed=3)
    robot = SimulatedRobot(env, Hardware(delay=0.1, jitter=0.0, dropped=0.0, noise=0.0), clock=time)
    period = robot.period
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    shown = {time.now: other.render()}
    for number, action in enumerate(actions):
        robot.act(action)
        other.advance(action)
        time.now += period * (1.3 if number % 2 else 0.7)  # the loop is not quite punctual
        shown[round(100.0 + (number + 1) * period, 6)] = other.render()
    robot.observe()
    np.testing.assert_array_equal(robot.states[20], other.get_state())
    time.now += 1
    seen = robot.observe()
    begun = round(100.0 + 20 * period, 6)
    assert seen.taken >= begun
    for taken, picture in shown.items():
        assert (picture == shown[taken]).all()


def test_pictures_are_late_lost_and_noisy_as_the_hardware_says():
    time, env = Time(), envs.make("two_room")
    env.reset(seed=0)
    hardware = Hardware(delay=0.06, jitter=0.02, dropped=0.25, noise=8.0)
    robot, ages, taken, clean = SimulatedRobot(env, hardware, clock=time), [], set(), env.render().astype(float)
    robot.act(np.zeros(2))
    for _ in range(4000):
        time.now += 0.004
        seen = robot.observe()
        if seen is not None and seen.taken not in taken:
            taken.add(seen.taken)
            ages.append(time.now - seen.taken)
            noise = seen.picture - clean
    steps = 4000 * 0.004 / robot.period
    assert 0.04 <= min(ages) <= max(ages) <= 0.084
    assert len(taken) / steps == pytest.approx(0.75, abs=0.05)
    inside = (clean > 30) & (clean < 225)
    assert noise[inside].std() == pytest.approx(8, rel=0.1)


ROBOTS = """
import numpy as np
class Arm:
    period, low, high = 0.04, -np.ones(2), np.ones(2)
    def observe(self): return np.zeros((64, 80, 3), np.uint8)
    def act(self, action): pass
    def stop(self): print("stopped")
class Mute(Arm):
    observe = property()
class Wide(Arm):
    low, high = -np.ones(3), np.ones(3)
class Slow(Arm):
    period = 0.1
class Endless(Arm):
    high = np.full(2, np.inf)
class Blind(Arm):
    def observe(self): return np.zeros((8, 8, 3), np.uint8)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "my_arms.py").write_text(ROBOTS)
    Image.fromarray(envs.make("reacher", 128).reset(seed=5)[0]).save(tmp_path / "goal.png")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_arms", None)


def test_the_command_drives_logs_and_records(run_command, place):
    words = ["--robot", "jepa_mpc.agent.simulated_robot:reacher", "--goal", "goal.png", "--checkpoint", CHECKPOINT]
    episodes = []
    for number in (1, 2):
        code, _, err = run_command(
            "run", *words, "--seconds", "1.6", "--output", f"run{number}", "--record", "recorded.h5"
        )
        assert code == 0, err
        lines = [json.loads(line) for line in (place / f"run{number}/blocks.jsonl").read_text().splitlines()]
        assert len(lines) == 8
        assert [line["due"] for line in lines] == pytest.approx(0.2 * np.arange(8))
        assert np.shape([line["actions"] for line in lines]) == (8, 5, 2)
        results = json.loads((place / f"run{number}/results.json").read_text())
        assert results["blocks"] == 8
        assert results["age_ms"] == pytest.approx(60, abs=40)
        with h5py.File("recorded.h5") as file:
            episodes.append(file["ep_len"][:].tolist())
    assert episodes[1][: len(episodes[0])] == episodes[0]  # a run is added to those before
    assert len(episodes[1]) > len(episodes[0])
    data = Dataset("recorded.h5", task="reacher")
    assert data.pixels.shape == (sum(episodes[1]), 64, 64, 3)
    assert np.isfinite(data.action).all(1).sum() == sum(episodes[1]) - len(episodes[1])


def test_a_surprise_stops_the_robot(run_command, place):
    code, out, err = run_command(
        *("run", "--robot", "my_arms:Arm", "--goal", "goal.png", "--checkpoint", CHECKPOINT, "--seconds", "2"),
        *("--max-surprise", "0.01", "--output", "run"),
    )
    assert code == 1
    assert "stopped" in out
    assert "error: the robot was stopped: a surprise of" in err
    assert json.loads((place / "run/results.json").read_text())["blocks"] < 10


def test_a_robot_that_cannot_be_driven_is_one_line(run_command, place):
    for robot, message in (
        ("my_arms:Nobody", "module 'my_arms' has no 'Nobody'"),
        ("my_arms:Mute", "the robot of my_arms:Mute has no 'observe'"),
        ("my_arms:Wide", f"takes actions of 3 numbers, the checkpoint {CHECKPOINT} gives 2"),
        (
            "my_arms:Slow",
            "my_arms:Slow is 100 ms, and the model was trained on steps of 40 ms",
        ),
        ("my_arms:Endless", "the robot of my_arms:Endless"),
        ("my_arms:Blind", "the robot's picture is 8×8; at least 64×64 pixels are needed"),
    ):
        options = [
            "--robot",
            robot,
            "--goal",
            "goal.png",
            "--checkpoint",
            CHECKPOINT,
            "--output",
            "run",
            "--seconds",
            "1",
        ]
        code, _, err = run_command("run", *options)
        assert code == 1, err
        assert message in err
        assert "Traceback" not in err


class FeelingRobot(PointRobot):
    """Sees by two cameras, of which the second has nothing to show at first, and feels where it is."""

    def observe(self):
        seen = super().observe()
        if seen is None:
            return None
        second = None if len(self.actions) < 4 else seen.picture
        return [seen.picture, second], seen.taken, self.place if len(self.actions) < 20 else None


class FeelingModel(PointModel):
    """Knows the plane by the first of two cameras, and notes what it is told."""

    def __init__(self):
        super().__init__()
        encoder = replace(self.config.encoder, num_views=2)
        self.config, self.told = replace(self.config, encoder=encoder, proprio_dim=2), []

    def encode(self, seen):
        seen = Observation.of(seen)
        if seen.proprio is not None:  # it is no goal
            self.told.append((seen.pixels[0].numpy(), seen.proprio[0].numpy()))
        return super().encode(seen.pixels)


def test_a_robot_may_have_several_cameras_and_feel_itself():
    time, model = Time(), FeelingModel().eval().requires_grad_(False)
    settings = AgentConfig(SEARCH, "latent", horizon=3, effort_weight=0.0, blocks_ahead=1)
    agent = PlanningAgent(model, SPACE, BLOCK, settings)
    robot = FeelingRobot(time)
    driver = Driver(robot, agent, Pace(reserve=0.01), time, Thinking(time))
    goal = np.concatenate([picture_of(GOAL), picture_of((0, 0))], axis=1)
    blocks = list(driver.drive(goal, 10))
    np.testing.assert_allclose(robot.place, GOAL, atol=1)
    pictures, felt = (np.stack(each) for each in zip(*model.told, strict=True))
    assert not pictures[0][:, 16:].any()
    np.testing.assert_array_equal(pictures[-1][:, :16], pictures[-1][:, 16:])
    assert 3 <= len(felt) < len(blocks)  # in the end nothing is felt any more
    assert np.isnan(blocks[-1].proprio).all()
    np.testing.assert_allclose(felt[0], [10, 10])
    for block, picture, now in zip(blocks, pictures[1:], felt[1:], strict=False):  # the first is the rehearsal
        np.testing.assert_array_equal(block.picture, picture)
        np.testing.assert_array_equal(block.proprio, now)
    with pytest.raises(UserError, match="the robot's picture must be 2 pictures, one a camera, not"):
        list(Driver(PointRobot(time), agent, Pace(reserve=0.01), time, Thinking(time)).drive(goal, 3))


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (
            (picture_of(GOAL), picture_of(GOAL)),
            r"observe\(\) must return the picture .*, not a tuple of ndarray, ndarray",
        ),
        ((picture_of(GOAL),), "not a tuple of ndarray"),
        ([None, None], "the robot has shown no picture in 10 s"),
    ],
)
def test_what_a_robot_shows_wrongly_is_named(seen, message):
    time, robot = Time(), PointRobot(Time())
    robot.observe = lambda: seen
    agent, _ = agent_with(blocks_ahead=1, horizon=3)
    with pytest.raises(UserError, match=message):
        list(Driver(robot, agent, Pace(), time, Thinking(time)).drive(picture_of(GOAL), 3))
    assert robot.num_stops == 1
