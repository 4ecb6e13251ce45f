"""A checkpoint's card: the gist of a training, for people, and the command that makes it again."""

import shlex
from pathlib import Path
from typing import Any

from jepa_mpc.settings import to_json
from jepa_mpc.world_model.checkpoint import CheckpointInfo, Earlier
from jepa_mpc.world_model.data.dataset import RECORDED
from jepa_mpc.world_model.regularizers import REGULARIZERS
from jepa_mpc.world_model.training.config import TRAIN_PRESETS, TrainConfig

_PHASES = {
    "num_": "of encoder and predictor",
    "predictor_": "of the predictor alone",
    "reachability_": "of the reachability metric",
    "distil_": "of the second encoder",
}


def card(info: CheckpointInfo) -> str:
    """Returns the card of a trained checkpoint, as Markdown."""
    data, embedding = info.data, info.metrics["embedding"]
    runs = [*info.earlier, Earlier(info.training, info.commit)]
    trainings, commits = [each.training for each in runs], ", then ".join(dict.fromkeys(each.commit for each in runs))
    steps = {what: sum(each.get(f"{phase}steps", 0) for each in trainings) for phase, what in _PHASES.items()}
    phases = ", ".join(f"{num} {what}" for what, num in steps.items() if num)
    joint = next((each for each in reversed(trainings) if each.get("num_steps")), info.training)
    probes = ", ".join(f"{name} {r2:.3f}" for name, r2 in embedding["probe_r2"].items())
    facts = {
        **({"declared": info.declared} if info.declared else {}),
        "data": f"{data['num_episodes']} episodes under the policy {data['data_policy']!r}, seed {data['seed']}, "
        f"{info.simulator}; blocks of {data['action_block']} steps",
        "learned": f"{info.learning_seconds:.0f} s; steps: {phases}; commit {commits}",
        "regulariser": joint["regularizer"]["name"],
        "embedding": f"std {embedding['std']:.3f}, effective rank {embedding['effective_rank']:.1f} of "
        f"{info.model.embed_dim}; linear probes' R²: {probes}",
        "collapse": info.collapsed or "none noticed",
    }
    for phase, terms in info.metrics["loss"].items():
        facts[f"loss, {phase}"] = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
    task = shlex.quote(info.task)
    table = [f"# {info.task}", "", "| | |", "|---|---|", *(f"| {name} | {said} |" for name, said in facts.items())]
    collect = f"jepa-mpc collect --task {task} --policy {data['data_policy']}{collect_options(data)}"
    folders = [*(f"FOLDER-{number}" for number in range(1, len(trainings))), "FOLDER"]
    begun = [trainings[0].get("init"), *folders[:-1]]
    train = [
        f"jepa-mpc train --task {task} --output {folder}{train_options({**training, 'init': init})}"
        for folder, init, training in zip(folders, begun, trainings, strict=True)
    ]
    if data["data_policy"] == RECORDED:
        collect = f"jepa-mpc convert data LOG --task {task} --output DATA.h5"
        train = [f"{each} --data DATA.h5" for each in train]
    elif " " in data["data_policy"]:  # of several files, or recorded by `jepa-mpc run`
        collect = f"# {data['num_episodes']} episodes by {data['data_policy']}"
        train = [f"{each} --data FILES" for each in train]
    return "\n".join([*table, "", "Made again by", "", "```bash", collect, *train, "```", ""])


def collect_options(data: dict[str, Any]) -> str:
    """Returns the command-line options that collect such data again, but for the policy."""
    looks = ",".join(data.get("randomise", ())) or "none"  # older ones do not say
    return f" --num-episodes {data['num_episodes']} --seed {data['seed']} --randomise {looks}"


def train_options(training: dict[str, Any]) -> str:
    """Returns the command-line options by which training settings differ from the preset's, or the defaults."""
    known = training.get("preset") in TRAIN_PRESETS  # a stranger's may not be there any more
    defaults = to_json(TrainConfig(output=Path(), **(TRAIN_PRESETS[training["preset"]] if known else {})))
    remedy, own = training["regularizer"]["name"], defaults["regularizer"]["name"]
    defaults["regularizer"] = {**to_json(REGULARIZERS.loaded(remedy)()), "name": remedy}
    options = [f" --regularizer {remedy}"] if remedy != own else []
    for name, value in _flat({"augment": False, **training}).items():  # which older ones do not say
        if name not in ("task", "device", *(() if known else ("preset",))) and value != _flat(defaults).get(name):
            option, said = name.replace("_", "-"), value if isinstance(value, list) else [value]
            if isinstance(value, bool):
                parents, dot, last = option.rpartition(".")
                option, said = option if value else f"{parents}{dot}no-{last}", []
            options.append(" ".join([f" --{option}", *map(shlex.quote, map(str, said))]))
    return "".join(options)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
