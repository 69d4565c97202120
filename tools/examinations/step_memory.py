"""
The memory of a training step: measured with one clip and with two, extrapolated to the batch.

Weights, gradients and AdamW's moments do not depend on the clips; activations grow with each by the
same amount. So two peaks give both, and a batch that would not fit never has to be tried.
"""
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from tools.examinations.findings import Finding, Findings, numbers, size

DOCTOR = Path(__file__).parents[1] / "doctor.py"


# --- 1. in a process of its own -------------------------------------------------------------------
def take_steps(o: Namespace, clips: int) -> tuple[int, int]:
    """Two of train.py's steps, the optimiser's included, on random frames and random weights.

    Returns their peak of memory and what was free before, in bytes.
    """
    import train
    from mote.clip_backbone import load_clip
    from mote.runtime.ranks import find_ranks
    from tools.bench.steps import frames_for, new_model, peak_memory, torch
    c = o.config
    device = find_ranks(c.device, c.threads).device
    at = Namespace(backbone=c.backbone, device=device)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = free_memory()

    clip = load_clip(c.backbone, "")[0].to(device)               # its text tower stays there too
    model = new_model(at, clip.visual, c.layers, c.experts).train()
    optimizer = train.build_optimizer(model, c)
    objective = train.Objective(model, c.second_pass)
    model.visual.set_grad_checkpointing(c.checkpoint_activations)

    for step in range(2):            # from the second on AdamW's moments are there
        batch = {"frames": frames_for(at, model, clips, c.frames),
                 "label": torch.zeros(clips, dtype=torch.long)}
        train.micro_batch(objective, batch, c, step, 0, device)
        optimizer.step()
        optimizer.zero_grad()
    return peak_memory(device), free


def free_memory() -> int:
    """Bytes that a process on the CPU can have; on macOS, what there is in all."""
    from mote.runtime.workers import container_limit

    info = Path("/proc/meminfo")
    if info.exists():
        free = 1024 * numbers(info.read_text().partition("MemAvailable:")[2])[0]
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    most = container_limit("memory.max")
    if not most.startswith("max"):
        # What the container's file cache takes, it gives back.
        cached = numbers(container_limit("memory.stat").partition("\ninactive_file ")[2])[0]
        free = min(free, int(most) - int(container_limit("memory.current")) + cached)
    return max(0, free)


# --- 2. the finding -------------------------------------------------------------------------------
def memory(options: Namespace) -> Findings:
    """Whether the batch fits, and if not, the least --accumulate with which it does.

    GPUs have a memory each; the ranks on a CPU share one. Raises ValueError for a batch that cannot
    be divided, as train.py does.
    """
    batch = options.config.batch
    ranks = options.ranks
    accumulate = options.config.accumulate
    share, left = divmod(batch, ranks * accumulate)
    if left:
        raise ValueError(f"--batch {batch} must be a multiple of ranks x accumulation = {ranks} x "
                         f"{accumulate}")

    peaks = []
    # A share of one clip is measured itself: nothing is left to extrapolate.
    for clips in sorted({1, min(2, share)}):
        done = measure(clips, options.arguments)
        if done.returncode:
            yield Finding(False, f"training steps of {clips} clips: {why_it_ended(done)[:300]}",
                          "fewer --frames, or a smaller --backbone")
            return
        peak, free = numbers(done.stdout.splitlines()[-1])
        peaks.append(peak)
    one = peaks[0]
    more = max(0, peaks[-1] - one)   # of each clip beyond the first
    together = 1 if options.device.type == "cuda" else ranks

    # Bytes with n micro-batches a step: the first clip brings what all clips share.
    def need(n: int) -> float:
        return together * (one + more * (batch / ranks / n - 1))

    dividing = [n for n in range(1, batch // ranks + 1) if batch % (ranks * n) == 0]
    fits = [n for n in dividing if need(n) <= 0.9 * free]        # other programs need some too

    found = f"memory: {together} x {share} clips take {size(need(accumulate))}"
    if share > 2:
        found += f", extrapolated from {size(one)} for one, {size(peaks[-1])} for two"
    found += f"; {size(free)} free"
    yield Finding(accumulate in fits, found, remedy(options.config.checkpoint_activations, fits))


def remedy(checkpoints: bool, fits: list[int]) -> str:
    """What to do about a batch that does not fit. fits: the numbers of micro-batches that would.

    Checkpointing comes first: it changes no number, but more micro-batches draw experts more often.
    """
    remedies = [] if checkpoints else ["--checkpoint-activations"]
    if fits:
        remedies.append(f"--accumulate {fits[0]}")
    else:
        remedies += ["fewer --frames", "a smaller --backbone"]
    return ", or ".join(remedies)


def measure(clips: int, arguments: list[str]) -> subprocess.CompletedProcess:
    """`take_steps` in a process of its own: a peak of memory is a process's."""
    command = [sys.executable, str(DOCTOR), "--clips", str(clips), *arguments]
    return subprocess.run(command, text=True, capture_output=True, timeout=900)


def why_it_ended(done: subprocess.CompletedProcess) -> str:
    """The last line of its errors; one that was killed has left none."""
    lines = done.stderr.splitlines()
    if lines and lines[-1]:
        return lines[-1]
    return f"signal {-done.returncode}, of which 9 is want of memory"
