"""The settings of a training, and the presets to start from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jepa_mpc.world_model.data.dataset import InMemory
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.model.reachability import ReachabilityConfig
from jepa_mpc.world_model.regularizers.base import (
    EMAConfig,
    KLConfig,
    MoCoConfig,
    PLDMConfig,
    RegularizerName,
    SIGRegConfig,
    SimCLRConfig,
    VICRegConfig,
)


@dataclass(frozen=True)
class TrainConfig:
    """Train a world model from a data set."""

    output: Path
    """Folder for the checkpoint, the logs and the state to resume from."""
    task: str = "reacher"
    """Task that the data set must be of."""
    data: tuple[Path, ...] = ()
    """HDF5 files, which make one data set; `data/<task>.h5` unless given."""
    in_memory: InMemory = "auto"
    """Whether pictures are read once, or as they are needed; auto: once if they take less than half of the memory."""
    frameskip: int | None = None
    """Rows of the data set in a block; unless given, 1, and 5 for data sets of le-wm, which have a row a step."""
    num_workers: int = 2
    """Threads that draw windows ahead where pictures stay in their files."""
    preset: Literal["default", "debug", "paper"] = "default"
    """Settings to start from; options given beside it win."""
    seed: int = 0
    """Decides the initial weights, the order of the windows and the regulariser's random draws."""
    device: str = "auto"
    """cpu, cuda, mps, or auto: the first of cuda, mps and cpu that is there."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 multiplies where the hardware does so natively (auto)."""
    compile: bool = False
    """Compile the encoder by PyTorch's own compiler; for long trainings on GPUs (docs/scale.md)."""
    num_steps: int = 2000
    """Steps of encoder and predictor together."""
    predictor_steps: int = 3000
    """Further steps of the predictor alone, on frozen embeddings."""
    reachability_steps: int = 4000
    """Steps of the reachability metric, on frozen embeddings; 0 leaves it out."""
    batch_size: int = 64
    """Windows in a step."""
    num_frames: int = 8
    """Frames in a window. Few frames of many windows hold more different scenes than the reverse."""
    learning_rate: float = 1e-3
    predictor_batch_size: int = 64
    """Windows in a step of the predictor alone."""
    predictor_num_frames: int = 8
    """Frames in such a window."""
    predictor_learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 100
    """Linear warm-up, before the cosine decay to zero."""
    grad_clip: float = 1.0
    rollout_weight: float = 1.0
    """Weight of the open-loop rollout error; 0 leaves LeWorldModel's two-term loss."""
    max_context: int = 3
    """An open-loop rollout starts from 1 to this many real frames, as far as the window allows."""
    regularizer: RegularizerName = "sigreg"
    """What keeps the embeddings from collapsing; each has options of its own below."""
    sigreg: SIGRegConfig = field(default_factory=SIGRegConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    vicreg: VICRegConfig = field(default_factory=VICRegConfig)
    simclr: SimCLRConfig = field(default_factory=SimCLRConfig)
    moco: MoCoConfig = field(default_factory=MoCoConfig)
    kl: KLConfig = field(default_factory=KLConfig)
    pldm: PLDMConfig = field(default_factory=PLDMConfig)
    reachability_batch_size: int = 512
    """N transitions, and so N² pairs, in a step of the reachability metric."""
    reachability_learning_rate: float = 1e-3
    discount: float = 0.97
    """Per block; the reachability metric saturates at 1 / (1 − discount)."""
    expectile: float = 0.9
    """Of the reachability metric: the nearer to 1, the more the shortest way seen counts."""
    target_rate: float = 0.02
    """How fast the metric's bootstrapping copy follows it, per step."""
    embed_dim: int = 64
    projector_hidden: int = 512
    projector_activation: Literal["relu", "gelu"] = "relu"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    reachability: ReachabilityConfig = field(default_factory=ReachabilityConfig)
    log_every: int = 20
    """Steps between loss records."""
    report_every: int = 250
    """Steps between embedding reports on held-out episodes."""
    report_frames: int = 1000
    """Held-out pictures in such a report, and as many to fit its probes on."""
    save_every: int = 250
    """Steps between states to resume from."""


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # LeWorldModel as its authors train and release it (arXiv 2603.19312): two losses, no metric; 18 M parameters. The
    # steps are about ten epochs of their Push-T data.
    "paper": {
        "num_steps": 180_000,
        "predictor_steps": 0,
        "reachability_steps": 0,
        "batch_size": 128,
        "num_frames": 4,
        "learning_rate": 5e-5,
        "warmup_steps": 1_800,
        "rollout_weight": 0.0,
        "sigreg": SIGRegConfig(weight=0.09, num_proj=1024),
        "embed_dim": 192,
        "projector_hidden": 2048,
        "projector_activation": "gelu",
        "encoder": EncoderConfig(kind="vit", image_size=224, patch_size=14, width=192, depth=12, num_heads=3),
        "predictor": PredictorConfig(
            kind="lewm",
            width=192,
            depth=6,
            num_heads=16,
            head_dim=64,
            mlp_width=2048,
            projector_hidden=2048,
            dropout=0.1,
            max_len=1_000,
        ),
        "report_every": 1_000,
        "save_every": 500,
    },
    # Seconds, for tests: every part runs, nothing is learned well.
    "debug": {
        "num_steps": 30,
        "predictor_steps": 20,
        "reachability_steps": 20,
        "reachability_batch_size": 16,
        "reachability": ReachabilityConfig(hidden=16, metric_dim=8),
        "batch_size": 8,
        "warmup_steps": 5,
        "sigreg": SIGRegConfig(num_proj=64),
        "moco": MoCoConfig(queue_size=128),
        "embed_dim": 16,
        "projector_hidden": 32,
        "encoder": EncoderConfig(channels=(4, 8, 8, 8)),
        "predictor": PredictorConfig(width=16, depth=1, num_heads=2),
        "report_every": 10,
        "save_every": 10,
    },
}
