"""Figures beside each other, on the same held-out pairs. What is measured already is not measured again.

python eval/benchmark.py --tasks all                        every bundled checkpoint
python eval/benchmark.py --task reacher --agents all        one task: ours, Dreamer, and every easier way
"""

import shlex
import subprocess
import sys

import tyro

from jepa_mpc.errors import UserError
from jepa_mpc.eval.picture_goal import UsageError
from jepa_mpc.eval.tables.agents import write_agent_table
from jepa_mpc.eval.tables.benchmark_config import BenchmarkConfig
from jepa_mpc.eval.tables.tasks import write_task_table


def main() -> None:
    config = tyro.cli(BenchmarkConfig)
    try:
        if config.task is not None and config.tasks != ("all",):
            raise UsageError("--task measures agents on one task, --tasks checkpoints on several; choose one of them")
        path = write_task_table(config) if config.task is None else write_agent_table(config)
    except (UserError, UsageError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: `{shlex.join(map(str, error.cmd))}` failed; what it said stands above")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
    print(f"wrote {path}")  # noqa: T201


if __name__ == "__main__":
    main()
