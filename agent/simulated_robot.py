"""A robot that is simulated in real time, with what real ones have: delay, jitter, pictures that are lost or noisy."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.agent.robot import Clock, Seen
from jepa_mpc.pictures import views


@dataclass(frozen=True)
class Hardware:
    """How it differs from its simulation. Times are in seconds."""

    delay: float = 0.06  # from a picture's being taken to its being there
    jitter: float = 0.02  # of the delay, to both sides
    dropped: float = 0.05  # share of the pictures that are lost
    noise: float = 5.0  # std of the pictures', of 255
    actuator_delay: float = 0.0  # from an action's being sent to its beginning


class SimulatedRobot:
    """Moves while time passes, whoever looks. Simulated when it is looked at, up to the time of then.

    Args:
        env: the simulator, as it stands; an action lasts one of its steps.
        hardware: how a robot of its kind differs from it.
        seed: of what is lost, late and noisy.
        clock: what tells the time.
    """

    def __init__(
        self,
        env: envs.PixelEnv,
        hardware: Hardware = Hardware(),
        seed: int = 0,
        clock: Clock = time,
    ):
        self.env, self._hardware, self._clock = env, hardware, clock
        self.period, self.cameras = env.step_seconds, env.cameras
        self.low: NDArray[np.floating] = np.array(env.action_space.low, np.float32)
        self.high: NDArray[np.floating] = np.array(env.action_space.high, np.float32)
        self._rng = np.random.default_rng(seed)
        still = np.clip(np.zeros_like(self.low), self.low, self.high)
        self._sent: list[tuple[float, NDArray[np.floating]]] = [(-np.inf, still)]
        self._on_their_way: list[tuple[float, Seen]] = []
        self._seen: Seen | None = None
        self._next = clock.monotonic()  # when the next step begins
        self.states = [env.get_state()]  # at the beginning of each step
        self._take(self._next)

    def observe(self) -> Seen | None:
        self._catch_up()
        now = self._clock.monotonic()
        for there, seen in self._on_their_way:
            if there <= now and (self._seen is None or seen.taken > self._seen.taken):
                self._seen = seen
        self._on_their_way = [each for each in self._on_their_way if each[0] > now]
        return self._seen

    def act(self, action: NDArray[np.floating]) -> None:
        self._catch_up()
        now = self._clock.monotonic()
        if len(self._sent) == 1:  # its own steps begin with the first action
            self._next = now
        self._sent.append((now + self._hardware.actuator_delay, np.array(action)))

    def stop(self) -> None:
        self.act(self._sent[0][1])

    def _catch_up(self) -> None:
        """Simulates what has happened since the last look. A step takes the action that is there at its middle."""
        while self._next + self.period <= self._clock.monotonic():
            middle = self._next + 0.5 * self.period
            (action,) = [action for begins, action in self._sent if begins <= middle][-1:]
            self.env.advance(action)
            self._next += self.period
            self.states.append(self.env.get_state())
            self._take(self._next)

    def _take(self, now: float) -> None:
        """Takes a picture, which is there a little later, or is lost."""
        hardware, rng = self._hardware, self._rng
        if rng.random() < hardware.dropped:
            return
        picture = self.env.render() + rng.normal(0, hardware.noise, self.env.observation_space.shape)
        there = now + hardware.delay + rng.uniform(-hardware.jitter, hardware.jitter)
        seen = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        shown = views(seen) if len(self.env.cameras) > 1 else seen
        self._on_their_way.append((there, Seen(shown, now, self.env.proprio)))


def reacher() -> SimulatedRobot:
    """Returns the simulated arm of `reacher`, in a pose of its own, for `jepa-mpc run --robot`."""
    env = envs.make("reacher")
    env.reset(seed=int(time.time()))
    return SimulatedRobot(env)
