"""An agent's decision as one ONNX graph.

Notable: what is computed depends on how far an episode is: how many frames there are to remember, whether there is a
plan to go on from, and whether it is time for another. Each of these ways to decide is traced by itself, from the code
that the agent runs; the graph counts decisions and takes the way whose turn it is. Weights stand in it once.
"""

import json
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential as InTurn
from onnx_ir.passes import common
from torch import Tensor, nn
from tqdm import tqdm

from jepa_mpc.agent.controller import Memory
from jepa_mpc.agent.exported import INFO, NEXT, NOISE, PICTURES, PROPRIO, SEEN, ExportInfo
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.errors import UserError, reason
from jepa_mpc.planners import CostFn, Plan, Planner
from jepa_mpc.settings import to_json
from jepa_mpc.world_model.model.surprise import Lag
from jepa_mpc.world_model.observation import Observation

_RUNS, _GOAL = "runs", "z_goal"  # of what is remembered, how often the graph was run, and what stays in an episode

Tensors = dict[str, Tensor]


class Part(nn.Module):
    """A part of the graph: from tensors by name to tensors by name, with an example of what it is given."""

    def __init__(self, agent: PlanningAgent, given: Tensors):
        super().__init__()
        self.model, self.controller, self.action_block = agent.model, agent.controller, agent.action_block
        self.given = given

    def answer(self, given: Tensors) -> Tensors:
        raise NotImplementedError

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.answer(dict(zip(self.given, values, strict=True))).values())


class Encode(Part):
    """Makes an embedding of a picture, and of what is felt."""

    def answer(self, given):
        return {"z": self.model.encode(Observation(given[PICTURES], given.get(PROPRIO)))}


class Decide(Part):
    """Decides after so many decisions of an episode. What is remembered has one shape for all of them: zeros stand
    before the frames where there are fewer than can be remembered.
    """

    def __init__(self, agent: PlanningAgent, given: Tensors, num_done: int):
        super().__init__(agent, given)
        self.num_done, self.every = num_done, agent.config.receding_horizon
        self.room, self.sizes = agent.config.history_len, agent.controller.planner.sizes()
        # What tells ways to decide apart: how many frames there are, and whether a search is due.
        self.way = min(num_done, self.room), num_done % self.every == 0

    def answer(self, given):
        decision = self.controller.decide(self._seen(given), partial(self._search, given.get(NOISE)))
        memory, plan = decision.memory, decision.memory.plan
        assert plan is not None
        answers = {
            "block": decision.block.unflatten(1, (self.action_block, -1)),
            "lost": decision.lost,
            "surprise": memory.surprise,
            NEXT + "z_history": self._with_room(memory.z_history),
            NEXT + "past_actions": self._with_room(memory.past_actions),
            NEXT + "offset": memory.offset,
            NEXT + "lag": torch.stack(memory.lag, dim=1),
            NEXT + "plan": plan.actions,
            NEXT + "cost": plan.cost,
        }
        if memory.on_their_way:
            answers[NEXT + "on_their_way"] = torch.stack(memory.on_their_way, dim=1)
        return answers | ({NEXT + "elites": plan.elites} if plan.elites.shape[1] else {})

    def _memory(self, given: Tensors) -> Memory:
        begun = self.controller.begin(given[_GOAL].unsqueeze(1))
        if not self.num_done:
            return begun
        first = self.room - self.way[0]
        elites = given["elites"] if "elites" in given else given["plan"][:, None][:, :0]
        return replace(
            begun,
            z_history=given["z_history"][:, first:].unbind(1),
            past_actions=given["past_actions"][:, first:].unbind(1),
            on_their_way=given["on_their_way"].unbind(1) if begun.on_their_way else (),
            offset=given["offset"],
            lag=Lag(*given["lag"].unbind(1)),
            plan=Plan(given["plan"], given["cost"], elites, 0),
            blocks_done=(self.num_done - 1) % self.every + 1,
        )

    def _seen(self, given: Tensors) -> Memory:
        """Returns what is remembered once a picture has come or, where it has not, what was foreseen of it."""
        memory, is_seen = self._memory(given), given[SEEN]
        seen = self.controller.see(memory, given["z"])
        if not self.num_done:  # an episode begins with a picture
            return seen
        foreseen = self.controller.see(memory, None)
        z = torch.where(is_seen[:, None], given["z"], foreseen.z_history[-1])
        return replace(
            seen,
            z_history=(*seen.z_history[:-1], z),
            offset=torch.where(is_seen[:, None], seen.offset, foreseen.offset),
            lag=Lag(*(torch.where(is_seen, *each) for each in zip(seen.lag, foreseen.lag, strict=True))),
            surprise=torch.where(is_seen, seen.surprise, foreseen.surprise),
        )

    def _search(self, noise: Tensor | None, cost_fn: CostFn, warm_start: Plan | None) -> Plan:
        """Returns the plan of all rounds. Those after one that has converged change nothing, as they are not done."""
        planner, sizes = self.controller.planner, self.sizes
        search = planner.begin(1, self.controller.config.horizon, warm_start)
        for white in () if noise is None else noise.split(sizes, dim=1):
            search = planner.advance(search, planner.coloured(white), cost_fn)
        return planner.end(search, len(sizes))

    def _with_room(self, values: Sequence[Tensor]) -> Tensor:
        blank = [torch.zeros_like(values[0])] * (self.room - len(values))
        return torch.stack([*blank, *values], dim=1)


def _parts(agent: PlanningAgent) -> tuple[Encode, list[Decide], Tensors]:
    """Decides through an episode. Returns the encoder, a part for each way to decide, with what it was given there, of
    which the last is that of a search when no more frames can be remembered, and what an episode's first run answers,
    which is shown the goal: nothing is done, and nothing remembered but the goal, which is not among these.
    """
    config, size = agent.config, agent.model.config.encoder.picture_size
    felt = {PROPRIO: torch.full((1, agent.num_proprio), math.nan)} if agent.num_proprio else {}
    encode = Encode(agent, {PICTURES: torch.zeros(1, *size, 3, dtype=torch.uint8), **felt})
    z = encode(*encode.given.values())[0]
    given = {"z": z, _GOAL: z.clone(), SEEN: torch.ones(1, dtype=torch.bool)}
    if sizes := agent.controller.planner.sizes():
        generators = [torch.Generator().manual_seed(0)]
        given[NOISE] = agent.controller.planner.white(sum(sizes), config.horizon, generators)
    ways: dict[tuple[int, bool], Decide] = {}
    answers: Tensors = {}
    for num_done in range(config.history_len + config.receding_horizon):
        remembered = {name.removeprefix(NEXT): each for name, each in answers.items() if name.startswith(NEXT)}
        decide = Decide(agent, given | remembered, num_done)
        before, answers = answers, decide.answer(decide.given)
        shapes = [{name: each.shape for name, each in told.items()} for told in (before or answers, answers)]
        if shapes[0] != shapes[1]:
            raise UserError("a search that carries on now more candidates, now fewer, is no graph")
        ways.setdefault(decide.way, decide)
    begun = {name: torch.zeros_like(each) for name, each in answers.items()}
    begun["block"] = agent.controller.planner.middle.view_as(begun["block"])
    begun["surprise"].fill_(math.nan)
    return encode, sorted(ways.values(), key=lambda each: each.way), begun


def _traced(part: Part) -> ir.Model:
    """Returns a part as a graph. Raises `UserError`, with the reason, where it cannot be traced."""
    fast, disabled = torch.backends.mha.get_fastpath_enabled(), logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)  # what the exporter has not, and what it leaves as it is
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings(), torch.enable_grad():  # with gradients a cache grows, which a graph does best
            warnings.simplefilter("ignore")
            given = tuple(part.given.values())
            program = torch.onnx.export(
                torch.export.export(part.eval(), given, strict=False),
                given,
                input_names=list(part.given),
                output_names=list(part.answer(part.given)),
                dynamo=True,
                verbose=False,
            )
    except UserError:
        raise
    except Exception as error:  # whatever code of a stranger's, or the exporter about it, raises
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        raise UserError(f"no graph can be made of how this agent plans: {reason(first)}") from error
    finally:
        logging.disable(disabled)
        torch.backends.mha.set_fastpath_enabled(fast)
    assert program is not None
    return program.model


def graph_of(agent: PlanningAgent, info: ExportInfo) -> bytes:
    """Returns a decision as a file's content (`exported.py`), with what stands beside the graph in it.

    Raises `UserError` on a search or an objective that no graph can be made of, and on a calibration.
    """
    for part in ("plan", "noise", "white"):
        if getattr(getattr(agent.controller.planner, part), "__func__", None) is not getattr(Planner, part):
            name = agent.config.settings()["planner"]
            raise UserError(f"search {name} is no graph: it has a {part} of its own; say --planner icem, cem or mppi")
    if agent.calibration is not None:
        raise UserError("an exported agent takes pictures as they are; export one without a calibration")
    if agent.numbers is not None:
        raise UserError("an exported agent goes to pictures, not by numbers; export one without a probe")
    encode, ways, begun = _parts(agent)
    model, *decisions = (_traced(part) for part in tqdm([encode, *ways], desc="tracing", leave=False))
    _join(model.graph, ways, [each.graph for each in decisions], begun)
    model.metadata_props[INFO] = json.dumps(to_json(info))
    model.producer_name = "jepa-mpc"
    weights_once = common.LiftSubgraphInitializersToMainGraphPass(), common.DeduplicateInitializersPass(2**62)
    # What nodes tell of themselves are the lines of code that they come from, on this machine.
    InTurn(*weights_once, common.ClearMetadataAndDocStringPass(), common.NameFixPass())(model)
    return ir.to_proto(model).SerializeToString(deterministic=True)


def _join(graph: ir.Graph, ways: Sequence[Decide], decisions: Sequence[ir.Graph], begun: Tensors) -> None:
    """Makes of the encoder's graph that of all: it chooses among decisions by how often it was run."""
    (z,) = graph.outputs
    runs = ir.Value(name=_RUNS, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    ends = {str(value.name): value for each in decisions for value in each.inputs if value.name != "z"}
    outer = {name: ir.Value(name=name, shape=each.shape, type=each.type) for name, each in ends.items()}
    graph.inputs.extend([*outer.values(), runs])

    def op(kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        graph.append(node := ir.node(kind, inputs, attributes))
        return node.outputs[0]

    def number(value: int) -> ir.Value:
        return op("Constant", value=ir.tensor([value], ir.DataType.INT64))

    def turn(decide: Decide) -> ir.Value:
        """Returns whether it is this decision's turn, if not the last one's."""
        if decide.num_done < decide.room:
            return op("Equal", runs, number(decide.num_done + 1))
        return op("Not", op("Equal", op("Mod", op("Sub", runs, number(1)), number(decide.every)), number(0)))

    blank = [ir.node("Constant", [], {"value": ir.tensor(each.numpy())}) for each in begun.values()]
    goal = ir.Graph([], [node.outputs[0] for node in blank], nodes=blank, name="goal")
    for index, decision in enumerate(decisions):
        _make_branch(decision, f"way{index}", {**outer, "z": z})
    is_goal = op("Equal", runs, number(0))
    chosen = _choice([is_goal, *map(turn, ways[:-1])], [goal, *decisions])
    graph.append(chosen)
    z_goal, runs_next = op("Where", is_goal, z, outer[_GOAL]), op("Add", runs, number(1))
    for mine, theirs in ((z_goal, outer[_GOAL]), (runs_next, runs)):
        mine.shape, mine.type = theirs.shape, theirs.type
    graph.outputs[:] = [*chosen.outputs, z_goal, runs_next]
    for name, value in zip([*begun, NEXT + _GOAL, NEXT + _RUNS], graph.outputs, strict=True):
        value.name = name


def _make_branch(graph: ir.Graph, name: str, outer: Mapping[str, ir.Value]) -> None:
    """Gives a graph the values outside that its inputs are called after, and names of its own to all that it makes."""
    graph.name = name
    for index, value in enumerate(graph.outputs):
        if value.producer() is None or any(value is each for each in graph.outputs[:index]):
            graph.append(node := ir.node("Identity", [value]))  # a branch makes all of its outputs, each once
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.outputs[index] = node.outputs[0]
    made = [value for node in graph.all_nodes() for value in node.outputs]
    for value in [*graph.initializers.values(), *made]:
        value.name = f"{name}.{value.name}"
    for value in graph.inputs:
        ir.convenience.replace_all_uses_with(value, outer[str(value.name)])
    graph.inputs.clear()


def _choice(conditions: Sequence[ir.Value], branches: Sequence[ir.Graph]) -> ir.Node:
    """Returns what takes the branch of the first condition that holds, else the last."""
    then, *others = branches
    if len(others) > 1:
        inner = _choice(conditions[1:], others)
        others = [ir.Graph([], inner.outputs, nodes=[inner], name="otherwise")]
    attributes = {"then_branch": then, "else_branch": others[0]}
    node = ir.node("If", [conditions[0]], attributes, num_outputs=len(then.outputs))
    for mine, theirs in zip(node.outputs, others[0].outputs, strict=True):
        mine.shape, mine.type = theirs.shape, theirs.type
    return node
