"""
Train MoTE: CLIP's visual tower and a temporal transformer of experts, on a folder of videos.

    python train.py                                                            # toyworld: generated videos, a CPU, minutes
    python train.py --data k400 --data-root DIR --batch 16 --accumulate 4      # one GPU
    torchrun --nproc-per-node 8 train.py --data k400 --data-root DIR           # many

Read from the top: configuration, then, as in the paper's Figure 2, frames -> frame features -> temporal features -> video
embedding -> cosine -> three losses (`Objective`), then the optimiser's schedule, then the loop.

Dimension key   B clips   T frames   D embedding   N classes   E experts   L layers
"""
import argparse
import contextlib
import dataclasses
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from eval import CACHE, autocast, dataset, describe, evaluate, read_templates
from mote.checkpoint import load_weights, read_checkpoint, save_checkpoint
from mote.clip_backbone import class_embeddings, clip_config, load_clip, text_hash
from mote.data import MicroBatches, TrainingClips, collate, require_decoder
from mote.merging import BETA, ETA, LAMBDA, classification_loss, draw_temperatures, merging_weights, mse_loss, temperatures
from mote.merging import total_loss as L_ALL
from mote.model import MoTE, cosine, video_embedding
from mote.processes import Process, from_rank_0, gather, one_line_errors, start, this_process, total
from mote.temporal_experts import ROUTINGS, TemporalTransformer, draw_experts

# --- 1. configuration ---------------------------------------------------------------------------------------------------
MAX_BAD = 0.05            # part of the training videos that may be undecodable
# The paper's recipe (Table 6, Section 4.1) as argparse defaults: `train.py --data NAME --help` shows the numbers in force.
# Not the authors' B/16 config, which has batch 192 and a CLIP learning rate of 3.5e-6.
BACKBONES = {"ViT-B": {"layers": 4, "epochs": 30}, "ViT-L": {"layers": 6, "epochs": 20}}
DATASETS = {
    "toyworld": {"backbone": "toyworld", "pretrained": "toyworld", "layers": 3, "epochs": 16, "warmup": 1.0, "batch": 32,
                 "lr": 3e-3, "clip_lr": 4.5e-4, "min_area": 0.5, "flip": False, "eval_every": 4,
                 "zero_shot": "toyworld-novel,toyworld-appearance"},
    "ucf101": {"epochs": 10}, "hmdb51": {"epochs": 10},         # the few-shot recipe, Appendix B
    "ssv2": {"epochs": 2, "flip": False},                       # likewise; "from left to right" is a class there
}


def opt(default, help: str, choices=None):
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Config:
    data: str = opt("toyworld", "dataset: k400, ucf101, ... in $MOTE_DATA/NAME or data/NAME, or generated (toyworld)")
    data_root: str = opt("", "the dataset's folder, wherever it is")
    train_list: str = opt("", "a list in place of the folder's train list")
    val_list: str = opt("", "a list in place of the folder's val list")
    class_names: str = opt("", "a csv of id,name in place of the folder's")
    zero_shot: str = opt("", "datasets to test on at the end, separated by commas")
    out: str = opt("", "the run's folder; empty: runs/DATA-DATE-TIME")
    resume: str = opt("", "auto (the newest good checkpoint of --out, else a fresh start) or a checkpoint")
    init: str = opt("", "start from these weights: another run, or the authors' checkpoint")

    backbone: str = opt("ViT-B-16-quickgelu", "open_clip model, or a .json that describes one")
    pretrained: str = opt("openai", "its weights: open_clip tag or file; empty: random")
    templates: str = opt("", "a file of sentences with {} in place of the paper's 28")
    frames: int = opt(8, "T, frames per clip")
    layers: int = opt(4, "L, layers of the temporal transformer; 0: mean pooling")
    experts: int = opt(4, "E, experts per layer; 1: the plain transformer")
    routing: str = opt("multinomial", "how the experts are drawn", ROUTINGS)
    weight_merged: float = opt(LAMBDA, "lambda of Eq. 10; 0 by default for 1 expert or 0 layers")
    weight_mse: float = opt(ETA, "eta of Eq. 10; 0 by default for 1 expert or 0 layers")
    beta: float = opt(BETA, "unit of the temperatures (Section 3.3)")

    epochs: int = opt(30, "passes over the training set")
    warmup: float = opt(5.0, "epochs of linear warm-up from 0")
    batch: int = opt(144, "clips per step, over all ranks and accumulation steps")
    accumulate: int = opt(1, "micro-batches per rank and step")
    lr: float = opt(5e-5, "peak learning rate of the temporal transformer")
    clip_lr: float = opt(3e-6, "peak learning rate of the visual tower and the logit scale; 0 freezes them")
    weight_decay: float = opt(0.2, "AdamW's, on every parameter as in the authors' code")
    min_area: float = opt(0.08, "smallest part of a frame that a random crop keeps")
    flip: bool = opt(True, "horizontal flips; not where left and right are classes")
    seed: int = opt(0, "of everything random")

    eval_every: int = opt(1, "epochs between evaluations")
    save_every: int = opt(0, "steps between step_N.pt checkpoints; 0: none (last.pt is written after every epoch)")
    log_every: int = opt(20, "steps between log lines")
    workers: int = opt(2, "decoding processes per rank")
    threads: int = opt(0, "torch's threads per rank; 0: torch's choice")
    device: str = opt("auto", "auto, cpu, cuda, cuda:N, ...")
    precision: str = opt("auto", "of training; auto: bf16 on GPUs that have it, else fp32; evaluation is fp32",
                         ("auto", "fp32", "bf16"))

    @property
    def second_pass(self) -> bool:
        """Whether a step runs the merged experts too."""
        return self.weight_merged > 0 or self.weight_mse > 0


def parse_config(argv: list[str] | None = None) -> Config:
    """Command line -> Config. Data and backbone are read first: their recipes become the defaults of the rest."""
    parser = argparse.ArgumentParser("train.py", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                                     allow_abbrev=False)
    for f in dataclasses.fields(Config):
        kind = {"action": argparse.BooleanOptionalAction} if f.type is bool else {"type": f.type, "choices": f.metadata["choices"]}
        parser.add_argument("--" + f.name.replace("_", "-"), default=f.default, help=f.metadata["help"], **kind)
    args = [a for a in (sys.argv[1:] if argv is None else argv) if a not in ("-h", "--help")]
    parser.set_defaults(**DATASETS.get(parser.parse_known_args(args)[0].data, {}))
    backbone = parser.parse_known_args(args)[0].backbone
    for name, recipe in BACKBONES.items():
        if backbone.startswith(name):
            parser.set_defaults(**{**recipe, **DATASETS.get(parser.parse_known_args(args)[0].data, {})})
    first, _ = parser.parse_known_args(args)
    if first.experts == 1 or first.layers == 0:                  # the paper's baselines have one loss
        parser.set_defaults(weight_merged=0.0, weight_mse=0.0)
    config = Config(**vars(parser.parse_args(argv)))
    for name in ("frames", "experts", "epochs", "batch", "accumulate", "eval_every", "log_every"):
        if getattr(config, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(config, name)}")
    for name in ("layers", "warmup", "lr", "clip_lr", "weight_merged", "weight_mse", "weight_decay", "save_every", "workers",
                 "threads", "seed"):
        if not 0 <= getattr(config, name) < float("inf"):
            parser.error(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(config, name)}")
    if not 0 < config.min_area <= 1:
        parser.error(f"--min-area must be above 0 and at most 1, got {config.min_area}")
    if config.resume == "auto" and not config.out:
        parser.error("--resume auto needs --out, the folder to look in")
    if config.resume and config.init:
        parser.error("--init is where a run starts and --resume where it goes on: give one")
    if config.layers * config.lr == 0 == config.clip_lr:
        parser.error("nothing to train: --clip-lr 0 freezes CLIP, and there is no temporal layer with --lr above 0")
    return config


# --- 2. a training step, in the order of the paper's Figure 2 ---------------------------------------------------------
class Objective(nn.Module):
    """What DistributedDataParallel wraps: frames to L_TE, L_WMR and L_MSE. The second pass reuses the frame features."""

    def __init__(self, model: MoTE, second_pass: bool):
        super().__init__()
        self.model, self.second_pass = model, second_pass

    def forward(self, frames: Tensor, labels_B: Tensor, expert_LE: Tensor, merging_LE: Tensor) -> tuple[Tensor, ...]:
        model, classes, scale = self.model, self.model.finetune_classes, self.model.logit_scale.exp()
        e_BTD = model.frame_features(model.normalise(frames))                                        # Eq. 1
        z_BD = video_embedding(e_BTD, model.temporal(e_BTD, expert_LE))                              # Eq. 2, 4
        loss_expert = classification_loss(cosine(z_BD, classes), labels_B, scale)                    # Eq. 3, 4
        if not self.second_pass:
            return loss_expert, torch.zeros_like(loss_expert), torch.zeros_like(loss_expert)
        t_BTD = model.temporal(e_BTD, merging_LE)                                                    # Eq. 7
        loss_merged = classification_loss(cosine(video_embedding(e_BTD, t_BTD), classes), labels_B, scale)   # Eq. 8
        return loss_expert, loss_merged, mse_loss(e_BTD + t_BTD, e_BTD)                              # Eq. 9


def draws(config: Config, step: int, m: int) -> tuple[Tensor, Tensor]:
    """Experts and temperatures of micro-batch m of a step, as weights (L, E) each: the same whichever rank computes it."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence((config.seed, step, m)).generate_state(1)[0]))
    expert_LE = draw_experts(config.layers, config.experts, generator, config.routing)
    taus = draw_temperatures(config.layers, generator, config.beta)
    merging_LE = torch.stack([merging_weights(config.experts, tau) for tau in taus]) if taus else expert_LE
    return expert_LE, merging_LE


def learning_rate(epoch: float, peak: float, epochs: float, warmup: float) -> float:
    """Linear from 0 over `warmup` epochs, then half a cosine to 0 at `epochs` (Table 6). epoch counts fractions."""
    if epoch < warmup:
        return peak * epoch / warmup
    return peak * 0.5 * (1 + cos(pi * (epoch - warmup) / (epochs - warmup)))


# --- 3. the pieces that main() puts together -----------------------------------------------------------------------------
def build_optimizer(model: MoTE, config: Config) -> torch.optim.AdamW:
    """AdamW with two learning rates; decay on everything, no clipping. Frozen parameters are in no group."""
    model.visual.requires_grad_(config.clip_lr > 0)
    model.logit_scale.requires_grad_(config.clip_lr > 0)
    model.temporal.requires_grad_(config.layers > 0 and config.lr > 0)
    groups = [{"params": [p for p in params if p.requires_grad], "peak": peak} for params, peak in (
        ([*model.visual.parameters(), model.logit_scale], config.clip_lr), (model.temporal.parameters(), config.lr))]
    groups = [g for g in groups if g["params"]]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay, fused=True)


def find_resume(config: Config, out: Path, say) -> dict | None:
    """The checkpoint to go on from, or None for a fresh start. auto passes over damaged files, saying so."""
    if config.resume != "auto":
        return read_checkpoint(config.resume) if config.resume else None
    good = []
    for path in sorted({*out.glob("step_*.pt"), *out.glob("last.pt")}):
        try:
            good.append(read_checkpoint(path))
        except ValueError as error:
            say(f"passed over: {error}")
    return max(good, key=lambda checkpoint: checkpoint["step"], default=None)


def begin_folder(out: Path, step: int, train: list, val: list, names: list[str]) -> None:
    """The run's folder: the lists that it trains and tests on, and metrics.jsonl without lines later than `step`."""
    out.mkdir(parents=True, exist_ok=True)
    for split, videos in (("train", train), ("val", val)):
        (out / f"{split}.txt").write_text("".join(f"{path} {label}\n" for path, label in videos))
    (out / "classes.csv").write_text("".join(f"{i},{name}\n" for i, name in enumerate(names)))
    metrics = out / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    metrics.write_text("".join(f"{line}\n" for line in lines if line.endswith("}") and json.loads(line)["step"] <= step))


def table(results: dict[str, dict[str, float]], sets: list[str]) -> str:
    """Rows of top-1 per model, one column per dataset."""
    width = max(len(s) for s in sets) + 2
    lines = [f"{'top-1, per cent':32s}" + "".join(f"{s:>{width}s}" for s in sets)]
    return "\n".join(lines + [f"{row:32s}" + "".join(f"{r[s]:{width}.1f}" for s in sets) for row, r in results.items()])


def main(argv: list[str] | None = None) -> dict:
    config = parse_config(argv)
    with one_line_errors("train.py"):
        return run(config)


# --- 4. the run ----------------------------------------------------------------------------------------------------------
def run(config: Config) -> dict:
    """What a user can get wrong is read before the process group starts; then the loop; then the table."""
    process = this_process(config.device)
    say = print if process.first else lambda *_, **__: None
    if config.threads:
        torch.set_num_threads(config.threads)
    temperatures(config.beta)
    require_decoder()
    out = Path(config.out or (Path(config.resume).parent if config.resume else ""))
    if config.out and not config.resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} exists and is not an empty folder: choose another, or go on with --resume auto")
    resumed = find_resume(config, out, say)

    # data, CLIP, and the temporal head with experts
    train, names = dataset(config.data, config.data_root, "train", process, config.train_list, config.class_names)
    tests = {config.data: dataset(config.data, config.data_root, "val", process, config.val_list, config.class_names)}
    tests |= {name.strip(): dataset(name.strip(), "", "val", process) for name in config.zero_shot.split(",") if name.strip()}
    batches = MicroBatches(len(train), config.batch, config.epochs, config.seed, process.rank, process.world, config.accumulate,
                           start=resumed["step"] if resumed else 0)
    clip, tokenizer = load_clip(config.backbone, config.pretrained)
    clip, templates = clip.to(process.device), read_templates(config.templates)
    start(process)
    embeddings = from_rank_0({name: class_embeddings(clip, tokenizer, classes, templates, CACHE)
                              for name, (_, classes) in tests.items()} if process.first else None)
    finetune_classes = embeddings[config.data]
    torch.manual_seed(config.seed)

    def assemble(temporal: TemporalTransformer) -> MoTE:
        return MoTE(clip.visual, temporal, finetune_classes, clip.logit_scale, clip.image_mean, clip.image_std).to(process.device)
    model = assemble(TemporalTransformer(finetune_classes.shape[1], config.layers, config.experts))
    optimizer = build_optimizer(model, config)

    def test(model: MoTE, name: str) -> dict:
        return evaluate(model, tests[name][0], embeddings[name], process, config.frames, batch=16, workers=config.workers)
    untrained = resumed["untrained"] if resumed else {
        name: test(assemble(TemporalTransformer(finetune_classes.shape[1], 0)), name)["plain"]["top1"] for name in tests}
    if config.init:
        load_weights(model, {**read_checkpoint(config.init)["model"], "finetune_classes": finetune_classes})
    if resumed:
        if resumed["classes"] != names:
            raise ValueError(f"--resume: the checkpoint has {len(resumed['classes'])} other classes than {config.data} ({len(names)})")
        load_weights(model, resumed["model"])
        optimizer.load_state_dict(resumed["optimizer"])
        for group, peak in zip(optimizer.param_groups, [p for p in (config.clip_lr, config.lr) if p > 0]):
            group.update(peak=peak, weight_decay=config.weight_decay)         # the command line's, not the checkpoint's

    # what is about to happen, in the log
    bf16 = config.precision == "bf16" or (config.precision == "auto" and process.device.type == "cuda"
                                          and torch.cuda.is_bf16_supported())
    step, steps, every = batches.start, batches.stop, batches.steps_per_epoch
    if not (config.out or config.resume):
        out = from_rank_0(Path("runs") / f"{config.data}-{time.strftime('%Y%m%d-%H%M%S')}")
    if process.first:
        begin_folder(out, step, train, tests[config.data][0], names)
    say(f"torch {torch.__version__}, {process.world} x {process.device.type}, {torch.get_num_threads()} threads, "
        f"training in {'bf16' if bf16 else 'fp32'}")
    say(f"config {json.dumps(asdict(config))}")
    say(f"{config.data}: {len(train)} training videos, {len(names)} classes, {every} steps per epoch; run folder {out}")
    say("trained parameters: " + ", ".join(f"{sum(p.numel() for p in g['params']) / 1e6:.2f} M at peak lr {g['peak']:g}"
                                           for g in optimizer.param_groups))
    say("untrained CLIP, top-1: " + ", ".join(f"{name} {top1:.1f}" for name, top1 in untrained.items()))

    def save(path: Path, done: int) -> None:
        save_checkpoint(path, {
            "model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done, "config": asdict(config),
            "clip": {"backbone": config.backbone, "pretrained": config.pretrained, "config": clip_config(config.backbone),
                     "mean": tuple(clip.image_mean), "std": tuple(clip.image_std)},
            "text_hash": text_hash(clip), "classes": names, "templates": list(templates), "frames": config.frames,
            "untrained": untrained, "torch": torch.__version__})

    # the loop: accumulate, step, log, evaluate, save
    objective = Objective(model, config.second_pass)
    parallel = nn.parallel.DistributedDataParallel(objective, broadcast_buffers=False) if process.world > 1 else objective
    loader = torch.utils.data.DataLoader(
        TrainingClips(train, config.frames, model.image_size, config.seed, config.flip, config.min_area), batch_sampler=batches,
        num_workers=config.workers, collate_fn=collate, pin_memory=process.device.type == "cuda")
    stream, bad, new_bad = iter(loader), set(), []
    sums, logged, waited, since = torch.zeros(3, device=process.device), step, 0.0, time.perf_counter()
    results: dict[str, dict] = {}
    progress = tqdm(total=steps, initial=step, disable=not (process.first and sys.stderr.isatty()), unit="step")
    while step < steps:
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / every, group["peak"], config.epochs, config.warmup)
        for i in range(config.accumulate):
            start_wait = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - start_wait
            new_bad += batch["failed"]
            expert_LE, merging_LE = (w.to(process.device) for w in draws(config, step, i * process.world + process.rank))
            syncs = i == config.accumulate - 1 or process.world == 1              # forward and backward inside no_sync
            with contextlib.nullcontext() if syncs else parallel.no_sync():
                with autocast(process.device, "bf16" if bf16 else "fp32"):
                    losses = parallel(batch["frames"].to(process.device, non_blocking=True),
                                      batch["label"].to(process.device, non_blocking=True), expert_LE, merging_LE)
                (L_ALL(*losses, config.weight_merged, config.weight_mse) / config.accumulate).backward()     # Eq. 10
            sums += torch.stack(losses).detach() / (config.accumulate * process.world)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        progress.update()
        epoch_ends = step % every == 0

        if step % config.log_every == 0 or epoch_ends:
            expert, merged, mse = (total(sums) / (step - logged)).tolist()
            now = time.perf_counter()
            rates = "/".join(f"{g['lr']:.1e}" for g in optimizer.param_groups)
            line = (f"step {step}/{steps}  epoch {step / every:.2f}  loss "
                    f"{L_ALL(expert, merged, mse, config.weight_merged, config.weight_mse):.3f}  expert {expert:.3f}  "
                    f"merged {merged:.3f}  mse {mse:.4f}  lr {rates}  {config.batch * (step - logged) / (now - since):.0f} "
                    f"clips/s  data wait {100 * waited / (now - since):.0f} %")
            progress.set_postfix_str(line) if not progress.disable else say(line)
            for index in sorted(set(gather(new_bad)) - bad):
                bad.add(index)
                say(f"cannot decode {train[index][0]}: another video is drawn in its place ({len(bad)} so far)")
            if len(bad) > MAX_BAD * len(train):
                raise ValueError(f"{len(bad)} of {len(train)} training videos cannot be decoded: more than {100 * MAX_BAD:.0f} %")
            sums.zero_()
            new_bad, logged, waited = [], step, 0.0
        if epoch_ends and (step // every % config.eval_every == 0 or step == steps):
            merged_model = assemble(model.temporal.merged())                     # Eq. 6, once per evaluation
            merged_model.logit_scale = model.logit_scale
            for name in tests if step == steps else [config.data]:
                results[name] = {"step": step, "epoch": step // every, "data": name, **test(merged_model, name)}
                say(f"epoch {step // every}, {name}: {describe(results[name])}")
                if process.first:
                    with open(out / "metrics.jsonl", "a") as file:
                        file.write(json.dumps(results[name]) + "\n")
        if process.first and config.save_every and step % config.save_every == 0:
            save(out / f"step_{step}.pt", step)
        if process.first and epoch_ends:
            save(out / "last.pt", step)
        if step % config.log_every == 0 or epoch_ends:
            since = time.perf_counter()                                          # evaluating and saving are not clips/s
    progress.close()

    # the table
    for name in tests:
        if name not in results:                                                  # a finished run, resumed
            results[name] = test(assemble(model.temporal.merged()), name)
    rows = {"untrained CLIP, frames averaged": untrained,
            "trained": {name: r["plain"]["top1"] for name, r in results.items()},
            "trained, with modulation": {name: r["modulated"]["top1"] for name, r in results.items()}}
    say(f"\n{table(rows, list(tests))}")
    if process.first:
        (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
