"""The settings of a training, and the presets to start from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from jepa_mpc.registry import Registry
from jepa_mpc.settings import Count, Fraction, Natural, NonNegative, Positive, Range, Seed, Share
from jepa_mpc.world_model.data.augment import AugmentConfig
from jepa_mpc.world_model.data.dataset import InMemory
from jepa_mpc.world_model.model.encoder import EncoderConfig, Size
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.model.reachability import ReachabilityConfig
from jepa_mpc.world_model.observation import ModalityDropout
from jepa_mpc.world_model.regularizers.base import RegularizerConfig
from jepa_mpc.world_model.regularizers.sigreg import SIGRegConfig

Several = Annotated[int, Range(2, 10**9)]


@dataclass(frozen=True)
class TrainConfig:
    """Train a world model from a data set."""

    output: Path
    """Folder for the checkpoint, the logs and the state to resume from."""
    task: str = "reacher"
    """Task that the data set must be of."""
    data: tuple[Path, ...] = ()
    """HDF5 files, which make one data set; `data/TASK.h5` under the home unless given."""
    shares: tuple[Positive, ...] = ()
    """How often windows are drawn from each file of --data, such as 2 1; unless given, every window is as likely."""
    init: str | None = None
    """Checkpoint, or the name of a bundled one, whose encoder and predictor go on learning; the metric begins anew."""
    in_memory: InMemory = "auto"
    """Whether pictures are read once, or as they are needed; auto: once if they take less than half of the memory."""
    frameskip: Count | None = None
    """Rows of the data set in a block; unless given, 1, and 5 for data sets of le-wm, which have a row a step."""
    num_workers: Natural = 2
    """Threads that draw windows ahead where pictures stay in their files."""
    preset: str = "default"
    """Settings to start from: default, debug, paper or one of your own; options given beside it win."""
    seed: Seed = 0
    """Decides the initial weights, the order of the windows and the regulariser's random draws."""
    device: str = "auto"
    """cpu, cuda, mps, or auto: the first of cuda, mps and cpu that is there."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 multiplies where the hardware does so natively (auto)."""
    compile: bool = False
    """Compile the encoder by PyTorch's own compiler; for long trainings on GPUs (docs/log/speed.md)."""
    num_steps: Natural = 2600
    """Steps of encoder and predictor together; 0 goes on from --init without."""
    distil_steps: Natural = 0
    """Steps of a second encoder, which learns to embed varied pictures as the first embeds plain ones, and serves where
    pictures are others than in training; in this training only it sees them varied."""
    predictor_steps: Natural = 3000
    """Further steps of the predictor alone, on frozen embeddings."""
    reachability_steps: Natural = 8000
    """Steps of the reachability metric, on frozen embeddings; 0 leaves it out."""
    batch_size: Several = 64
    """Windows in a step."""
    num_frames: Several = 8
    """Frames in a window. Few frames of many windows hold more different scenes than the reverse."""
    learning_rate: Positive = 1e-3
    predictor_batch_size: Count = 64
    """Windows in a step of the predictor alone."""
    predictor_num_frames: Several = 8
    """Frames in such a window."""
    predictor_learning_rate: Positive = 2e-3
    weight_decay: NonNegative = 1e-3
    warmup_steps: Natural = 100
    """Linear warm-up, before the cosine decay to zero."""
    grad_clip: Positive = 1.0
    rollout_weight: NonNegative = 1.0
    """Weight of the open-loop rollout error; 0 leaves LeWorldModel's two-term loss."""
    max_context: Count = 3
    """An open-loop rollout starts from 1 to this many real frames, as far as the window allows."""
    augment: bool = True
    """Vary the pictures, so that one that is a little different still shows the same scene."""
    augmentation: AugmentConfig = AugmentConfig()
    proprio: bool = False
    """See what the robot feels of itself beside its pictures, where the data tell it. Figures then say so."""
    modality_dropout: Share = 0.2
    """How often proprioception, and each of several cameras but one, is hidden, so that goals may lack it."""
    regularizer: RegularizerConfig = SIGRegConfig()
    """What keeps the embeddings from collapsing: --regularizer NAME, and the options of that one."""
    reachability_batch_size: Several = 512
    """N transitions, and so N² pairs, in a step of the reachability metric."""
    reachability_learning_rate: Positive = 1e-3
    discount: Fraction = 0.97
    """Per block; the reachability metric saturates at 1 / (1 − discount)."""
    expectile: Fraction = 0.9
    """Of the reachability metric: the nearer to 1, the more the shortest way seen counts."""
    target_rate: Fraction = 0.02
    """How fast the metric's bootstrapping copy follows it, per step."""
    embed_dim: Size = 64
    projector_hidden: Size = 512
    projector_activation: Literal["relu", "gelu"] = "relu"
    encoder: EncoderConfig = EncoderConfig()
    predictor: PredictorConfig = PredictorConfig()
    reachability: ReachabilityConfig = ReachabilityConfig()
    log_every: Count = 20
    """Steps between loss records."""
    report_every: Count = 250
    """Steps between embedding reports on held-out episodes."""
    report_frames: Several = 1000
    """Held-out pictures in such a report, and as many to fit its probes on."""
    save_every: Count = 250
    """Steps between states to resume from."""

    @property
    def applied_augmentation(self) -> AugmentConfig | None:
        """Returns how pictures are varied; None if they are not."""
        return self.augmentation if self.augment else None

    @property
    def dropout(self) -> ModalityDropout:
        """Returns how cameras and proprioception are hidden."""
        return ModalityDropout(self.modality_dropout, self.augmentation.change)

    @property
    def joint_augmentation(self) -> AugmentConfig | None:
        """Returns how they are varied for the encoder that the predictor learns with."""
        return None if self.distil_steps else self.applied_augmentation


TRAIN_PRESETS: Registry[dict[str, Any]] = Registry("training preset")
TRAIN_PRESETS.register("default", {})

# LeWorldModel as its authors train and release it (arXiv 2603.19312): two losses, no metric; 18 M parameters. The
# steps are about ten epochs of their Push-T data.
_LEWM = {"width": 192, "depth": 6, "num_heads": 16, "head_dim": 64, "mlp_width": 2048, "projector_hidden": 2048}
_PAPER: dict[str, Any] = (
    {
        "num_steps": 180_000,
        "predictor_steps": 0,
        "reachability_steps": 0,
        "batch_size": 128,
        "num_frames": 4,
    }
    | {"learning_rate": 5e-5, "warmup_steps": 1_800, "rollout_weight": 0.0, "report_every": 1_000, "save_every": 500}
    | {"augment": False}
    | {"embed_dim": 192, "projector_hidden": 2048, "projector_activation": "gelu"}
    | {"encoder": EncoderConfig("vit", image_size=224, patch_size=14, width=192, depth=12, num_heads=3)}
    | {"predictor": PredictorConfig("lewm", dropout=0.1, max_len=1_000, **_LEWM)}
    | {"regularizer": SIGRegConfig(weight=0.09, num_proj=1024)}
)
TRAIN_PRESETS.register("paper", _PAPER)

# Seconds, for tests: every part runs, nothing is learned well.
_DEBUG: dict[str, Any] = (
    {
        "num_steps": 30,
        "predictor_steps": 20,
        "reachability_steps": 20,
        "report_every": 10,
        "save_every": 10,
    }
    | {
        "augment": False,
        "batch_size": 8,
        "reachability_batch_size": 16,
        "warmup_steps": 5,
        "embed_dim": 16,
        "projector_hidden": 32,
    }
    | {"encoder": EncoderConfig(channels=(4, 8, 8, 8)), "predictor": PredictorConfig(width=16, depth=1, num_heads=2)}
    | {"reachability": ReachabilityConfig(hidden=16, metric_dim=8), "regularizer": SIGRegConfig(num_proj=64)}
)
TRAIN_PRESETS.register("debug", _DEBUG)
