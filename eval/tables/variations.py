"""Success when pictures are a little different from training's: `jepa-mpc evaluate --variation all`.

A row is a variation, a strength and a place. Table and figure show all rows that are there; what is there already is
not measured again, so an interrupted evaluation goes on where it was.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("evaluate")

import contextlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm

from jepa_mpc import envs, files, places
from jepa_mpc.agent.agent_config import planning_of
from jepa_mpc.agent.planning_agent import PlanningAgent, load_proposer
from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report
from jepa_mpc.eval.book import Book, CheckpointTableConfig, digests
from jepa_mpc.eval.metrics import Rate, SuccessSummary, noticed, summarise
from jepa_mpc.eval.protocols import PROTOCOLS, GoalProtocol
from jepa_mpc.eval.results import Made
from jepa_mpc.eval.trial import Camera, Trial
from jepa_mpc.eval.variations import VARIATIONS, WHERES, CalibratedCamera, VariedCamera, Where
from jepa_mpc.provenance import provenance
from jepa_mpc.settings import Count, Natural, checked
from jepa_mpc.world_model.checkpoint import load_checkpoint, load_picture_stats

CLEAN = "clean"
ALL: Literal["all"] = "all"


@dataclass(frozen=True)
class VariationsConfig(CheckpointTableConfig):
    """Measure success where pictures differ from those of training."""

    variation: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME@STRENGTH, such as shift@2, or NAME for its three strengths, or all, which is what is measured unless given;
    NAME may be `module:name` of one of your own. May be given several times."""
    protocol: GoalProtocol = "far"
    """What counts, as of `jepa-mpc plan`."""
    where: Literal[Where, "all"] = "camera"
    """Which pictures differ: the camera's, or the goal's too, or the camera's more and more within an episode."""
    calibrate: Natural = 0
    """Pictures of each episode's camera that the agent is calibrated by before it; 0: none. They show the starts of
    other episodes, so --num-episodes must be more."""
    budget: Count | None = None
    """Environment steps; the protocol's unless given."""


@dataclass(frozen=True)
class VariationRow(Made, SuccessSummary):
    """What the agent came to under a variation."""

    noticed: Rate | None  # episodes of which most pictures surprised, by above 1; None where the checkpoint knows not


@dataclass(frozen=True)
class Asked:
    """One row: a variation at a strength, and where."""

    name: str
    strength: float
    where: Where

    @property
    def row(self) -> str:
        """Returns the name of the row's file."""
        short = f"{self.strength:g}"
        return f"{self.where}-{places.slug(self.name)}-{short if float(short) == self.strength else self.strength}"

    def camera(self, seed: int) -> Camera:
        """Returns the camera that shows it, in each pair's episode in a way that the seed decides."""
        return VariedCamera(VARIATIONS[self.name], self.strength, self.where, seed)


def asked_for(config: VariationsConfig) -> list[Asked]:
    """Returns the rows that the options name. Raises `UserError` on what is no variation, or no strength."""
    wheres: list[Where] = [where for where in WHERES if config.where in (where, ALL)]
    found: list[tuple[str, float]] = []
    for word in config.variation or (ALL,):
        name, at, strength = word.partition("@")
        try:
            if name == ALL and at:
                raise UserError(f"{ALL} has no strength of its own; name a variation, or leave @{strength} out")
            for each in VARIATIONS if name == ALL else [name]:
                variation = VARIATIONS[each]
                found += [(each, value) for value in ([variation.strength(strength)] if at else variation.strengths)]
        except UserError as error:
            raise UserError(f"--variation {word}: {error}") from error
    asked = [Asked(name, value, where) for where in wheres for name, value in dict.fromkeys(found)]
    for one, other in itertools.combinations(asked, 2):
        if one.row == other.row:
            raise UserError(f"--variation {one.name} and {other.name} are both {one.row}.json; name one")
    return asked


def measure(trial: Trial, agent: PlanningAgent) -> VariationRow:
    """Measures success and surprise of an agent."""
    made_by = provenance()
    records, _ = trial.run(agent)
    return VariationRow(**vars(summarise(records, trial.budget)), noticed=noticed(records), **made_by)


def write_variation_table(config: VariationsConfig) -> Path:
    """Measures what is missing, and writes table and figure; returns the table's path."""
    config, spec = checked(config), envs.get_task(config.task)
    if config.calibrate >= config.num_episodes:
        raise UserError(f"--calibrate {config.calibrate} needs as many other episodes; raise --num-episodes above it")
    asked, standard = asked_for(config), asked_for(replace(config, variation=(), where=ALL))
    folder, planning = config.folder, planning_of(config.task)
    budget = config.budget or PROTOCOLS[config.protocol].budget(spec)
    apart = [f"budget{config.budget}"] * bool(config.budget) + ["calibrated"] * bool(config.calibrate)
    book = Book.open(VariationRow, config.name("variations", config.protocol, *apart), config)
    always: dict[str, Any] = {"task": config.task, **digests(folder, planning), "planner": planning}
    always |= {"protocol": config.protocol, "num_episodes": config.num_episodes, "seed": config.seed}
    always |= {"budget": budget} | ({"calibrate": config.calibrate} if config.calibrate else {})
    book.find(CLEAN, always)  # raises at once where the folder holds another table
    model, _ = load_checkpoint(folder, task=config.task)
    rows: dict[Asked, VariationRow] = {}
    with contextlib.closing(envs.make(config.task, image_size=model.config.encoder.image_size)) as env:
        _require_shown(config, env)
        trial = Trial.on_pairs(env, spec, config.protocol, config.seed, config.num_episodes, budget)
        agent = PlanningAgent(model, env.action_space, spec.action_block, planning, load_proposer(folder, planning))
        usual = load_picture_stats(folder) if config.calibrate else None

        def seen_by(camera: Camera) -> Trial:
            if usual is not None:
                camera = CalibratedCamera(camera, usual, config.calibrate, trial.pairs.start_state)
            return replace(trial, camera=camera)

        clean = book.once(CLEAN, always, partial(measure, seen_by(trial.camera), agent))
        offered = [each for each in dict.fromkeys([*asked, *standard]) if VARIATIONS[each.name].offered_by(env)]
        try:
            for each in (bar := tqdm(offered)):
                bar.set_description(each.row)
                what = {**always, "variation": each.name, "strength": each.strength, "where": each.where}
                go = partial(measure, seen_by(each.camera(config.seed)), agent)
                if row := book.once(each.row, what, go) if each in asked else book.find(each.row, what):
                    rows[each] = row
        finally:  # also of what there is where it is interrupted
            files.write_whole(path := book.folder / "variations.md", table(clean, rows, config))
            draw(clean, rows, f"{config.task}, {config.protocol}: success, %", book.folder / "variations.png")
    return path


def _require_shown(config: VariationsConfig, env: envs.PixelEnv) -> None:
    """Raises `UserError` on variations that are asked for by name, which the simulator cannot show."""
    names = dict.fromkeys(word.partition("@")[0] for word in config.variation)
    if unseen := [name for name in names if name != ALL and not VARIATIONS[name].offered_by(env)]:
        raise UserError(f"the simulator of {config.task} cannot show {' or '.join(unseen)}; name other variations")


def table(clean: VariationRow, rows: dict[Asked, VariationRow], config: VariationsConfig) -> str:
    """Returns the tables as Markdown, one for each place; the command of each row stands in its JSON."""
    name = "the bundled model" if config.checkpoint is None else config.checkpoint.name
    calibrated = f", calibrated by {config.calibrate} pictures" * bool(config.calibrate)
    parts: list[str | list[dict[str, str]]] = [
        f"Made by `jepa-mpc evaluate --task {config.task}` of {name}{calibrated}, with the options that each row's "
        f"JSON says, on {clean.num_episodes} {config.protocol} pairs of seed {config.seed}; intervals are Wilson's at "
        "95 %. Noticed: episodes of which more than half of the pictures surprised the agent by above 1."
        f"{config.declared}",
        f"As in training: {_success(clean).percent()} % reached, {clean.held.percent()} % held, "
        f"{_noticed(clean)} % noticed ([JSON]({CLEAN}.json)).",
    ]
    for where, words in WHERES.items():
        if lines := [_line(each, rows[each]) for each in _in_order(rows) if each.where == where]:
            parts += [f"**{where}**: {words}.", lines]
    return report.page(*parts)


def _in_order(rows: Iterable[Asked]) -> list[Asked]:
    """Returns rows by variation, each from slight to strong."""
    names = list(dict.fromkeys([*VARIATIONS, *(each.name for each in rows)]))
    return sorted(rows, key=lambda each: (names.index(each.name), abs(each.strength - VARIATIONS[each.name].nothing)))


def _line(asked: Asked, row: VariationRow) -> dict[str, str]:
    return {
        "pictures": VARIATIONS[asked.name].what.format(f"{asked.strength:g}"),
        "success, % [95 %]": _success(row).percent(),
        "held, % [95 %]": row.held.percent(),
        "noticed, %": _noticed(row),
        "run": f"[JSON]({asked.row}.json)",
    }


def _success(row: VariationRow) -> Rate:
    return Rate(row.success_rate, *row.success_interval)


def _noticed(row: VariationRow) -> str:
    return "–" if row.noticed is None else f"{100 * row.noticed.rate:.1f}"


def draw(clean: VariationRow, rows: dict[Asked, VariationRow], title: str, path: Path) -> None:
    """Draws a panel a variation: success over strength, from none on, a line for each place."""
    from jepa_mpc.eval.figures import COLOURS, GREY, LINES, MARKERS, new_figure, save

    shown = list(dict.fromkeys(each.name for each in _in_order(rows)))
    wide = min(5, len(shown))
    tall = -(-len(shown) // wide)
    figure = new_figure(1.5 + 2.1 * wide, 0.9 + 1.9 * tall)
    panels = figure.subplots(tall, wide, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, shown, strict=False):
        variation, of_panel = VARIATIONS[name], [each for each in _in_order(rows) if each.name == name]
        order = list(dict.fromkeys([variation.nothing, *(each.strength for each in of_panel)]))
        axes.set_xticks(range(len(order)), [f"{strength:g}" for strength in order])
        for number, where in enumerate(WHERES):
            if not (there := [each for each in of_panel if each.where == where]):
                continue
            x = [0, *(order.index(each.strength) for each in there)]
            rates = [_success(clean), *(_success(rows[each]) for each in there)]
            style = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": LINES[number]}
            axes.plot(x, [100 * each.rate for each in rates], label=where, markersize=4, **style)
            low, high = zip(*((100 * each.low, 100 * each.high) for each in rates), strict=True)
            axes.fill_between(x, low, high, color=COLOURS[number], alpha=0.15, linewidth=0)
        axes.set_title(variation.what.format("…"), fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color=GREY, alpha=0.2)
        axes.set_ylim(-3, 103)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.supylabel(title, fontsize=9)
    figure.supxlabel("strength, from nothing on", fontsize=9)
    handles = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), fontsize=8)
    save(figure, path)


def main(args: Sequence[str]) -> None:
    print(f"wrote {write_variation_table(parse(VariationsConfig, args, names={'--variation': VARIATIONS}))}")  # noqa: T201
