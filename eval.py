"""
Evaluate a checkpoint, or CLIP alone, on a dataset or on one video of your own.

    python eval.py --checkpoint runs/demo --data toyworld-novel              # zero-shot, one view
    torchrun --nproc-per-node 8 eval.py --checkpoint RUN --data k400 --clips 4 --crops 3
    python eval.py --checkpoint RUN --data ucf101 --split all --clips 3 --json ucf101.json
    python eval.py --checkpoint runs/demo --video CLIP.mp4 --classes "star moving left, star"

Every video counts once on any number of ranks; none is replaced (mote/scoring/evaluate.py). Each
score stands below its protocol (mote/scoring/protocols.py), with and without temporal feature
modulation (Eq. 11). Float32 unless --precision bf16.

Dimension key   T frames   D embedding   N classes
"""
import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mote.clip_backbone import (
    Pixels,
    Tokenizer,
    class_embeddings,
    has_own_weights,
    load_clip,
    text_hash,
)
from mote.data import TestViews, Undecodable
from mote.datasets.dataset import Dataset, class_names_of, dataset_folder, open_dataset
from mote.datasets.lists import published_splits
from mote.model import MoTE, probabilities
from mote.modulation import GAMMA, NEIGHBOURS
from mote.runtime.checkpoints import (
    build_model,
    interpolate,
    model_hash,
    original_clip,
    pixels_of,
    read_checkpoint,
)
from mote.runtime.errors import one_line_errors
from mote.runtime.options import comma_separated, option, parse, positive
from mote.runtime.precision import PRECISIONS, autocast
from mote.runtime.progress import progress
from mote.runtime.prompts import CACHE, read_templates
from mote.runtime.ranks import Ranks, find_ranks, start
from mote.runtime.workers import check_workers, count_workers
from mote.scoring.evaluate import NAMES, describe, evaluate, over_splits, view_cosines
from mote.scoring.protocols import mixed_names, protocol_of
from mote.temporal_experts import POSITIONS, TemporalTransformer


# --- 1. options ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Config:
    # What is tested: a model, on a dataset or on one video.
    checkpoint: str = option("", "a run's folder, a checkpoint, the authors' file; none: CLIP")
    data: str = option("", "dataset: $MOTE_DATA/NAME or data/NAME; toyworld's sets are generated")
    data_root: str = option("", "the dataset's folder, wherever it is")
    list: str = option("", "a list of videos in place of the folder's val list")
    class_names: str = option("", "a csv of id,name in place of the folder's")
    split: str = option("", "number of a published split, or all; it replaces {} in --list")
    half_classes: bool = option(False, "print top-1 over ten draws of half the classes, too")
    mix_names: str = option("", "datasets, with commas, whose class names join those of --data")
    video: str = option("", "one video file, or a folder of JPEGs, in place of a dataset")
    classes: str = option("", "the classes to rank for --video, separated by commas")
    templates: str = option("", "a file of sentences with {} in place of the paper's 28")

    # How. These and the lists above fix the number, so the protocol holds them all.
    frames: int = option(0, "frames per view; 0: as in training")
    clips: int = positive(1, "clips per video")
    crops: int = option(1, "crops per clip", choices=(1, 3))
    resize: int = option(0, "short side before the crop; 0: the model's image size")
    neighbours: int = positive(NEIGHBOURS, "K of Eq. 11")
    gamma: float = option(GAMMA, "gamma of Eq. 11", above=0)
    clip_weight: float = option(1.0, "of the fine-tuned tower, the rest is the original CLIP; "
                                     "the authors' tests: 0.99", most=1)
    backbone: str = option("", "open_clip model, .json, local-dir:DIR or hf-hub:ORG/NAME; for "
                               "CLIP alone, or another text tower")
    pretrained: str = option("", "its weights: a tag or a file")
    as_tag: str = option("", "the tag whose weights the file holds: sets mean, std, resizing")
    tokenizer: str = option("", "the tokenizer's folder, in place of one from Hugging Face's hub")

    # On what machine. Of these, only the precision is part of the protocol.
    batch: int = positive(16, "views at a time, per rank")
    workers: str = option("auto", "decoding processes per rank; auto: 2, on a GPU up to 16")
    threads: int = option(0, "torch's threads per rank; 0: torch's choice")
    device: str = option("auto", "auto, cpu, cuda, cuda:N, ...")
    precision: str = option("fp32", "what the forward pass computes in", choices=PRECISIONS)
    json: str = option("", "write the result to this file")


def parse_config(argv: list[str] | None = None) -> Config:
    """Command line -> Config. Raises ValueError, one line, for options that do not go together."""
    config = parse(Config, "eval.py", __doc__, argv=argv)
    check_workers(config.workers)
    if bool(config.video) == bool(config.data or config.data_root):
        raise ValueError("give either --data (or --data-root) or --video")
    if config.video and not comma_separated(config.classes):
        raise ValueError('--video needs --classes "name, name, ..."')
    named = config.backbone and (config.pretrained or has_own_weights(config.backbone))
    if not config.checkpoint and not named:
        # Never random weights by mistake.
        raise ValueError("give --checkpoint, or for CLIP alone --backbone and --pretrained, "
                         "or --backbone local-dir:DIR or hf-hub:ORG/NAME, which have weights")
    # Options that would be ignored in silence are refused: the number would not be as asked.
    if config.clip_weight < 1 and not config.checkpoint:
        raise ValueError("--clip-weight below 1 needs a --checkpoint to mix CLIP into")
    if config.split and config.list and "{}" not in config.list:
        raise ValueError(f"--split {config.split} needs a {{}} in --list {config.list}, "
                         "for the number")
    if config.json:
        open(config.json, "a").close()               # raises now, not after the evaluation
    return config


# --- 2. the model, and what its output is compared with ------------------------------------------
@dataclass(frozen=True)
class Loaded:
    """A model on its device, and the text tower that goes with it.

    Classes are data, not weights: the tower embeds any names, also of classes never trained on.
    """
    model: MoTE
    embed: Callable[[tuple[str, ...]], Tensor]       # class names -> class embeddings (N, D)
    templates: tuple[str, ...]
    frames: int                                      # per view
    text: str                                        # a hash of the text tower


def load(cfg: Config, names: list[str], ranks: Ranks) -> Loaded:
    """The checkpoint's model, or CLIP alone, for classes of these names.

    A checkpoint has no text tower: CLIP is loaded too. ValueError where the two do not fit, and
    where --crops or --resize do not fit the tower.
    """
    checkpoint = read_checkpoint(cfg.checkpoint) if cfg.checkpoint else None
    tower = text_tower(cfg, checkpoint)
    clip, tokenizer = load_tower(cfg, tower)
    pixels = pixels_of(checkpoint["clip"]) if checkpoint else clip.pixels
    if cfg.as_tag and clip.pixels != pixels:
        raise ValueError(f"--as-tag {cfg.as_tag}: {cfg.checkpoint} was trained on other pixels, "
                         f"and is tested on them: {pixels}")
    if clip.pixels != pixels:
        ranks.say(f"frames are made as {cfg.checkpoint} was trained: {pixels}")
    check_squash(cfg, pixels)
    clip = clip.to(ranks.device)
    # The visual tower was trained towards one text tower's class embeddings (Eq. 3). Those of
    # another may have the same shape, and the scores would be wrong without a word.
    text = text_hash(clip)
    trained_with = checkpoint or {}
    if trained_with.get("text_hash", text) != text:
        raise ValueError(f"{name_of(tower)}: its text tower is not the one that "
                         f"{cfg.checkpoint} was trained with")
    # The sentences of the training, because the model was trained towards their embeddings. CLIP
    # alone and the authors' files name none: the paper's 28.
    templates = tuple(trained_with.get("templates", ()))
    if cfg.templates or not templates:
        templates = read_templates(cfg.templates)

    # N classes in 28 sentences each are slow to encode. Splits that share their names are encoded
    # once (functools.cache), and so are all later starts (CACHE, a folder).
    bar = functools.partial(progress, what="class embeddings", shown=ranks.first)

    @functools.cache
    def embed(names: tuple[str, ...]) -> Tensor:
        return class_embeddings(clip, tokenizer, list(names), templates, cache=CACHE,
                                progress=bar)

    model = visual_model(cfg, checkpoint, clip, embed(tuple(names)))
    # Each frame takes a row of the position table. CLIP alone has no layers that would read it.
    frames = cfg.frames or trained_with.get("frames", 8)
    if frames > POSITIONS and model.temporal.blocks:
        raise ValueError(f"--frames {frames}: the table of frame positions has {POSITIONS} rows")
    return Loaded(model.to(ranks.device), embed, templates, frames, text[:8])


def check_squash(cfg: Config, pixels: Pixels) -> None:
    """Raise ValueError where an option asks for a part of the frame, of a tower that squashes it.

    Such a tower was trained on whole frames: a crop would be a picture of another shape to it.
    """
    if pixels.resize_mode != "squash":
        return
    tower = cfg.checkpoint or cfg.pretrained or cfg.backbone
    for name, value, default in (("crops", cfg.crops, 1), ("resize", cfg.resize, 0)):
        if value != default:
            raise ValueError(f"--{name} {value}: the tower of {tower} squashes the whole frame to "
                             f"its image size, so there is nothing to crop: leave --{name} out")


def text_tower(cfg: Config, checkpoint: dict | None) -> dict[str, str]:
    """What `load_clip` takes, of the CLIP whose text tower is needed: the options', else its own.

    Raises ValueError where neither names one: an authors' file of a tower that is not OpenAI's.
    """
    tower = original_clip(checkpoint, cfg.backbone, cfg.pretrained, cfg.as_tag, cfg.tokenizer)
    if not tower["backbone"]:
        raise ValueError(f"{cfg.checkpoint} does not say which CLIP it came from, and its text "
                         "tower is needed: give --backbone and --pretrained")
    return tower


def load_tower(cfg: Config, tower: dict[str, str]) -> tuple[nn.Module, Tokenizer]:
    """`load_clip`, with a word on paths that are the checkpoint's and not the user's."""
    try:
        return load_clip(**tower)
    except (ValueError, FileNotFoundError) as error:
        if not cfg.checkpoint or cfg.backbone or cfg.pretrained:
            raise
        raise ValueError(f"{error} (so was {cfg.checkpoint} trained; if it has moved, give "
                         "--backbone, --pretrained or --tokenizer)") from None


def name_of(tower: dict[str, str]) -> str:
    """The option that names a tower's weights."""
    if tower["pretrained"]:
        return f"--pretrained {tower['pretrained']}"
    return f"--backbone {tower['backbone']}"


def visual_model(cfg: Config, checkpoint: dict | None, clip: nn.Module,
                 classes_ND: Tensor) -> MoTE:
    """The checkpoint's MoTE, experts merged (Eq. 6); or CLIP alone: the mean over frames.

    Raises ValueError where the text tower's embeddings (N, D) are not as wide as the model's.
    """
    dim = classes_ND.shape[1]
    # Without layers t is 0, so Eq. 11 has nothing to scale. MoTE needs fine-tuning classes all the
    # same: the test classes stand in for them.
    if checkpoint is None:
        return MoTE(clip.visual, TemporalTransformer(dim, num_layers=0), classes_ND,
                    clip.logit_scale, clip.pixels)
    # Weights are mixed, not scores: the result is one model, at the cost of one (WiSE-FT).
    if cfg.clip_weight < 1:
        checkpoint = interpolate(checkpoint, clip, cfg.clip_weight)
    model = build_model(checkpoint)
    if model.finetune_classes.shape[1] != dim:
        raise ValueError(f"--backbone {cfg.backbone} has D = {dim}, "
                         f"the checkpoint {model.finetune_classes.shape[1]}")
    return model


# --- 3. a dataset --------------------------------------------------------------------------------
def show_dataset(cfg: Config, ranks: Ranks) -> dict:
    """Scores of one list, or of every published split with their mean and standard deviation."""
    sets = test_sets(cfg, ranks)
    loaded = load(cfg, sets[0].classes, ranks)
    start(ranks)
    views = {"frames": loaded.frames, "clips": cfg.clips, "crops": cfg.crops,
             "resize": cfg.resize or loaded.model.image_size, "neighbours": cfg.neighbours,
             "gamma": cfg.gamma, "precision": cfg.precision, "clip_weight": cfg.clip_weight,
             "text": loaded.text, "checkpoint": model_hash(cfg.checkpoint, loaded.model),
             **asdict(loaded.model.pixels)}

    workers = count_workers(cfg.workers, ranks.device, cfg.batch, loaded.frames,
                            loaded.model.image_size)

    results = []
    for data in sets:
        # K600 has other classes in each split, so each is embedded for itself. rho (Eq. 11) depends
        # on them and on a view's frames: so there is one per view, as in the authors' code.
        protocol = protocol_of(data, loaded.templates, **views)
        classes_ND = loaded.embed(tuple(data.classes))
        scores = evaluate(loaded.model, data.videos, classes_ND, ranks, protocol, cfg.batch,
                          workers)
        results.append({"split": data.split, **scores})
        ranks.say(describe(results[-1], cfg.half_classes))

    result = {"data": sets[0].name, "checkpoint": cfg.checkpoint, **over_splits(results),
              "splits": results}
    if len(results) > 1:
        ranks.say(describe_splits(result))
    if cfg.json and ranks.first:
        Path(cfg.json).write_text(json.dumps(result) + "\n")
    return result


def test_sets(cfg: Config, ranks: Ranks) -> list[Dataset]:
    """The test set of --split, or of every split, with the class names of --mix-names added.

    Raises FileNotFoundError or ValueError where lists are missing or wrong.
    """
    name = cfg.data or Path(cfg.data_root).resolve().name
    splits = [cfg.split]
    if cfg.split == "all":
        folder = dataset_folder(name, cfg.data_root, write=ranks.first)
        splits = [split for split in published_splits(folder, "val", cfg.list, name) if split]
        if not splits:
            raise FileNotFoundError(f"{name}: --split all needs lists of published splits, "
                                    "such as testlist01.txt")
    # Section 3.4: in use nobody says which dataset a video is from, so the names of several make
    # one classifier. Videos and labels stay those of --data: new names come behind.
    others = [class_names_of(other, write=ranks.first) for other in comma_separated(cfg.mix_names)]

    sets = []
    for split in splits:
        data = open_dataset(name, "val", cfg.data_root, cfg.list, cfg.class_names, split,
                            write=ranks.first)
        names = mixed_names(data.classes, others)
        sets.append(Dataset(name, data.videos, names, data.split))
    return sets


def describe_splits(result: dict) -> str:
    """The last lines printed for several splits: the std is over splits."""
    lines = [f"{result['data']}, mean and standard deviation of {len(result['splits'])} splits:"]
    for key, title in NAMES.items():
        s = result[key]
        lines.append(f"{title:20s} top-1 {s['top1']:6.2f} +- {s['top1_std']:.2f}   "
                     f"top-5 {s['top5']:6.2f} +- {s['top5_std']:.2f}")
    return "\n".join(lines)


# --- 4. one video --------------------------------------------------------------------------------
@torch.no_grad()
def show_video(cfg: Config, ranks: Ranks) -> dict:
    """Rank the classes for one video by their probability, with and without modulation.

    The probabilities are over the classes given: they sum to 1, also if none of them is right.
    """
    if not Path(cfg.video).exists():
        raise FileNotFoundError(f"--video {cfg.video}: no such file")
    # A class given twice would share its probability with itself.
    names = list(dict.fromkeys(comma_separated(cfg.classes)))
    loaded = load(cfg, names, ranks)
    model = loaded.model
    views = TestViews([], loaded.frames, model.image_size, cfg.resize, cfg.clips, cfg.crops,
                      resize_mode=model.pixels.resize_mode,
                      interpolation=model.pixels.interpolation)
    try:
        frames, places_VT = views.views(cfg.video)
    except Undecodable as error:
        raise ValueError(f"--video {error}") from None

    with autocast(ranks.device, cfg.precision):
        plain_1N, modulated_1N = view_cosines(
            model, frames.to(ranks.device), places_VT[None].to(ranks.device),
            loaded.embed(tuple(names)).to(ranks.device), cfg.neighbours, cfg.gamma)
    # view_cosines has averaged the views already: [:, None] makes them one view.
    plain = probabilities(plain_1N[:, None], model.logit_scale)[0].tolist()
    modulated = probabilities(modulated_1N[:, None], model.logit_scale)[0].tolist()
    ranked = sorted(zip(modulated, plain, names), reverse=True)

    lines = ["with modulation   without   class"]
    rows = []
    for chance, without, name in ranked:
        lines.append(f"{100 * chance:13.2f} %  {100 * without:6.2f} %   {name}")
        rows.append({"probability": chance, "probability_without_modulation": without,
                     "class": name})
    ranks.say("\n".join(lines))
    if cfg.json and ranks.first:
        Path(cfg.json).write_text(json.dumps(rows, indent=1))
    return {"ranked": ranked}


def main(argv: list[str] | None = None) -> dict:
    """What `python eval.py` does: a mistake is one line and exit status 2."""
    with one_line_errors("eval.py"):
        config = parse_config(argv)
        ranks = find_ranks(config.device, config.threads)
        return show_video(config, ranks) if config.video else show_dataset(config, ranks)


if __name__ == "__main__":
    main()
