"""What people would use instead of planning with a learned model, behind the same surface, to be measured beside it.

One file a rival, imported when it is asked for: its packages may be missing here. Another is registered from a file of
one's own, or goes by `module:attribute`.
"""

from jepa_mpc.agent.rivals.base import RIVALS, Facts, Rival

__all__ = ["RIVALS", "Facts", "Rival"]

for _name, _place in {
    "jepa": "jepa:JEPA",
    "jepa_short": "jepa_short:JEPA_SHORT",
    "dreamer": "dreamer:DREAMER",
    "sac": "her:SAC",
    "inverse": "latent_policy:INVERSE",
    "gcbc": "latent_policy:GCBC",
    "random": "baselines:RANDOM",
    "do_nothing": "baselines:DO_NOTHING",
    "oracle": "oracle:ORACLE",
}.items():
    RIVALS.register(_name, f"{__name__}.{_place}")
