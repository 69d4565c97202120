"""
--keep-best: best.pt, the checkpoint whose test had the best close-set top-1 so far.

Close-set: on the dataset that the run trains on, without modulation. It selects on what it reports,
as the authors' code does: its number is no test of an unseen set. best.json says which test it was:
{"step": .., "precision": .., "top1": ..}. Not part of the paper.
"""
import json
from pathlib import Path

from .checkpoints import name_again
from .ranks import Ranks


def name_best(ranks: Ranks, out: Path, result: dict) -> None:
    """Name the checkpoint of a test best.pt, unless the one that is it was as good.

    result: what metrics.jsonl is about to get. Of two that are equal the earlier one stays. Numbers
    of two precisions are not compared: with another precision it begins anew, and says so.
    """
    if not ranks.first:
        return
    newest = out / f"step_{result['step']}.pt"
    if not newest.exists():              # --resume FILE --out: the file lies in another folder
        ranks.say(f"--keep-best: no {newest}, so it cannot become best.pt")
        return

    now = {"step": result["step"], "precision": result["protocol"]["precision"],
           "top1": result["plain"]["top1"]}
    best = read_best(out)
    if best and best["precision"] != now["precision"]:
        ranks.say(f"--keep-best: tests are in {now['precision']} now, and were in "
                  f"{best['precision']}: best.pt begins anew")
    elif best and best["top1"] >= now["top1"]:
        return
    # After a kill between the two, the test is made again, for it is not recorded yet.
    name_again(newest, out / "best.pt")
    (out / "best.json").write_text(json.dumps(now) + "\n")


def read_best(out: Path) -> dict | None:
    """What best.json says; None where one of the two files is not there, or damaged."""
    try:
        best = json.loads((out / "best.json").read_text())
        known = {"step", "precision", "top1"} <= set(best)
    except (OSError, ValueError, TypeError):
        return None
    return best if known and (out / "best.pt").exists() else None


def forget_best(out: Path, step: int) -> None:
    """Remove a best.pt of more steps: the run goes on from `step`, and makes these again."""
    best = read_best(out)
    if best and best["step"] > step:
        (out / "best.json").unlink()
        (out / "best.pt").unlink()
