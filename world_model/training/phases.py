"""The phases of a training: encoder and predictor together, then on frozen embeddings the predictor alone, then the
reachability metric; and a second encoder, if one is to look through what pictures are varied by.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from jepa_mpc.devices import has_bfloat16
from jepa_mpc.distributed import gather, num_ranks, rank, share, sum_over_ranks
from jepa_mpc.world_model.data.augment import AugmentConfig, augment
from jepa_mpc.world_model.data.dataset import Dataset
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.model.reachability import Reachability, Whitening, reachability_loss
from jepa_mpc.world_model.observation import NO_DROPOUT, ModalityDropout, Observation, drop_modalities
from jepa_mpc.world_model.regularizers.base import Latents, Regularizer
from jepa_mpc.world_model.training.config import TrainConfig
from jepa_mpc.world_model.training.diagnostics import encode_rows, report_embedding, usual_disagreement
from jepa_mpc.world_model.training.guard import CollapseGuard
from jepa_mpc.world_model.training.loop import Phase, StepLoss

# Pictures at a time, to take BatchNorm's statistics from; a few more, where processes need equal shares.
CALIBRATION_BATCH = 256
Watch = Callable[[JEPA, Dataset, int], None]  # the step is the third


class _Encoding(nn.Module):
    """An encoder and a projector of a model."""

    def __init__(self, model: JEPA, encoder: nn.Module, projector: nn.Module):
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.forward = partial(model.encode, encoder=encoder, projector=projector)


def recalibrate_batchnorm(
    model: JEPA,
    data: Dataset,
    augmentation: AugmentConfig | None = None,
    dropout: ModalityDropout = NO_DROPOUT,
    num_batches: int = 50,
    parts: tuple[nn.Module, nn.Module] | None = None,
) -> None:
    """Replaces the encoder's running statistics with plain averages over training pictures under the final weights; or
    those of another encoder and projector.

    Running averages trail the weights, which inflates evaluation error (arXiv 2608.10145). The pictures are varied as
    those of training are, so that the weights meet what they were trained with.
    """
    rng, device = np.random.default_rng(0), model.action_mean.device
    generator = torch.Generator(device).manual_seed(0)

    def observations() -> Iterator[tuple[Observation]]:
        for _ in range(num_batches):
            rows = data.sample_rows(CALIBRATION_BATCH, 1, rng)
            rows = np.resize(rows, (-(-len(rows) // num_ranks()) * num_ranks(), 1))
            seen = data.observations(share(rows)).to(device)
            yield (_varied(model, seen, augmentation, dropout, generator),)

    update_bn(observations(), _Encoding(model, *(parts or (model.encoder, model.projector))))
    model.eval()


def _varied(
    model: JEPA,
    seen: Observation,
    augmentation: AugmentConfig | None,
    dropout: ModalityDropout,
    generator: torch.Generator,
) -> Observation:
    """Returns windows (B, T, ...) as the encoder is to meet them in training."""
    pixels = augment(seen.pixels, augmentation, generator)
    felt = seen.proprio if model.config.proprio_dim else None
    num_views = model.config.encoder.num_views
    return drop_modalities(Observation(pixels, felt), num_views, dropout, generator)


def _autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """Returns what encodes in half precision where it is asked for, or pays."""
    half = config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


def _num_context(config: TrainConfig, num_frames: int, rng: np.random.Generator) -> int:
    """Draws how many real frames of a window an open-loop rollout starts from."""
    return int(rng.integers(1, min(config.max_context, num_frames - 1) + 1))


def joint_phase(
    config: TrainConfig,
    model: JEPA,
    regularizer: Regularizer,
    guard: CollapseGuard,
    data: Dataset,
    watch: Watch | None = None,
) -> Phase:
    """Trains encoder and predictor together, held from collapse by the regulariser; `watch` sees every report."""
    device = model.action_mean.device
    autocast = _autocast(config, device)

    def load(rng: np.random.Generator) -> tuple[int, Observation, Tensor, int]:
        noise_seed = int(rng.integers(2**62))
        rows = share(data.sample_rows(config.batch_size, config.num_frames, rng))
        return noise_seed, *data.windows(rows), _num_context(config, config.num_frames, rng)

    def step_loss(step: int, batch: tuple[int, Observation, Tensor, int]) -> tuple[Tensor, dict[str, Tensor]]:
        noise_seed, seen, actions, num_context = batch
        seen, actions = seen.to(device), actions.to(device)
        generator = torch.Generator(device).manual_seed(noise_seed)
        seen = _varied(model, seen, config.joint_augmentation, config.dropout, generator)
        with autocast:
            latents = regularizer.embed(model, seen, generator)
            scores = model.score_predictions(latents.z, latents.target, actions, num_context)
        compared = latents, scores.predicted, model.normalise_actions(actions)
        if regularizer.compares_samples:
            compared = Latents(*map(gather, latents)), gather(compared[1]), gather(compared[2])
        penalties = regularizer(*compared, generator)
        if step % config.log_every == 0:
            guard.see(step, gather(latents.mean.detach()).flatten(0, 1))
        loss = scores.one_step
        if config.rollout_weight:  # otherwise nothing need flow back through the rollout
            loss = loss + config.rollout_weight * scores.rollout
        for name, penalty in penalties.items():
            loss = loss + regularizer.weight(name) * penalty
        return loss, {"prediction": scores.one_step, "rollout": scores.rollout, **penalties}

    def begin() -> StepLoss:
        model.train()
        regularizer.train()
        return step_loss

    def report(step: int) -> dict[str, float]:
        measured = report_embedding(model, data, num_frames=config.report_frames)
        if watch is not None:
            watch(model, data, step)
        scalars = {f"embedding/{name}": getattr(measured, name) for name in ("std", "effective_rank", "sigreg")}
        return scalars | {f"probe_r2/{name}": value for name, value in measured.probe_r2.items()}

    trained = nn.ModuleList([model.encoder, model.projector, model.predictor, regularizer])
    follow = partial(regularizer.follow, model)

    def finish() -> None:
        recalibrate_batchnorm(model, data, config.joint_augmentation, config.dropout)
        if config.distil_steps:  # from an encoder that does not change any more
            model.begin_robust()

    return Phase("joint", config.num_steps, config.learning_rate, trained, load, begin, report, follow, finish)


def distil_phase(config: TrainConfig, model: JEPA, data: Dataset) -> Phase:
    """Teaches a second encoder to embed varied observations as the first embeds plain ones.

    Notable: varied from the first step on, pictures leave less room for what is hard to see, and Push-T's plans suffer
    (docs/log/robustness.md). Once it is seen, to see it through other light and place too is a regression
    (self-distillation: Hinton et al., arXiv 1503.02531, here of embeddings).
    """
    device, num_rows = model.action_mean.device, config.batch_size * config.num_frames
    autocast, student = _autocast(config, device), model.robust
    assert student is not None
    parts = student["encoder"], student["projector"]

    def load(rng: np.random.Generator) -> tuple[int, Observation, Tensor]:
        noise_seed = int(rng.integers(2**62))
        rows = share(data.sample_rows(num_rows, 1, rng))
        return noise_seed, data.observations(rows), torch.from_numpy(rows)

    def begin() -> StepLoss:
        every_z = encode_all(model, data)
        student.train()

        def step_loss(step: int, batch: tuple[int, Observation, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            noise_seed, seen, rows = batch
            generator = torch.Generator(device).manual_seed(noise_seed)
            seen = _varied(model, seen.to(device), config.applied_augmentation, config.dropout, generator)
            with autocast:
                loss = F.mse_loss(model.encode(seen, *parts), every_z[rows])
            return loss, {"distillation": loss}

        return step_loss

    def finish() -> None:
        recalibrate_batchnorm(model, data, config.applied_augmentation, config.dropout, parts=parts)
        model.usual_disagreement.fill_(usual_disagreement(model, data))

    return Phase("distil", config.distil_steps, config.learning_rate, student, load, begin, finish=finish)


def encode_all(model: JEPA, data: Dataset, dropout: float | None = None) -> Tensor:
    """Encodes all observations (N, D) by the final encoder, on its device; as goals, in which nothing is felt, if it is
    said how often a camera is missing in one.
    """
    z = model.action_mean.new_zeros(len(data.action), model.config.embed_dim)
    mine = np.arange(rank(), len(z), num_ranks())
    z[mine] = encode_rows(model, data, mine, dropout=dropout).to(z.device)
    return sum_over_ranks(z)


def predictor_phase(config: TrainConfig, model: JEPA, data: Dataset, frozen: Callable[[], Tensor]) -> Phase:
    """Trains the predictor alone: without pictures to encode, a step costs half, and precision is won by steps."""

    def load(rng: np.random.Generator) -> tuple[Tensor, int]:
        num_frames = config.predictor_num_frames
        rows = share(data.sample_rows(config.predictor_batch_size, num_frames, rng))
        return torch.from_numpy(rows), _num_context(config, num_frames, rng)

    def begin() -> StepLoss:
        every_z = frozen()
        every_action = torch.from_numpy(data.action).to(every_z.device)
        model.eval().predictor.train()

        def step_loss(step: int, batch: tuple[Tensor, int]) -> tuple[Tensor, dict[str, Tensor]]:
            rows, num_context = batch
            z, actions = every_z[rows], every_action[rows[:, :-1]]
            _, one_step, rollout = model.score_predictions(z, z, actions, num_context)
            return one_step + config.rollout_weight * rollout, {"prediction": one_step, "rollout": rollout}

        return step_loss

    steps, learning_rate = config.predictor_steps, config.predictor_learning_rate
    return Phase("predictor", steps, learning_rate, model.predictor, load, begin, use_muon=True)


def reachability_phase(
    config: TrainConfig,
    model: JEPA,
    target: Reachability,
    data: Dataset,
    frozen: Callable[[], Tensor],
    frozen_goals: Callable[[], Tensor] | None = None,
) -> Phase:
    """Trains the reachability metric on frozen embeddings, whitened; `target` is its slow copy. Goals may have
    embeddings of their own.
    """
    metric = model.reachability
    assert metric is not None

    def load(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        rows = data.sample_rows(config.reachability_batch_size, 3, rng)
        goal = data.sample_future(rows[:, 1], rng)
        mine = share(rows)
        return *mine.T, np.roll(goal, -rank() * len(mine))  # all goals, this rank's first

    whitening = cache(lambda: Whitening.fit(frozen()))

    def begin() -> StepLoss:
        z = whitening()(frozen())
        z_goal = z if frozen_goals is None else whitening()(frozen_goals())

        def step_loss(step: int, batch: tuple[np.ndarray, ...]) -> tuple[Tensor, dict[str, Tensor]]:
            before, now, after, goal = batch
            is_goal = torch.from_numpy(now[:, None] == goal).to(z.device)
            embedded = (z[before], z[now], z[after], z_goal[goal])
            loss = reachability_loss(metric, target, *embedded, is_goal, config.discount, config.expectile)
            return loss, {"reachability": loss}

        return step_loss

    @torch.no_grad()
    def follow() -> None:
        for slow, fast in zip(target.parameters(), metric.parameters(), strict=True):
            slow.lerp_(fast, config.target_rate)

    def finish() -> None:
        metric.fold(whitening())

    steps, learning_rate = config.reachability_steps, config.reachability_learning_rate
    return Phase("reachability", steps, learning_rate, metric, load, begin, after_step=follow, finish=finish)
