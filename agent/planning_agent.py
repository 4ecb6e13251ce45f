"""Perceive → plan → act: model predictive control in latent space, toward a goal given as a picture."""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc import places
from jepa_mpc.agent.agent_config import AgentConfig, read_planning
from jepa_mpc.agent.bounds import checked_bounds
from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.agent.controller import Controller
from jepa_mpc.agent.numbers import GoalState, Numbers
from jepa_mpc.agent.objectives import OBJECTIVES, reachability
from jepa_mpc.agent.surface import (
    NOT_SEEN,
    checked_goals,
    checked_now,
    checked_pictures,
    checked_proprio,
    checked_seeds,
    warn_of_lost,
)
from jepa_mpc.devices import has_bfloat16
from jepa_mpc.envs.blocks import Bounds, as_actions, block_bounds
from jepa_mpc.errors import UserError
from jepa_mpc.planners import CostFn, Plan, Planner
from jepa_mpc.settings import checked
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.latent_policy.policy import LatentPolicy
from jepa_mpc.world_model.latent_policy.stored import load_latent_policy
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.observation import Observation

BFLOAT16_PAYS = 192  # width of a predictor from which products outweigh conversions (docs/log/speed.md)
_SEARCHES_KEPT = 10_000


def load_proposer(checkpoint: Path | str, config: AgentConfig, device: str = "cpu") -> LatentPolicy | None:
    """Returns the checkpoint's policy, if the config asks for one."""
    if config.warm_start == "none":
        return None
    folder = places.checkpoint(checkpoint)
    return load_latent_policy(folder / f"{config.warm_start}.safetensors", folder, device)[0]


class PlanningAgent:
    """Plans B episodes at once. Every block: encode the new picture, roll candidate plans, act on the best.

    What it returns is the caller's own, finite and within the bounds whatever the model says. An episode's plan does
    not depend on those beside it, up to the rounding of a larger batch's products: it may differ by 1e-4 of the range
    by MPPI and by gradient, which carry such differences on.

    Args:
        model: a trained world model, which is left as it is.
        bounds: of one action, with `low` and `high` (A,); where these are equal, the action stays.
        action_block: actions in a block.
        config: how to plan.
        proposer: what proposes plans to the search, if the config asks for it.
        calibration: what makes the camera's pictures like training's, where they are not. Goals are taken as they are:
            one that the same camera took is `calibration(goal)`.
        numbers: what reads numbers, where goals are given by them, or limits to keep to.
    """

    def __init__(
        self,
        model: JEPA,
        bounds: Bounds,
        action_block: int,
        config: AgentConfig,
        proposer: LatentPolicy | None = None,
        calibration: Calibration | None = None,
        numbers: Numbers | None = None,
    ):
        config = checked(config)
        least, most = checked_bounds(bounds, "the agent")
        if (size := action_block * len(least)) != model.config.action_dim:
            raise UserError(f"this model's blocks are {model.config.action_dim} numbers, the task's {size}")
        if config.receding_horizon > config.horizon:
            raise UserError(f"receding_horizon must lie in 1–{config.horizon} (horizon), not {config.receding_horizon}")
        longest = config.history_len + config.horizon - 1
        if longest > (limit := model.config.predictor.max_len):
            raise UserError(f"history_len + horizon - 1 is {longest}; this model's predictor sees at most {limit}")
        if OBJECTIVES[config.objective] is reachability and model.reachability is None:
            raise UserError("this checkpoint has no reachability metric; use --objective latent or train it again")
        if (config.warm_start != "none") != (proposer is not None):
            raise UserError("warm_start names the policy that proposes; one must be there if, and only if, it does")
        if proposer is not None:
            sizes, needed = (proposer.embed_dim, proposer.action_dim), (model.config.embed_dim, model.config.action_dim)
            if sizes != needed:
                raise UserError(f"this policy is of embeddings and blocks of {sizes} numbers, not {needed}")
        if config.planner.num_iterations == 0 and proposer is None:
            raise UserError("without a search (num_iterations 0), a policy must propose: use --warm-start")
        self._device = model.action_mean.device
        wide = model.config.predictor.width >= BFLOAT16_PAYS
        if config.precision == "bfloat16" or (config.precision == "auto" and wide and has_bfloat16(self._device)):
            model = copy.deepcopy(model)
            model.predictor.bfloat16()
        self.model, self.config, self.action_block = model, config, action_block
        low, high = (torch.from_numpy(each).to(self._device) for each in block_bounds(least, most, action_block))
        self._planner = config.planner.make(low, high, action_block)
        if not isinstance(self._planner, Planner):
            raise UserError(f"{type(config.planner).__name__}.make must return a Planner, not {self._planner!r}")
        if numbers is not None and numbers.probe.embed_dim != model.config.embed_dim:
            raise UserError(f"this probe reads embeddings of {numbers.probe.embed_dim} numbers, not this model's")
        self.numbers, self._has_proposer = numbers, proposer is not None
        self.controller = Controller(model, config, self._planner, proposer, numbers)
        self.calibration, self.picture_size = calibration, model.config.encoder.picture_size
        self.num_proprio, self.blocks_ahead = model.config.proprio_dim, config.blocks_ahead
        if calibration is not None and model.config.encoder.num_views > 1:
            raise UserError("a calibration is of one camera, and this model sees by several; leave it out")
        self.step_seconds = 0.0  # that one action lasts; 0: nobody knows
        self.rounds_done: list[int] = []  # by each of the last searches; fewer than asked for where it met the deadline
        self._num_episodes = 0
        self.generators: list[torch.Generator] = []  # of the episodes' searches

    @classmethod
    def load(
        cls,
        checkpoint: Path | str,
        config: AgentConfig | None = None,
        device: str = "cpu",
        bounds: Bounds | None = None,
        calibration: Calibration | Path | str | None = None,
        numbers: Numbers | None = None,
    ) -> "PlanningAgent":
        """Returns the agent of a checkpoint, planned as it says unless told otherwise. No simulator is needed.

        A camera that was calibrated is given as such, or as the file that `jepa-mpc calibrate` wrote.

        Raises `UserError` if the checkpoint does not say what actions it takes, and no bounds are given.
        """
        model, info = load_checkpoint(checkpoint, device=device)
        config = read_planning(info.planning, places.checkpoint(checkpoint)) if config is None else checked(config)
        if bounds is None and info.interface is None:
            raise UserError(f"checkpoint {checkpoint} does not say what actions it takes; pass bounds, such as a Box")
        bounds = info.interface.bounds() if bounds is None and info.interface else bounds
        assert bounds is not None
        least, _ = checked_bounds(bounds, "the agent")
        block = info.interface.action_block if info.interface else model.config.action_dim // len(least)
        if isinstance(calibration, str | Path):
            calibration = Calibration.load(Path(calibration))
        elif not isinstance(calibration, Calibration | None):
            raise UserError(f"calibration must be a Calibration or the file of one, not {calibration!r}")
        agent = cls(model, bounds, block, config, load_proposer(checkpoint, config, device), calibration, numbers)
        agent.step_seconds = info.interface.step_seconds if info.interface else 0.0
        return agent

    def reset(self, goals: NDArray[np.uint8] | GoalState, seeds: Sequence[int]) -> None:
        """Begins B episodes: goal pictures (B, H, W, 3) uint8, or several (B, G, H, W, 3) of which each serves, encoded
        once, and a seed for each episode's search. Or goals are numbers by name, one an episode (B,) or one for all,
        as `Numbers` reads them; those not named are free.
        """
        if isinstance(goals, Mapping):
            whole = checked_seeds(seeds)
            none = torch.zeros(len(whole), 0, self.model.config.embed_dim, device=self._device)
            memory = self.controller.begin(none, self._state(goals, len(whole)))
        else:
            pictures, whole = checked_goals(goals, seeds, self.picture_size)
            with torch.inference_mode(not self._planner.needs_gradient):
                memory = self.controller.begin(self.model.encode(self._tensor(pictures)))
        # Only now, so that an agent whose reset has failed is where it was.
        self._memory, self._num_episodes = memory, len(whole)
        self.generators = [torch.Generator(self._device).manual_seed(seed) for seed in whole]

    def act(
        self, pictures: NDArray[np.uint8] | None, proprio: NDArray[np.floating] | None = None
    ) -> NDArray[np.float32]:
        """Returns the next block (B, block, A) for the pictures (B, H, W, 3) uint8 of now; where blocks are on their
        way (`AgentConfig.blocks_ahead`), the one behind them.

        None: no pictures came, and what the model had foreseen takes their place. A model that was trained with it also
        takes what the robots feel of themselves (B, P), `num_proprio` numbers, NaN where they are not known.
        """
        deadline = time.perf_counter() + (self.config.deadline_ms or math.inf) / 1e3
        has_seen = self._num_episodes > 0 and bool(self._memory.z_history)
        pictures = checked_now(pictures, self._num_episodes, has_seen, self.picture_size)
        felt = checked_proprio(proprio, pictures, self.num_proprio)
        if pictures is not None and self.calibration is not None:
            pictures = self.calibration(pictures)

        def search(cost_fn: CostFn, warm_start: Plan | None) -> Plan:
            return self._planner.plan(cost_fn, self.config.horizon, self.generators, warm_start, deadline)

        with torch.inference_mode(not self._planner.needs_gradient):
            with torch.no_grad():
                z = None if pictures is None else self._encode(pictures, felt)
                memory = self.controller.see(self._memory, z)
            decision = self.controller.decide(memory, search)
        warn_of_lost(decision.lost.cpu().numpy())
        # Only now, so that an agent whose decision has failed is where it was.
        self._memory = decision.memory
        if (plan := self._memory.plan) is not None and self._memory.blocks_done == 1:
            self.rounds_done = [*self.rounds_done, plan.num_rounds][-_SEARCHES_KEPT:]
        return as_actions(decision.block.cpu().numpy().copy(), self.action_block)

    def surprise(self) -> NDArray[np.float32]:
        """Returns how unforeseen the last pictures were (B,), given those before and what was done. Each of its two
        measures (`world_model.model.surprise`) exceeds 1 at one in twenty of training's held-out pictures. NaN at an
        episode's first picture, where none came, and where the checkpoint does not know.
        """
        if not self._num_episodes or not self._memory.z_history:
            raise UserError(NOT_SEEN)
        return self._memory.surprise.cpu().numpy().copy()

    @torch.inference_mode()
    def latent_distance(self, pictures: NDArray[np.uint8], goals: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the Euclidean distance (...) between the embeddings of pictures and goals (..., H, W, 3) uint8, which
        may broadcast. Neither is calibrated.
        """
        seen = [self._tensor(checked_pictures(each, "pictures", self.picture_size)) for each in (pictures, goals)]
        z, z_goal = map(self.model.encode, seen)
        return self.model.latent_distance(z, z_goal).cpu().numpy()

    @torch.inference_mode()
    def read(
        self, pictures: NDArray[np.uint8], proprio: NDArray[np.floating] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Returns the probe's numbers (B,) by name, read off pictures (B, H, W, 3) uint8 and what is felt (B, P), as
        `act` takes them.
        """
        if self.numbers is None:
            raise UserError("to read numbers, an agent needs a probe: pass numbers=Numbers.load(…)")
        pictures = checked_pictures(pictures, "pictures", self.picture_size, 4)
        felt = checked_proprio(proprio, pictures, self.num_proprio)
        pictures = pictures if self.calibration is None else self.calibration(pictures)
        read = self.numbers.probe(self._encode(pictures, felt)).cpu().numpy()
        return {each.name: read[..., i] for i, each in enumerate(self.numbers.probe.coordinates)}

    def _state(self, wanted: GoalState, num_episodes: int) -> torch.Tensor:
        """Returns goals by numbers (B, P). Raises `UserError` where they cannot be planned to."""
        if self.numbers is None:
            raise UserError("a goal by numbers needs a probe that reads them: pass numbers=Numbers.load(…)")
        if self._has_proposer:
            raise UserError("a policy proposes toward goal pictures; for a goal by numbers use --warm-start none")
        return self.numbers.goal(wanted, num_episodes).to(self._device)

    def _encode(self, pictures: NDArray[np.uint8], felt: NDArray[np.float32] | None) -> torch.Tensor:
        seen = self._tensor(pictures)
        return self.model.encode(seen if felt is None else Observation(seen, torch.from_numpy(felt).to(self._device)))

    def _tensor(self, pictures: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(np.array(pictures, order="C")).to(self._device)
