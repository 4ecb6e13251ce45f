"""An agent whose decision is a graph in a file: it needs ONNX Runtime and NumPy, and nothing else.

`jepa-mpc export` writes the file. Its graph answers one picture of one episode; what it remembers goes in and comes out
beside, all zeros at first, and an episode's first run is shown the goal. Noise goes in too: standard normal numbers,
which the graph colours as its search does. So the file says all that a runner in another language needs to know:

    pictures (1, H, W, 3) uint8, seen (1,) bool, noise (1, S, H, A), and what is remembered, X; where the model knows
    it, proprio (1, P) too, NaN where it is not known and of goals
    → block (1, block, A), lost (1,), surprise (1,), and what to give as X next, next_X

Where a picture did not come, `seen` is false, and any other stands in its place.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jepa_mpc.agent.surface import NOT_SEEN, checked_goals, checked_now, checked_proprio, warn_of_lost
from jepa_mpc.errors import UserError, reason
from jepa_mpc.places import expanded
from jepa_mpc.settings import Natural, convert, read
from jepa_mpc.world_model.interface import Interface

FORMAT_VERSION = 1
INFO = "jepa_mpc"  # of the file's metadata, the entry that is ours
PICTURES, PROPRIO, SEEN, NOISE, NEXT = "pictures", "proprio", "seen", "noise", "next_"
_TOLD = ("block", "lost", "surprise")
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
_AGAIN = "export it again with `jepa-mpc export`"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ExportInfo:
    """What stands in the file beside the graph."""

    task: str
    interface: Interface
    planning: dict[str, Any]  # how it plans
    checkpoint_commit: str
    commit: str  # of what has exported it
    format_version: int = FORMAT_VERSION


class ExportedAgent:
    """Plans B episodes, one after another, as the `PlanningAgent` did that was exported. What it returns is the
    caller's own, finite and within the bounds.

    With the same noise its actions are the same up to rounding. Its own noise is NumPy's, of a generator an episode, so
    a seed stands for another search than with PyTorch, of the same distribution. Load one by `ExportedAgent.load`.
    """

    def __init__(self, session: Any, info: ExportInfo):
        self._session, self.info = session, info
        self.action_block, self.bounds = info.interface.action_block, info.interface.bounds()
        self.step_seconds = info.interface.step_seconds
        self.blocks_ahead = convert(Natural, info.planning.get("blocks_ahead", 0), ("planning", "blocks_ahead"))
        self._inputs = {each.name: (each.shape, _DTYPES[each.type]) for each in session.get_inputs()}
        self._outputs = [each.name for each in session.get_outputs()]
        self._memory: list[Arrays] = []  # of each episode, what the graph is given next
        self._surprise: NDArray[np.float32] | None = None

    @classmethod
    def load(cls, file: Path | str, num_threads: int = 1) -> "ExportedAgent":
        """Returns the agent of a file, which decides by so many threads.

        Raises `UserError` if the file is missing, damaged, foreign or of another format version, or ONNX Runtime is
        missing.
        """
        if not (isinstance(num_threads, int) and num_threads >= 1):
            raise UserError(f"num_threads must be at least 1, not {num_threads!r}")
        if not (path := expanded(file)).is_file():
            raise UserError(f"no exported agent at {path}; write one with `jepa-mpc export`")
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("an exported agent runs by ONNX Runtime; `pip install onnxruntime` adds it") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = num_threads, 4  # 4: what fails, it also raises
        try:
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of many kinds, one for each code of its own
            told = f"{path} is no exported agent that ONNX Runtime {onnxruntime.__version__} can run ({reason(error)})"
            raise UserError(f"{told}; upgrade that, or {_AGAIN}") from error
        return cls(session, _read_info(session, path))

    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        """Begins B episodes: goal pictures (B, H, W, 3) uint8, and a seed for each episode's noise."""
        goals, whole = checked_goals(goals, seeds, self.picture_size)
        if goals.shape[1] > 1:
            raise UserError(f"an exported agent goes to one goal picture an episode, not {goals.shape[1]}; choose one")
        blank = {name: np.zeros(shape, dtype) for name, (shape, dtype) in self._inputs.items()}
        blank[PROPRIO] = np.full((1, self.num_proprio), np.nan, np.float32)
        states = [_remembered(self._run({**blank, PICTURES: goal})) for goal in goals]
        # Only now, so that an agent whose reset has failed is where it was.
        self._memory, self._surprise = states, None
        self._rngs = [np.random.default_rng(seed % 2**64) for seed in whole]

    def act(
        self,
        pictures: NDArray[np.uint8] | None,
        proprio: ArrayLike | None = None,
        noise: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Returns the next block (B, block, A) for the pictures (B, H, W, 3) uint8 of now, as `PlanningAgent.act` does;
        None: no pictures came, and what the model had foreseen takes their place.

        Noise may be given, standard normal numbers of `noise_shape` for each episode, else it is drawn.
        """
        size, B = self.picture_size, len(self._memory)
        pictures = checked_now(pictures, B, self._surprise is not None, size)
        felt = checked_proprio(proprio, pictures, self.num_proprio)
        drawn = self._drawn() if noise is None else self._checked_noise(noise)
        is_seen = np.array([pictures is not None])
        shown = np.zeros((B, *size, 3), np.uint8) if pictures is None else pictures
        felt = np.full((B, self.num_proprio), np.nan, np.float32) if felt is None else felt
        answers = [
            self._run({**state, PICTURES: picture[None], PROPRIO: now[None], SEEN: is_seen, NOISE: white[None]})
            for state, picture, now, white in zip(self._memory, shown, felt, drawn, strict=True)
        ]
        block, lost, surprise = (np.concatenate([each[name] for each in answers]) for name in _TOLD)
        warn_of_lost(lost)
        # Only now, so that an agent whose decision has failed is where it was.
        self._memory, self._surprise = [_remembered(answer) for answer in answers], surprise
        return block

    def surprise(self) -> NDArray[np.float32]:
        """Returns how unforeseen the last pictures were (B,), as `PlanningAgent.surprise` does."""
        if self._surprise is None:
            raise UserError(NOT_SEEN)
        return self._surprise.copy()

    @property
    def picture_size(self) -> tuple[int, int]:
        """Returns height and width of what it sees, all cameras together."""
        return self.info.interface.picture_size

    @property
    def num_proprio(self) -> int:
        """Counts the numbers that a robot feels of itself, where the model knows of it."""
        return len(self.info.interface.proprio_names)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Returns the shape (S, H, A) of an episode's noise in a decision, of all rounds one after another; (0,) where
        the agent has no search.
        """
        return tuple(self._inputs[NOISE][0][1:]) if NOISE in self._inputs else (0,)

    def _drawn(self) -> list[NDArray[np.float32]]:
        return [rng.standard_normal(self.noise_shape, np.float32) for rng in self._rngs]

    def _checked_noise(self, noise: ArrayLike) -> NDArray[np.float32]:
        array, shape = np.asarray(noise), (len(self._memory), *self.noise_shape)
        if array.dtype.kind != "f" or array.shape != shape or not np.isfinite(array).all():
            raise UserError(f"noise must be finite floats {shape}, not {array.dtype} {array.shape}")
        return array.astype(np.float32)

    def _run(self, given: Arrays) -> Arrays:
        taken = {name: given[name] for name in self._inputs}
        return dict(zip(self._outputs, self._session.run(None, taken), strict=True))


def _remembered(answers: Arrays) -> Arrays:
    """Returns what to give next."""
    return {name.removeprefix(NEXT): value for name, value in answers.items() if name.startswith(NEXT)}


def _read_info(session: Any, path: Path) -> ExportInfo:
    """Returns what stands beside the graph. Raises `UserError` if it is missing, or not of this graph."""
    try:
        stored = json.loads(session.get_modelmeta().custom_metadata_map.get(INFO, "null"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}); {_AGAIN}") from error
    if not isinstance(stored, dict) or (version := stored.get("format_version")) is None:
        raise UserError(f"{path} is no exported agent; {_AGAIN}")
    if version != FORMAT_VERSION:
        raise UserError(f"{path} has format {version}, this version reads {FORMAT_VERSION}; {_AGAIN}")
    info = read(ExportInfo, stored, f"{path} is damaged")
    inputs, outputs = ({each.name: each for each in ends} for ends in (session.get_inputs(), session.get_outputs()))
    told, remembered = info.interface, inputs.keys() - {PICTURES, PROPRIO, SEEN, NOISE}
    if not all(each.type in _DTYPES and all(isinstance(size, int) for size in each.shape) for each in inputs.values()):
        fault = "the graph's inputs are of other kinds than an agent's"
    elif not {PICTURES, SEEN} <= inputs.keys() or outputs.keys() != {*_TOLD, *(NEXT + name for name in remembered)}:
        fault = "the graph's inputs and outputs are not an agent's"
    elif outputs["block"].shape != [1, told.action_block, len(told.action_low)]:
        fault = f"the graph's blocks are {outputs['block'].shape}"
    else:
        size, num_proprio = inputs[PICTURES].shape[1:3], inputs[PROPRIO].shape[1] if PROPRIO in inputs else 0
        fault = told.fault("the graph", tuple(size), num_proprio)
    if fault:
        raise UserError(f"{path} is damaged ({fault}); {_AGAIN}")
    return info
