"""What every agent is asked, seen from within: the pairs, the seeds and the pictures that reach it."""

import numpy as np

from jepa_mpc.agent.base import DoNothingAgent, RandomAgent
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.eval.pairs import held_out_pairs

KINDS = (PlanningAgent, RandomAgent, DoNothingAgent)


def watch_agents(monkeypatch):
    """From now on, by the agent's class, one list of (goals, seeds, first pictures) a reset; agents act as ever."""
    seen = {}

    def watch(kind):
        reset, act = kind.reset, kind.act

        def watched_reset(self, goals, seeds):
            seen.setdefault(kind.__name__, []).append([goals, list(seeds), None])
            reset(self, goals, seeds)

        def watched_act(self, pictures):
            last = seen[kind.__name__][-1]
            last[2] = pictures if last[2] is None else last[2]
            return act(self, pictures)

        monkeypatch.setattr(kind, "reset", watched_reset)
        monkeypatch.setattr(kind, "act", watched_act)

    for kind in KINDS:
        watch(kind)
    return seen


def assert_asked_the_pairs(seen, env, spec, folder, *, seed, num_pairs, far=False, kinds=KINDS):
    """The first reset of each agent was to the stored pairs of that seed, from their starts, by the same seeds."""
    pairs = held_out_pairs(env, spec, seed, num_pairs, folder, far)
    starts = []
    for state in pairs.start_state:
        env.set_state(state)
        starts.append(env.render())
    seeds = seen[kinds[0].__name__][0][1]
    assert len(set(seeds)) == num_pairs
    for kind in kinds:
        goals, its_seeds, pictures = seen[kind.__name__][0]
        np.testing.assert_array_equal(goals, pairs.goal_picture)
        np.testing.assert_array_equal(pictures, starts)
        assert its_seeds == seeds
