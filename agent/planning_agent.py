"""Perceive → plan → act: model predictive control in latent space, toward a goal given as a picture."""

import copy
import math
import operator
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from jepa_mpc import places
from jepa_mpc.agent.agent_config import AgentConfig, read_planning
from jepa_mpc.agent.bounds import checked_bounds
from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.agent.objectives import OBJECTIVES, reachability
from jepa_mpc.devices import has_bfloat16
from jepa_mpc.envs.blocks import Bounds, as_actions, block_bounds
from jepa_mpc.errors import UserError
from jepa_mpc.pictures import require_pictures
from jepa_mpc.planners import REDUCTIONS, Plan, Planner, effort, require_floats, shift
from jepa_mpc.settings import checked
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.latent_policy.policy import LatentPolicy, load_latent_policy
from jepa_mpc.world_model.model.jepa import JEPA

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
    """

    def __init__(
        self,
        model: JEPA,
        bounds: Bounds,
        action_block: int,
        config: AgentConfig,
        proposer: LatentPolicy | None = None,
        calibration: Calibration | None = None,
    ):
        config = checked(config)
        least, most = checked_bounds(bounds, "the agent")
        if (numbers := action_block * len(least)) != model.config.action_dim:
            raise UserError(f"this model's blocks are {model.config.action_dim} numbers, the task's {numbers}")
        if config.receding_horizon > config.horizon:
            raise UserError(f"receding_horizon must lie in 1–{config.horizon} (horizon), not {config.receding_horizon}")
        longest = config.history_len + config.horizon - 1
        if longest > (limit := model.config.predictor.max_len):
            raise UserError(f"history_len + horizon - 1 is {longest}; this model's predictor sees at most {limit}")
        self._objective = OBJECTIVES[config.objective]
        if self._objective is reachability and model.reachability is None:
            raise UserError("this checkpoint has no reachability metric; use --objective latent or train it again")
        if (config.warm_start != "none") != (proposer is not None):
            raise UserError("warm_start names the policy that proposes; one must be there if, and only if, it does")
        if config.planner.num_iterations == 0 and proposer is None:
            raise UserError("without a search (num_iterations 0), a policy must propose: use --warm-start")
        self._device = model.action_mean.device
        wide = model.config.predictor.width >= BFLOAT16_PAYS
        if config.precision == "bfloat16" or (config.precision == "auto" and wide and has_bfloat16(self._device)):
            model = copy.deepcopy(model)
            model.predictor.bfloat16()
        self.model, self.config, self.action_block, self._proposer = model, config, action_block, proposer
        low, high = (torch.from_numpy(each).to(self._device) for each in block_bounds(least, most, action_block))
        self._planner = config.planner.make(low, high, action_block)
        if not isinstance(self._planner, Planner):
            raise UserError(f"{type(config.planner).__name__}.make must return a Planner, not {self._planner!r}")
        self._calibration = calibration
        self._reduce = REDUCTIONS[config.reduction]
        self.rounds_done: list[int] = []  # by each of the last searches; fewer than asked for where it met the deadline
        self._num_episodes = 0

    @classmethod
    def load(
        cls,
        checkpoint: Path | str,
        config: AgentConfig | None = None,
        device: str = "cpu",
        bounds: Bounds | None = None,
        calibration: Calibration | Path | str | None = None,
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
        return cls(model, bounds, block, config, load_proposer(checkpoint, config, device), calibration)

    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        """Begins B episodes: goal pictures (B, H, W, 3) uint8, or several (B, G, H, W, 3) of which each serves, encoded
        once, and a seed for each episode's search.
        """
        goals = self._checked(goals, "goals", 4, 5)
        if goals.ndim == 4:
            goals = goals[:, None]
        if not goals.shape[1]:
            raise UserError(f"goals must be at least one picture an episode, not {goals.shape}")
        try:
            whole = [operator.index(seed) for seed in seeds]
        except TypeError as error:
            raise UserError(f"seeds must be whole numbers, one a goal, not {seeds!r}") from error
        if not len(goals) == len(whole) > 0:
            raise UserError(f"{len(goals)} goals need a seed each, not {len(whole)} seeds, and at least one is needed")
        if not all(-(2**63) <= seed < 2**64 for seed in whole):
            raise UserError(f"seeds must be numbers of 64 bits, not {seeds!r}")
        with torch.inference_mode(not self._planner.needs_gradient):
            z_goal = self.model.encode(self._tensor(goals))[:, :, None, None]
        # Only now, so that an agent whose reset has failed is where it was.
        self._z_goal = z_goal
        self._generators = [torch.Generator(self._device).manual_seed(seed) for seed in whole]
        self._z_history: list[torch.Tensor] = []
        self._past_actions: list[torch.Tensor] = []
        self._offset = torch.zeros_like(z_goal[:, 0, 0, 0])
        self._surprise = self._offset.new_full((len(goals),), math.nan)
        self._plan: Plan | None = None
        self._blocks_done, self._num_episodes = 0, len(goals)
        middle = self._planner.middle.expand(len(goals), -1)
        self._on_their_way = [middle] * self.config.blocks_ahead  # until the first answer nothing is done

    def act(self, pictures: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Returns the next block (B, block, A) for the pictures (B, H, W, 3) uint8 of now; where blocks are on their
        way (`AgentConfig.blocks_ahead`), the one behind them.

        None: no pictures came, and what the model had foreseen takes their place.
        """
        deadline = time.perf_counter() + (self.config.deadline_ms or math.inf) / 1e3
        if not self._num_episodes:
            raise UserError("an agent acts toward goals: call reset(goals, seeds) before act(pictures)")
        if pictures is not None:
            pictures = self._checked(pictures, "pictures", 4)
            if len(pictures) != self._num_episodes:
                raise UserError(
                    f"{self._num_episodes} goals were given and {len(pictures)} pictures; give one for each"
                )
            if self._calibration is not None:
                pictures = self._calibration(pictures)
        elif not self._z_history:
            raise UserError("an agent needs a picture to begin with: act(None) may follow, but not come first")
        before = dict(vars(self))
        try:
            with torch.inference_mode(not self._planner.needs_gradient):
                self._see(None if pictures is None else self.model.encode(self._tensor(pictures)))
                block = self._decide(deadline)
        except BaseException:  # also Ctrl-C: an agent whose decision has failed is where it was
            vars(self).update(before)
            raise
        return as_actions(block.cpu().numpy().copy(), self.action_block)

    def _decide(self, deadline: float) -> torch.Tensor:
        """Returns the next block (B, A)."""
        if self._plan is None or self._blocks_done == self.config.receding_horizon:
            self._plan = self._search(deadline)
            self._blocks_done = 0
            self.rounds_done = [*self.rounds_done, self._plan.num_rounds][-_SEARCHES_KEPT:]
        block = self._safe(self._plan.actions[:, self._blocks_done], self._plan.cost)
        self._blocks_done += 1
        now, *self._on_their_way = [*self._on_their_way, block]
        self._past_actions = [*self._past_actions, now][-self.config.history_len :]
        return block

    def surprise(self) -> NDArray[np.float32]:
        """Returns how unforeseen the last pictures were (B,), given those before and what was done: 1 is what one in
        twenty predictions in training's held-out episodes exceeds. NaN at an episode's first picture, where none came,
        and where the checkpoint does not know.
        """
        if not self._num_episodes or not self._z_history:
            raise UserError("an agent is surprised by pictures: call act(pictures) before asking for surprise")
        return self._surprise.cpu().numpy().copy()

    @torch.no_grad()
    def _see(self, z: torch.Tensor | None) -> None:
        """Adds embeddings (B, D) to the history, and learns from what the last prediction missed them by; None: the
        prediction takes their place.

        Notable: a model is a little wrong in the same way again and again, most of all where the arm stands still. The
        mean of late misses, added to what it says, frees planning of that (offset-free MPC: Muske & Badgwell, J.
        Process Control 12, 2002; Pannocchia & Rawlings, AIChE Journal 49, 2003).
        """
        if self._z_history:
            foreseen = self._foreseen(self._z_history, self._past_actions)
            if z is None:
                z, self._surprise = foreseen + self._offset, torch.full_like(self._surprise, math.nan)
            else:
                self._learn(foreseen, z)
        assert z is not None
        self._z_history = [*self._z_history, z][-self.config.history_len :]

    def _foreseen(self, z_history: Sequence[torch.Tensor], actions: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns what the model predicts (B, D) after embeddings (B, D) and the blocks (B, A) from each on."""
        return self.model.predict(torch.stack([*z_history], dim=1), torch.stack([*actions], dim=1))[:, -1]

    def _learn(self, foreseen: torch.Tensor, z: torch.Tensor) -> None:
        """Updates offset and surprise by what the prediction (B, D) missed of the embeddings (B, D) that came."""
        missed, moved = z - foreseen, foreseen - self._z_history[-1]
        known = missed.isfinite().all(dim=-1, keepdim=True)  # one prediction that is no number spoils no later one
        self._offset = torch.where(known, torch.lerp(self._offset, missed, self.config.offset_rate), self._offset)
        self._surprise = self.model.surprise(missed, moved, len(self._z_history))

    def _safe(self, block: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
        """Returns the block (B, A) within bounds, or the middle of them where no plan has a cost (B,) that is a number,
        or the plan is none itself.
        """
        block = torch.clamp(block, self._planner.low, self._planner.high)
        lost = ~(torch.isfinite(cost) & torch.isfinite(block).all(1))
        if not lost.any():
            return block
        warnings.warn(
            f"the model gives no finite cost in {int(lost.sum())} of {len(lost)} episodes; the middle of the bounds is "
            "sent instead",
            stacklevel=3,
        )
        return torch.where(lost[:, None], self._planner.middle, block)

    @torch.inference_mode()
    def latent_distance(self, pictures: NDArray[np.uint8], goals: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the Euclidean distance (...) between the embeddings of pictures and goals (..., H, W, 3) uint8, which
        may broadcast. Neither is calibrated.
        """
        seen = [self._tensor(self._checked(each, "pictures")) for each in (pictures, goals)]
        z, z_goal = map(self.model.encode, seen)
        return self.model.latent_distance(z, z_goal).cpu().numpy()

    def _search(self, deadline: float) -> Plan:
        planner, config = self._planner, self.config
        seen, past = [*self._z_history], self._past_actions[len(self._past_actions) - len(self._z_history) + 1 :]
        for block in self._on_their_way:
            past = [*past, block]
            seen = [*seen, self._foreseen(seen, past) + self._offset][-config.history_len :]
            past = past[len(past) - len(seen) + 1 :]
        z_history = torch.stack(seen, dim=1)
        past_actions = torch.stack(past, dim=1) if past else None

        def cost(actions: torch.Tensor) -> torch.Tensor:
            future = self.model.rollout(z_history, past_actions, actions, self._offset)
            toll = effort(actions, planner.middle, planner.half_range)
            costs = torch.stack([self._cost(future, z_history[:, -1], z_goal) for z_goal in self._z_goal.unbind(1)])
            costs = costs.amin(0) if config.several_goals == "nearest" else costs.mean(0)
            return costs + config.effort_weight * toll

        warm_start = None if self._plan is None else shift(self._plan, self._blocks_done, planner.middle)
        if self._proposer is not None:
            warm_start = self._propose(warm_start, z_history, past_actions)
        return planner.plan(cost, config.horizon, self._generators, warm_start, deadline)

    def _cost(self, future: torch.Tensor, z_now: torch.Tensor, z_goal: torch.Tensor) -> torch.Tensor:
        """Returns how far futures (B, S, H, D) are from a goal (B, 1, 1, D), as costs (B, S)."""
        config = self.config
        distance = self._objective(self.model, future, z_now, z_goal)
        require_floats(distance, f"objective {config.objective} must return distances (B, S, H)", future.shape[:3])
        costs = self._reduce(distance)
        require_floats(costs, f"reduction {config.reduction} must return costs (B, S)", future.shape[:2])
        return costs

    def _propose(self, warm_start: Plan | None, z_history: torch.Tensor, past_actions: torch.Tensor | None) -> Plan:
        """Returns the plan to start from, with the policy's own, in the futures that it leads to, among its elites.
        Without a search the policy's own is the plan, no longer than it is acted on.
        """
        assert self._proposer is not None
        z, z_goals = z_history[:, -1], self._z_goal[:, :, 0, 0]
        nearest = (z_goals - z[:, None]).norm(dim=-1).argmin(1)
        z_goal = z_goals[torch.arange(len(z)), nearest]
        z_before = z_history[:, -2] if z_history.shape[1] > 1 else z
        alone = not self.config.planner.num_iterations
        blocks: list[torch.Tensor] = []
        planner = self._planner
        for _ in range(self.config.receding_horizon if alone else self.config.horizon):
            if blocks:
                future = self.model.rollout(
                    z_history, past_actions, torch.stack(blocks, dim=1).unsqueeze(1), self._offset
                )
                z_before, z = z, future[:, 0, -1]
            blocks.append(torch.clamp(self._proposer(z_before, z, z_goal), planner.low, planner.high))
        actions = torch.stack(blocks, dim=1)
        if alone or warm_start is None:
            return Plan(actions, actions.new_zeros(len(actions)), actions.unsqueeze(1), 0)
        elites = torch.cat([warm_start.elites, actions.unsqueeze(1)], dim=1)
        return Plan(warm_start.actions, warm_start.cost, elites, warm_start.num_rounds)

    def _checked(self, pictures: ArrayLike, what: str, *num_dimensions: int) -> NDArray[np.uint8]:
        """Returns pictures (..., H, W, 3) as they must be; raises `UserError` on any others."""
        array = require_pictures(pictures, what, side := self.model.config.encoder.image_size)
        if num_dimensions and array.ndim not in num_dimensions:
            raise UserError(f"{what} must be (B, {side}, {side}, 3), not {array.shape}")
        return array

    def _tensor(self, pictures: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(np.array(pictures, order="C")).to(self._device)
