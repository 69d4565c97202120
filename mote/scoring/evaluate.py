"""
Evaluation: views of a video -> cosines -> scores, each video once.

    one view      z = e + rho t ;  cosine(z, y)                  (Eq. 11, 3; mote/model.py)
    one video     the mean of its views' cosines, views = clips x crops       (Section 4.1)
    one list      top-1 and top-5 over the decoded videos, and with the failures counted as wrong

Always with and without temporal feature modulation, in one pass. On any number of ranks: rank r
takes videos r, r + world size, ...; no sampler pads the list, and no broken video is replaced.

Dimension key   B videos   V views per video   T frames   D embedding   N classes
                n distinct frames of a batch
Differs from the authors' code: they average the softmax of unscaled cosines, which gives the same
order but for rounding.
"""
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from ..data import TestViews
from ..model import MoTE
from ..runtime.errors import printable
from ..runtime.parallel import same_buffers
from ..runtime.precision import autocast
from ..runtime.progress import progress
from ..runtime.ranks import Ranks, gather, gather_rows
from ..runtime.watched_loading import Watch, watched
from .protocols import Protocol, half_class_draws, mean_and_std

NAMES = {"plain": "without modulation", "modulated": "with modulation"}
Videos = list[tuple[str, int]]                                               # (path, label)


# --- from frames to cosines ----------------------------------------------------------------------
def view_cosines(model: MoTE, frames: Tensor, places_BVT: Tensor, classes_ND: Tensor, k: int,
                 gamma: float) -> tuple[Tensor, Tensor]:
    """Views -> cosines (B, N), the mean over a video's views, without and with modulation.

    Frame t of view v of video b is frames[places[b, v, t]], of uint8 (n, 3, h, w): frames that
    views share are encoded once. classes_ND: embeddings of the test classes, of unit length. k and
    gamma: K and gamma of Eq. 11. rho is per view, as in the authors' code.
    """
    B, V, _ = places_BVT.shape
    e_nD = model.frame_features(model.normalise(frames)[None])[0]                     # Eq. 1
    e_BTD = e_nD[places_BVT.flatten(0, 1)]                # from here B counts views ...
    t_BTD = model.temporal_features(e_BTD)                                            # Eq. 2, 6
    rho_B = model.modulation(e_BTD, classes_ND, k, gamma)                             # Eq. 11
    plain_BN = model.similarity(e_BTD, t_BTD, classes_ND)                             # Eq. 3
    modulated_BN = model.similarity(e_BTD, t_BTD, classes_ND, rho_B)
    # ... to here
    return mean_over_views(plain_BN, B, V), mean_over_views(modulated_BN, B, V)


def mean_over_views(cosine_BN: Tensor, B: int, V: int) -> Tensor:
    """(B V, N) -> (B, N). The V views of a video stand one after the other."""
    return cosine_BN.unflatten(0, (B, V)).mean(dim=1)


@torch.no_grad()
def evaluate(model: MoTE, videos: Videos, classes_ND: Tensor, ranks: Ranks, protocol: Protocol,
             batch: int = 16, workers: int = 0, skipped: Path | None = None) -> dict:
    """Scores of a model on a list, as the protocol says. The same dict on every rank.

    batch: views at a time, per rank. skipped: a file of the videos that no worker is to touch
    (mote/runtime/watched_loading.py). All ranks call it. The result:

        protocol, videos, decoded    the protocol's fields; how many are listed; how many are scored
        failed                       paths that could not be decoded, in the order of the list
        plain, modulated             what `scores` gives, for each of NAMES
        half_classes, per_video      what `half_class_scores` and `answers` give

    Raises ValueError where a cosine is not finite or no video could be decoded: there is no score;
    and where the protocol says that frames are made otherwise than the model's.
    """
    own = replace(protocol, **asdict(model.pixels))
    if own != protocol:
        raise ValueError(f"the protocol has frames with {protocol.how_frames_are_made()}, "
                         f"the model's are made with {own.how_frames_are_made()}")
    model.eval()
    same_buffers(model)
    cosines, failed = all_cosines(model, videos, classes_ND, ranks, protocol, batch, workers,
                                  skipped)
    decoded = torch.ones(len(videos), dtype=torch.bool)
    decoded[failed] = False
    if not decoded.any():
        raise ValueError(f"none of the {len(videos)} videos could be decoded, "
                         f"such as {videos[0][0]}")
    if not cosines[decoded].isfinite().all():
        raise ValueError("the model gives numbers that are not finite: it has no score")

    result = {"protocol": protocol.as_json(),
              "videos": len(videos),
              "decoded": int(decoded.sum()),
              "failed": [videos[i][0] for i in sorted(failed)]}
    labels = torch.tensor([label for _, label in videos])
    best, halves = {}, {}
    for i, name in enumerate(NAMES):
        best[name] = cosines[:, i].topk(min(5, len(classes_ND)), dim=1).indices
        result[name] = scores(best[name], labels, decoded)
        halves[name] = half_class_scores(cosines[decoded, i], labels[decoded])
    result["half_classes"] = halves
    result["per_video"] = answers(videos, best, decoded)
    return result


def all_cosines(model: MoTE, videos: Videos, classes_ND: Tensor, ranks: Ranks, protocol: Protocol,
                batch: int, workers: int, skipped: Path | None) -> tuple[Tensor, list[int]]:
    """-> cosines (videos, 2, N), float32 on the CPU, and the indices of videos that failed.

    The second axis is without, with modulation, as in NAMES. Both are of all ranks, on all ranks.
    Rows of failed videos hold the cosines of black frames: do not use them.
    """
    p = protocol
    watch = Watch(videos, workers, skipped)
    data = TestViews(videos, p.frames, model.image_size, p.resize, p.clips, p.crops, watch,
                     p.resize_mode, p.interpolation)
    mine = range(ranks.rank, len(videos), ranks.world_size)
    size = max(1, batch // (p.clips * p.crops))              # whole videos, at least one at a time
    keys = [list(mine[i:i + size]) for i in range(0, len(mine), size)]
    classes_ND = classes_ND.to(ranks.device)

    # Left on the device until the end: to read each would make the host wait for each.
    parts = [torch.empty(0, 2, len(classes_ND), device=ranks.device)]
    failed = []
    batches = watched(data, keys, watch, workers, ranks.device)
    for one in progress(batches, p.data, len(keys), ranks.first):
        failed += one["failed"]
        with autocast(ranks.device, p.precision):
            frames = one["frames"].to(ranks.device, non_blocking=True)
            places = one["places"].to(ranks.device, non_blocking=True)
            both = view_cosines(model, frames, places, classes_ND, p.neighbours, p.gamma)
        parts.append(torch.stack(both, dim=1).float())
    return gather_rows(torch.cat(parts), len(videos)).cpu(), gather(failed)


# --- from cosines to scores ----------------------------------------------------------------------
def scores(best_B5: Tensor, labels_B: Tensor, decoded_B: Tensor) -> dict[str, float]:
    """Top-1 and top-5, per cent: of the decoded videos, then of all, failures counted as wrong.

    best: the five best classes of each video, the best first; all of them where there are fewer.
    -> top1, top5, top1_failures_wrong, top5_failures_wrong. The second pair is the one to compare
    between copies of a dataset: a copy that lacks hard videos cannot gain from it.
    """
    right_B5 = (best_B5 == labels_B[:, None]) & decoded_B[:, None]
    counts = {"top1": right_B5[:, 0].sum().item(), "top5": right_B5.any(dim=1).sum().item()}
    decoded = max(int(decoded_B.sum()), 1)
    videos = max(len(labels_B), 1)
    of_decoded = {name: 100 * count / decoded for name, count in counts.items()}
    of_all = {f"{name}_failures_wrong": 100 * count / videos for name, count in counts.items()}
    return {**of_decoded, **of_all}


def half_class_scores(cosine_BN: Tensor, labels_B: Tensor) -> dict[str, float]:
    """Top-1 among half the classes: mean and std over the ten draws. {} where no draw has a video.

    Per cent, of the decoded videos whose class is in the draw. rho stays that of all classes, as in
    the authors' code: only the classifier is cut down.
    """
    accuracies = []
    for half in half_class_draws(cosine_BN.shape[1]):
        draw = torch.from_numpy(half)
        inside = torch.isin(labels_B, draw)
        if inside.any():
            best = draw[cosine_BN[inside][:, draw].argmax(dim=1)]
            right = best == labels_B[inside]
            accuracies.append(100 * right.double().mean().item())
    if not accuracies:
        return {}
    mean, std = mean_and_std(accuracies)
    return {"top1": mean, "top1_std": std}


def answers(videos: Videos, best: dict[str, Tensor], decoded: Tensor) -> list[dict]:
    """What each video got: its five best classes, [] where it was not decoded.

    best: (videos, 5) by NAMES. A video is named by its folder and file, so that two copies of a
    dataset in different places can be compared (tools/compare.py).
    """
    rows = []
    for i, (path, label) in enumerate(videos):
        row = {"video": "/".join(Path(path).parts[-2:]), "label": label}
        for name in NAMES:
            row[name] = best[name][i].tolist() if decoded[i] else []
        rows.append(row)
    return rows


def over_splits(results: list[dict]) -> dict:
    """Means and standard deviations of `scores` over the published splits: {plain, modulated}.

    results: what `evaluate` gives, one for each split; with one alone the deviations are 0. Splits
    count alike, whatever their number of videos.
    """
    pooled: dict[str, dict] = {}
    for name in NAMES:
        means, stds = {}, {}
        for key in results[0][name]:
            mean, std = mean_and_std([result[name][key] for result in results])
            means[key] = mean
            stds[f"{key}_std"] = std
        pooled[name] = {**means, "top1_std": stds["top1_std"], "top5_std": stds["top5_std"]}
    return pooled


# --- what is printed -----------------------------------------------------------------------------
def describe(result: dict, half_classes: bool = False) -> str:
    """The lines printed for a result of `evaluate`: its protocol, then its scores.

    half_classes: print those scores too. They are of an easier task, so they are printed only where
    asked for.
    """
    fields = {key: value for key, value in result["protocol"].items() if key != "fingerprint"}
    lines = [str(Protocol(**fields))]
    if result["failed"]:
        lines.append(describe_failures(result["failed"], result["videos"]))
    for name, title in NAMES.items():
        s = result[name]
        line = f"{title:20s} top-1 {s['top1']:6.2f}   top-5 {s['top5']:6.2f}"
        if result["failed"]:
            line += (f"   ({result['decoded']} decoded; the failures counted as wrong: top-1 "
                     f"{s['top1_failures_wrong']:.2f}, top-5 {s['top5_failures_wrong']:.2f})")
        half = result["half_classes"][name]
        if half_classes and half:
            line += (f"   half of the classes, 10 draws: top-1 {half['top1']:.2f} "
                     f"+- {half['top1_std']:.2f}")
        lines.append(line)
    return "\n".join(lines)


def describe_failures(failed: list[str], videos: int) -> str:
    """One line that names the failed videos, at most 20 of them: --json has all."""
    named = [printable(path) for path in failed[:20]]
    if len(failed) > 20:
        named.append("...")
    return f"{len(failed)} of {videos} videos could not be decoded: {', '.join(named)}"
