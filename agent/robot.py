"""What drives a real robot needs of it, and the loop that does.

    class MyArm:
        period = 0.04                                   # seconds that an action lasts
        low, high = np.array([-1.0]), np.array([1.0])   # bounds of an action (A,)
        def observe(self): ...                          # the newest picture, or (picture, when it was taken),
                                                        # or (picture, when, what the robot feels of itself)
        def act(self, action): ...                      # begins an action, at once
        def stop(self): ...                             # brings the robot to rest

While one block of actions is carried out, the next is decided: from the picture that shows where the block began, when
that has come, and the block itself. So neither the camera's delay nor the decision's is in the way, as long as both
together are shorter than a block.
"""

import contextlib
import math
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jepa_mpc.agent.bounds import checked_bounds
from jepa_mpc.errors import UserError, reason
from jepa_mpc.pictures import side_by_side
from jepa_mpc.settings import Positive, convert

_POLL = 0.002  # seconds between looks for a picture
_NEAR = 0.75  # of a period: how far from when it is wanted a picture may be taken
_KEPT = 32  # pictures
_FIRST_PICTURE = 10.0  # seconds until there must be one
_MOST_DELAY = 60.0  # seconds from when a picture is taken to when it is seen
_SAME_PERIOD = 0.05  # share by which a robot's period may differ from training's


class Seen(NamedTuple):
    """A picture (H, W, 3) uint8, when it was taken (seconds of `time.monotonic`), and what the robot felt then (P,),
    where the model knows of that. Of several cameras it is a list of one each, None for one that shows nothing.
    """

    picture: NDArray[np.uint8] | Sequence[NDArray[np.uint8] | None]
    taken: float
    proprio: NDArray[np.floating] | None = None


class Robot(Protocol):
    """A robot of one's own. Nothing here waits: what it takes longer delays its next action."""

    period: float  # seconds that an action lasts
    low: NDArray[np.floating]  # (A,)
    high: NDArray[np.floating]
    # `cameras`, their names in order, may be there too, and is then held against the checkpoint's.

    def observe(self) -> Seen | NDArray[np.uint8] | Sequence[NDArray[np.uint8] | None] | None:
        """Returns the newest picture, with the time when it was taken if that is known; None if there is none yet."""

    def act(self, action: NDArray[np.float32]) -> None:
        """Begins an action (A,), which lasts until the next."""

    def stop(self) -> None:
        """Brings the robot to rest, whatever it does."""


class RobotAgent(Protocol):
    """What decides for a robot: a `PlanningAgent`, or an `ExportedAgent` where there is no PyTorch."""

    action_block: int
    num_proprio: int
    blocks_ahead: int  # that are on their way when it decides
    step_seconds: float  # that one action lasts; 0: nobody knows

    @property
    def picture_size(self) -> tuple[int, int]:
        """Returns height and width of what it sees, all cameras together."""

    def reset(self, goals: Any, seeds: Sequence[int]) -> None:
        """Begins B episodes toward goal pictures (B, H, W, 3), or what else it takes for goals."""

    def act(
        self, pictures: NDArray[np.uint8] | None, proprio: NDArray[np.floating] | None = None
    ) -> NDArray[np.float32]:
        """Returns the next block (B, block, A) for pictures (B, H, W, 3) and what is felt (B, P); None: none came."""

    def surprise(self) -> NDArray[np.float32]:
        """Returns how unforeseen the last pictures were (B,)."""


class Clock(Protocol):
    """What tells the time, in seconds, and lets it pass."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Pace:
    """How a robot is driven. Times are in seconds."""

    bridge: bool = True  # decide on the next block while the present one is carried out
    camera_delay: float = 0.0  # from when a picture is taken to when it is seen, where the robot does not say
    actuator_delay: float = 0.0  # from when an action is sent to when it begins
    reserve: float = 0.06  # kept free for a decision before its block begins
    hold: bool = True  # where a block is late, the last action goes on; else zeros are sent
    most_blind: int = 5  # blocks in a row that may be decided without a picture


@dataclass(frozen=True)
class Block:
    """One block as it came to be. Times are in seconds from the first action on."""

    picture: NDArray[np.uint8] | None  # its beginning, cut to the model's size, not calibrated; None if none came
    proprio: NDArray[np.float32]  # what was felt then (P,), where the model knows of it; NaN where nothing was told
    age: float  # of the picture when it was seen; NaN if none came
    due: float  # when it begins
    actions: NDArray[np.float32]  # what was sent (block, A)
    surprise: float  # of the picture
    answered: float  # when the decision was there that the picture was asked for
    in_time: bool  # whether its own actions were decided when it began; true of stillness before the first answer


def require_period(robot: Robot, step_seconds: float, whose: str) -> None:
    """Raises `UserError` unless a robot's period is about as long as steps of training, where that is known."""
    period = convert(Positive, robot.period, (f"the period of {whose}",))
    if step_seconds and abs(period / step_seconds - 1) > _SAME_PERIOD:
        raise UserError(
            f"the period of {whose} is {1e3 * period:g} ms, and the model was trained on steps of "
            f"{1e3 * step_seconds:g} ms; drive it at that rate, or train on data of its own"
        )


class Driver:
    """Drives a robot toward goal pictures, at the robot's own rate.

    Args:
        robot: the robot.
        agent: what decides; its `blocks_ahead` must be 1 where the delay is bridged, else 0.
        pace: how it is driven.
        clock: what tells the time.
        pool: where decisions are made, beside the loop; a thread of its own unless given.
    """

    def __init__(
        self,
        robot: Robot,
        agent: RobotAgent,
        pace: Pace = Pace(),
        clock: Clock = time,
        pool: Executor | None = None,
    ):
        self._robot, self._agent, self._pace, self._clock = robot, agent, pace, clock
        low, high = checked_bounds(robot, "the robot")
        require_period(robot, agent.step_seconds, "the robot")
        self._ahead = int(pace.bridge)
        if agent.blocks_ahead != self._ahead:
            raise UserError(
                f"blocks_ahead must be {self._ahead} for an agent that is driven so, not {agent.blocks_ahead}; "
                f"export it with --blocks-ahead {self._ahead}, or say so in its AgentConfig"
            )
        self._size, self._length = agent.picture_size, agent.action_block
        self._pool = pool or ThreadPoolExecutor(1)
        self._low, self._high = low, high
        self._still = np.clip(np.zeros_like(low), low, high)

    def drive(
        self, goal: NDArray[np.uint8] | Mapping[str, ArrayLike], num_blocks: int, seed: int = 0
    ) -> Generator[Block, None, None]:
        """Carries out so many blocks toward a goal picture (H, W, 3), or numbers by name; yields each when its picture
        has been looked at.

        The robot is stopped however this ends, also where the caller asks for no more. Raises `UserError` where it
        shows no picture.
        """
        if num_blocks < 1:
            raise UserError(f"num_blocks must be at least 1, not {num_blocks!r}")
        goals = goal if isinstance(goal, Mapping) else side_by_side(goal, self._size, "the goal")[None]
        self._agent.reset(goals, [seed])
        self._answers: dict[int, Future[_Answer]] = {}
        self._pictures: list[Seen] = []
        self._blind = 0
        try:
            give_up = self._clock.monotonic() + _FIRST_PICTURE
            while not self._pictures:  # a decision needs one to begin with
                if self._clock.monotonic() > give_up:
                    raise UserError(f"the robot has shown no picture in {_FIRST_PICTURE:g} s; see to its camera")
                self._look()
                self._clock.sleep(_POLL)
            self._rehearse(goals, seed)
            self._begin = self._clock.monotonic()
            action = self._still
            sent: dict[int, tuple[NDArray[np.float32], bool]] = {}
            for number in range(num_blocks):
                actions, in_time = [], number < self._ahead
                for step in range(self._length):
                    self._wait(number, due := self._due(number) + step * self._robot.period)
                    if (late := self._clock.monotonic() - due) > self._length * self._robot.period:
                        raise UserError(
                            f"actions are {1e3 * late:.0f} ms late; observe() and act() together must take less than "
                            f"the period of {1e3 * self._robot.period:g} ms"
                        )
                    answer = self._answers.get(number)
                    if answer is not None and answer.done():
                        action, in_time = answer.result().block[step], in_time or step == 0
                    elif not self._pace.hold:
                        action = self._still
                    self._robot.act(action)
                    actions.append(action)
                sent[number] = np.array(actions), in_time
                self._wait(number, self._due(number + 1) - self._pace.reserve)
                while sent and self._answers[min(sent) + self._ahead].done():  # what is not there yet is not waited for
                    yield self._done(min(sent), *sent.pop(min(sent)))
            self._wait(number, self._due(num_blocks))
        finally:
            try:
                self._robot.stop()
            except Exception as error:
                raise UserError(f"the robot's stop() failed, so it may move still: {reason(error)}") from error
            for answer in self._answers.values():  # the agent is at rest too, before anybody resets it
                with contextlib.suppress(Exception):
                    answer.result()
        for number, carried_out in sent.items():
            yield self._done(number, *carried_out)

    def _rehearse(self, goals: Any, seed: int) -> None:
        """Decides once before it counts: the first decision, for which memory is laid out, takes many times as long."""
        self._pool.submit(self._decide, self._pictures[-1], self._clock.monotonic()).result()
        self._agent.reset(goals, [seed])

    def _due(self, number: int) -> float:
        """Returns when a block begins."""
        return self._begin + number * self._length * self._robot.period

    def _look(self) -> None:
        """Takes in what the robot has seen."""
        seen = self._robot.observe()
        if seen is None:
            return
        if not isinstance(seen, tuple):
            seen = Seen(seen, self._clock.monotonic() - self._pace.camera_delay)
        if not (2 <= len(seen) <= 3 and isinstance(seen[1], int | float | np.number)):
            raise UserError(
                "observe() must return the picture (of several cameras a list), or a tuple of it, the time when it was "
                f"taken and, maybe, what was felt, not a tuple of {', '.join(type(each).__name__ for each in seen)}"
            )
        age = self._clock.monotonic() - seen[1]
        if not -_FIRST_PICTURE <= age <= _FIRST_PICTURE + _MOST_DELAY:
            raise UserError(
                f"observe() says that its picture was taken {age:.3g} s ago; tell it in seconds of time.monotonic()"
            )
        if isinstance(seen[0], list) and all(each is None for each in seen[0]):
            return
        if not self._pictures or seen[1] > self._pictures[-1].taken:
            self._pictures = [*self._pictures, Seen(*seen)][-_KEPT:]

    def _wait(self, number: int, due: float) -> None:
        """Lets time pass until an action is due; decides what the block is to decide as soon as it can be."""
        while True:
            self._look()
            now = self._clock.monotonic()
            if number + self._ahead not in self._answers:
                self._ask(number, now)
            if now >= due:
                return
            self._clock.sleep(min(due - now, _POLL))

    def _ask(self, number: int, now: float) -> None:
        """Has the next block decided, if the picture is there or will not come in time."""
        wanted = self._due(number) + self._pace.actuator_delay
        if self._pace.bridge:
            near = [each for each in self._pictures if abs(each.taken - wanted) <= _NEAR * self._robot.period]
            passed = self._pictures[-1].taken > wanted or now >= self._due(number + 1) - self._pace.reserve
        else:
            near, passed = self._pictures[-1:], True
        if now < self._due(number) or not (near or passed):
            return
        if not near and number == 0:  # there is nothing yet to foresee from
            near = self._pictures[-1:]
        seen = min(near, key=lambda each: abs(each.taken - wanted)) if near else None
        self._answers[number + self._ahead] = self._pool.submit(self._decide, seen, now)

    def _decide(self, seen: Seen | None, now: float) -> "_Answer":
        felt = np.full(self._agent.num_proprio, np.nan, np.float32)
        if seen is None:
            picture, age = None, math.nan
            (block,) = self._agent.act(None)
        else:
            picture, age = side_by_side(seen.picture, self._size, "the robot's picture"), now - seen.taken
            told = None if seen.proprio is None or not len(felt) else np.asarray(seen.proprio)[None]
            (block,) = self._agent.act(picture[None], told)
            felt = felt if told is None else told[0].astype(np.float32)
        if block.shape[1:] != self._low.shape:
            raise UserError(f"the robot takes actions of {len(self._low)} numbers, the agent gives {block.shape[1]}")
        block = np.clip(block, self._low, self._high)
        return _Answer(block, picture, felt, age, float(self._agent.surprise()[0]), self._clock.monotonic())

    def _done(self, number: int, actions: NDArray[np.float32], in_time: bool) -> Block:
        """Returns the block that has been carried out, with what was seen of its beginning."""
        answer = self._answers[number + self._ahead].result()
        self._answers.pop(number - 1, None)  # long carried out
        self._blind = 0 if answer.picture is not None else self._blind + 1
        if self._blind > self._pace.most_blind:
            raise UserError(f"no picture has come in time for {self._blind} blocks; the robot is stopped")
        due, answered = self._due(number) - self._begin, answer.at - self._begin
        return Block(answer.picture, answer.proprio, answer.age, due, actions, answer.surprise, answered, in_time)


class _Answer(NamedTuple):
    """A decided block (block, A), and what it was decided from."""

    block: NDArray[np.float32]
    picture: NDArray[np.uint8] | None
    proprio: NDArray[np.float32]
    age: float
    surprise: float
    at: float
