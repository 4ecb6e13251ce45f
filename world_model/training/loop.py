"""The training loop: phases of steps, each saved as it goes, so that a killed training goes on where it was.

Step n of a phase draws all its randomness from generators seeded by (seed, phase, n), so a resumed training takes
exactly the steps that an uninterrupted one would have taken.
"""

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from jepa_mpc.devices import has_bfloat16
from jepa_mpc.distributed import average_gradients, mean_over_ranks, rank, wait_for_all
from jepa_mpc.settings import Natural, NonNegative
from jepa_mpc.world_model.training.muon import Float32Muon
from jepa_mpc.world_model.training.state import TrainError, newest_state, restore, save_state

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

Load = Callable[[np.random.Generator], Any]  # a step's batch, which may be drawn ahead of it by a thread
StepLoss = Callable[[int, Any], tuple[Tensor, dict[str, Tensor]]]  # its number and batch to loss and named terms


class Phase(NamedTuple):
    """A stretch of training with an optimiser of its own."""

    name: str
    num_steps: int
    learning_rate: float
    trained: nn.Module  # what the optimisers change
    load: Load
    begin: Callable[[], StepLoss]  # called once the earlier phases' weights are in place
    report: Callable[[int], dict[str, float]] | None = None  # measured before step 0 and every `report_every` steps
    after_step: Callable[[], None] | None = None
    finish: Callable[[], None] | None = None  # called after the last step
    use_muon: bool = False  # for the matrices, AdamW for the rest; AdamW for all unless set


@dataclass(frozen=True)
class LoopConfig:
    """What all phases share."""

    seed: int
    weight_decay: float
    warmup_steps: int
    grad_clip: float
    log_every: int
    report_every: int
    save_every: int
    num_workers: int = 0


@dataclass
class Progress:
    """How far a training has come: steps done in its present phase, seconds spent, the last losses of each phase."""

    phase: Natural = 0
    step: Natural = 0
    seconds: NonNegative = 0.0
    losses: dict[str, dict[str, float]] = field(default_factory=dict)


def run_phases(phases: Sequence[Phase], weights: nn.Module, folder: Path, config: LoopConfig) -> Progress:
    """Runs the phases in order, from the state in `folder` if there is one.

    `weights` holds all that the state must restore, whether the optimiser changes it or not. Of several processes the
    first one writes.
    """
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    is_first = rank() == 0
    progress, moments = newest_state(folder, weights, Progress)
    wait_for_all()  # before the first one writes another
    if progress.step and is_first:
        log.info("going on from step %d of %s", progress.step, phases[progress.phase].name)
    ends = [0, *itertools.accumulate(phase.num_steps for phase in phases)]  # curves count the steps of all phases
    resumed = ends[progress.phase] + progress.step
    curves, purged = str(folder / "tensorboard"), resumed and resumed + 1
    writer = SummaryWriter(curves, purge_step=purged) if is_first else None
    began = time.monotonic() - progress.seconds
    for index in range(progress.phase, len(phases)):
        phase = phases[index]
        if phase.num_steps == 0:  # nor does it begin, which may take long
            continue
        first_step = progress.step if index == progress.phase else 0
        optimizers = _optimizers(phase, config.weight_decay)
        if first_step:
            for optimizer, state in zip(optimizers, moments, strict=True):
                restore(optimizer, state)
        step_loss = average_gradients(phase.begin(), phase.trained)
        if first_step == 0:
            _report(phase, writer, 0, ends[index])
        steps = range(first_step, phase.num_steps)
        bar = tqdm(steps, initial=first_step, total=phase.num_steps, desc=phase.name, disable=not is_first)
        for step, (dropout_seed, batch) in zip(
            bar, batches(phase.load, steps, [config.seed, index], config.num_workers), strict=False
        ):
            warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))  # and then a cosine to zero
            learning_rate = phase.learning_rate * (warmup * 0.5 * (1 + math.cos(math.pi * step / phase.num_steps)))
            torch.manual_seed(dropout_seed + rank())
            loss, terms = step_loss(step, batch)
            phase.trained.zero_grad(set_to_none=True)
            loss.backward()
            grad_norm = nn.utils.clip_grad_norm_(phase.trained.parameters(), config.grad_clip)
            if not torch.isfinite(loss + grad_norm):  # the gradients are everyone's, so all ranks stop
                raise TrainError(
                    f"the loss is not finite at step {step} of {phase.name}; "
                    "lower --learning-rate or use --precision float32"
                )
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate
                optimizer.step()
            if phase.after_step is not None:
                phase.after_step()

            done = step + 1
            if done == phase.num_steps and phase.finish is not None:
                phase.finish()
            if done % config.log_every == 0 or done == phase.num_steps:
                losses = {name: mean_over_ranks(value.detach()).item() for name, value in terms.items()}
                progress.losses[phase.name] = losses
                if writer is not None:
                    for name, value in {**losses, "grad_norm": float(grad_norm)}.items():
                        writer.add_scalar(f"{phase.name}/{name}", value, ends[index] + done)
                bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()})
            if done % config.report_every == 0:
                _report(phase, writer, done, ends[index])
            if done % config.save_every == 0 or done == phase.num_steps:
                progress.phase, progress.step, progress.seconds = index, done, time.monotonic() - began
                if writer is not None:
                    writer.flush()
                    save_state(folder, weights, optimizers, progress)
    if writer is not None:
        writer.close()
    progress.seconds = time.monotonic() - began
    return progress


def batches(load: Load, steps: range, seed: list[int], num_workers: int) -> Iterator[tuple[int, Any]]:
    """Yields a seed for dropout and the batch of each step, in order; threads draw them ahead of time."""

    def draw(step: int) -> tuple[int, Any]:
        rng = np.random.default_rng([*seed, step])
        return int(rng.integers(2**62)), load(rng)

    if not num_workers:
        yield from map(draw, steps)
        return
    with ThreadPoolExecutor(num_workers) as pool:
        ahead = deque(pool.submit(draw, step) for step in steps[: 2 * num_workers])
        for step in steps[2 * num_workers :]:
            yield ahead.popleft().result()
            ahead.append(pool.submit(draw, step))
        while ahead:
            yield ahead.popleft().result()


def _report(phase: Phase, writer: "SummaryWriter | None", step: int, earlier: int) -> None:
    if phase.report is not None and writer is not None:
        for name, value in phase.report(step).items():
            writer.add_scalar(name, value, earlier + step)


def _optimizers(phase: Phase, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Returns AdamW, and before it Muon (Jordan et al., 2024) for linear layers' weights where the phase wants it."""
    matrices = [m.weight for m in phase.trained.modules() if isinstance(m, nn.Linear)] if phase.use_muon else []
    chosen = {id(p) for p in matrices}
    rest = [p for p in phase.trained.parameters() if p.requires_grad and id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, weight_decay=weight_decay, fused=True)]
    if matrices:
        # Steps of AdamW's size, so that one learning rate serves both.
        kind = torch.optim.Muon if has_bfloat16(matrices[0].device) else Float32Muon
        optimizers.insert(0, kind(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers
