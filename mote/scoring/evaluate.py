"""
Evaluation: views of a video -> cosines -> scores, each video once.

    one view      z = e + rho t ;  cosine(z, y)                                  (paper Eq. 11, 3; mote/model.py)
    one video     the mean of its views' cosines, views = clips x crops          (Section 4.1)
    one list      top-1 and top-5 over the decoded videos, and with the failures counted as wrong

Always with and without temporal feature modulation, in one pass. On any number of ranks: rank r takes videos r,
r + world, ..., no sampler pads the list, and no broken video is replaced.

Dimension key   B videos   V views per video   T frames   D embedding   N classes
Differs from the authors' code: they average the softmax of unscaled cosines, the same order but for rounding.
"""
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..data import TestViews
from ..model import MoTE, cosine, video_embedding
from ..runtime.errors import printable
from ..runtime.precision import autocast
from ..runtime.ranks import Ranks, gather
from ..runtime.watched_loading import Watch, watched
from .protocols import Protocol, half_class_draws, mean_and_std

NAMES = {"plain": "without modulation", "modulated": "with modulation"}


def view_cosines(model: MoTE, frames: Tensor, places_BVT: Tensor, classes_ND: Tensor, k: int,
                 gamma: float) -> tuple[Tensor, Tensor]:
    """Views -> cosines (B, N), the mean over a video's views, without and with modulation.

    Frame t of view v of video b is frames[places[b, v, t]], of uint8 (n, 3, h, w): what views share is encoded once.
    """
    B, V, _ = places_BVT.shape
    e_nD = model.frame_features(model.normalise(frames)[None])[0]
    e_BTD = e_nD[places_BVT.flatten(0, 1)]                                    # B counts views from here ...
    t_BTD = model.temporal_features(e_BTD)
    rho_B = model.modulation(e_BTD, classes_ND, k, gamma)                     # one rho per view, as the authors' code
    both = (cosine(video_embedding(e_BTD, t_BTD, rho), classes_ND) for rho in (1, rho_B))
    return tuple(c.unflatten(0, (B, V)).mean(dim=1) for c in both)            # ... to here


@torch.no_grad()
def evaluate(model: MoTE, videos: list[tuple[str, int]], classes_ND: Tensor, ranks: Ranks, protocol: Protocol,
             batch: int = 16, workers: int = 0, skipped: Path | None = None) -> dict:
    """Scores of a model on a list, as the protocol says; batch counts views per rank. The same dict on every rank.

    skipped: a file of the videos that no worker is to touch (mote/runtime/guard.py). Raises ValueError where a cosine is not
    finite or no video could be decoded: there is no score.
    """
    model.eval()
    p, watch = protocol, Watch(videos, workers, skipped)
    data = TestViews(videos, p.frames, model.image_size, p.resize, p.clips, p.crops, watch)
    mine, size = range(ranks.rank, len(videos), ranks.world_size), max(1, batch // (p.clips * p.crops))
    keys = [list(mine[i:i + size]) for i in range(0, len(mine), size)]
    classes_ND, parts, failed = classes_ND.to(ranks.device), [], []
    for one in watched(data, keys, watch, workers, ranks.device.type == "cuda"):
        failed += one["failed"]
        with autocast(ranks.device, p.precision):
            frames, places = (one[key].to(ranks.device, non_blocking=True) for key in ("frames", "places"))
            both = view_cosines(model, frames, places, classes_ND, p.neighbours, p.gamma)
        parts.append((one["index"].tolist(), torch.stack(both, dim=1).float().cpu()))         # (B, 2, N)
    parts, failed = gather(parts), gather(failed)
    cosines = torch.empty(len(videos), 2, len(classes_ND))
    for index, cosine_B2N in parts:
        cosines[index] = cosine_B2N
    labels, decoded = torch.tensor([label for _, label in videos]), torch.ones(len(videos), dtype=torch.bool)
    decoded[failed] = False
    if not decoded.any():
        raise ValueError(f"none of the {len(videos)} videos could be decoded, such as {videos[0][0]}")
    if not cosines[decoded].isfinite().all():
        raise ValueError("the model gives numbers that are not finite: it has no score")
    best = {name: cosines[:, i].topk(min(5, len(classes_ND)), dim=1).indices for i, name in enumerate(NAMES)}
    halves = {name: half_class_scores(cosines[decoded, i], labels[decoded]) for i, name in enumerate(NAMES)}
    names = {i: "/".join(Path(path).parts[-2:]) for i, (path, _) in enumerate(videos)}
    return {"protocol": {"fingerprint": p.fingerprint, **asdict(p)}, "videos": len(videos),
            "decoded": int(decoded.sum()), "failed": [videos[i][0] for i in sorted(failed)],
            **{name: scores(best[name], labels, decoded) for name in NAMES}, "half_classes": halves,
            "per_video": [{"video": names[i], "label": label, **{name: best[name][i].tolist() * bool(decoded[i])
                                                                 for name in NAMES}}
                          for i, label in enumerate(labels.tolist())]}


def scores(best_B5: Tensor, labels_B: Tensor, decoded_B: Tensor) -> dict[str, float]:
    """Per cent of the decoded videos whose class is the best, or among the five best; the same of all videos."""
    right = (best_B5 == labels_B[:, None]) & decoded_B[:, None]
    counts = {"top1": right[:, 0].sum().item(), "top5": right.any(dim=1).sum().item()}
    seen, n = max(len(labels_B), 1), max(int(decoded_B.sum()), 1)
    return {**{name: 100 * count / n for name, count in counts.items()},
            **{f"{name}_failures_wrong": 100 * count / seen for name, count in counts.items()}}


def half_class_scores(cosine_BN: Tensor, labels_B: Tensor) -> dict[str, float]:
    """Top-1 among half the classes: mean and std over the ten draws. {} where no draw has a video.

    rho stays that of all classes, as in the authors' code: only the classifier is cut down.
    """
    accuracies = []
    for draw in map(torch.from_numpy, half_class_draws(cosine_BN.shape[1])):
        inside = torch.isin(labels_B, draw)
        if inside.any():
            answers = draw[cosine_BN[inside][:, draw].argmax(dim=1)]
            accuracies.append(100 * (answers == labels_B[inside]).double().mean().item())
    return dict(zip(("top1", "top1_std"), mean_and_std(accuracies))) if accuracies else {}


def over_splits(results: list[dict]) -> dict:
    """Means and standard deviations of `scores` over the official splits: {plain, modulated}."""
    def each(name: str) -> dict[str, float]:
        pairs = {key: mean_and_std([result[name][key] for result in results]) for key in results[0][name]}
        return {**{key: mean for key, (mean, _) in pairs.items()},
                **{f"{key}_std": pairs[key][1] for key in ("top1", "top5")}}
    return {name: each(name) for name in NAMES}


def describe(result: dict, half_classes: bool = False) -> str:
    """The lines printed for a result of `evaluate`: its protocol, its scores."""
    known = {key: value for key, value in result["protocol"].items() if key != "fingerprint"}
    lines = [str(Protocol(**known))]
    if result["failed"]:
        lines.append(f"{len(result['failed'])} of {result['videos']} videos could not be decoded: "
                     f"{', '.join(map(printable, result['failed'][:20]))}{', ...' * (len(result['failed']) > 20)}")
    for name, title in NAMES.items():
        s = result[name]
        lines.append(f"{title:20s} top-1 {s['top1']:6.2f}   top-5 {s['top5']:6.2f}")
        if result["failed"]:
            lines[-1] += (f"   ({result['decoded']} decoded; the failures counted as wrong: top-1 "
                          f"{s['top1_failures_wrong']:.2f}, top-5 {s['top5_failures_wrong']:.2f})")
        if half_classes and result["half_classes"][name]:
            lines[-1] += "   half of the classes, 10 draws: top-1 {top1:.2f} +- {top1_std:.2f}".format(
                **result["half_classes"][name])
    return "\n".join(lines)
