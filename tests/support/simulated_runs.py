"""
Runs of train.py and eval.py on a simulated device, in a process of their own: see simulated_device.py.

    python tests/support/simulated_runs.py JSON      # {"train": [flags, ...], "eval": [flags, ...]}

Prints a line of JSON: what was seen in each training step, as [[what, shape, where, times], ...], the number of steps,
and what each command returned.
"""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import support.simulated_device as simulated  # noqa: E402

import eval as evaluation  # noqa: E402
import train  # noqa: E402
from mote.runtime import run_folder  # noqa: E402
from mote.runtime.guard import Guard  # noqa: E402


def watch_steps() -> list[int]:
    """Note what happens between `Guard.before_step` and the end of each step. -> their numbers, as they come"""
    steps: list[int] = []
    before, end = Guard.before_step, Guard.end_if_it_must

    def begin_to_watch(self):
        simulated.watching = True
        before(self)

    def stop_watching(self, step):
        simulated.watching = False
        steps.append(step)
        end(self, step)

    Guard.before_step, Guard.end_if_it_must = begin_to_watch, stop_watching
    return steps


def save_on_the_host() -> None:
    """torch.save reads memory that the device does not have. Not watched: a checkpoint has to be copied."""
    save = run_folder.save_checkpoint

    def save_host_copy(path, checkpoint):
        simulated.watching = False
        save(path, simulated.host_copy(checkpoint))

    run_folder.save_checkpoint = save_host_copy


def main(jobs: dict[str, list[list[str]]]) -> None:
    save_on_the_host()
    steps = watch_steps()
    returned = []
    with simulated.there():
        for flags in jobs["train"]:
            returned.append(train.main(flags))
        for flags in jobs["eval"]:
            result = evaluation.main(flags)
            returned.append(result.get("ranked") or result["plain"])
    rows = [[*key, times] for key, times in simulated.seen.items()]
    print(json.dumps({"steps": len(steps), "seen": rows, "returned": returned}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
