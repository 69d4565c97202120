"""
Train toyworld's tiny CLIP on generated stills with captions -> mote/toyworld/toyworld.pt.

    python tools/toyworld/pretrain.py                              # how the shipped file was made
    python tools/toyworld/pretrain.py --steps 20 --out /tmp/x.pt   # a try

The training is contrastive; the architecture is mote/toyworld/toyworld.json. Half the stills are
plain ("red star"). Half carry a motion trail, the fading past of the object ("star moving left"):
so the text tower knows the motion words although no frame of a video shows one. Every caption is
put in one of the paper's 28 templates. The file holds half-precision weights and only the token
rows in use: under 2 MB.
"""
import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from mote import toyworld  # noqa: E402
from mote.clip_backbone import (  # noqa: E402
    TEMPLATES,
    Tokenizer,
    build_clip,
    clip_config,
    normalise,
)

TRAIL = 6                                          # frames that make one still with a trail
WARMUP = 100                                       # steps
MAX_LOG_SCALE = 4.6052                             # CLIP's own bound: a scale of 100
# Of the pixels, red, green, blue: CLIP's own.
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


# --- stills and captions --------------------------------------------------------------------------
def stills(n: int, size: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
    """n pictures (n, 3, size, size), uint8, those of odd index with a trail, and their captions."""
    def draw(options: list[str]) -> list[str]:
        return [options[i] for i in torch.randint(len(options), (n,), generator=generator)]

    colours = draw(list(toyworld.COLOURS))
    motions = draw(list(toyworld.MOTIONS))
    shapes = draw(list(toyworld.SHAPES))
    templates = draw(list(TEMPLATES))

    # Drawn in groups of one shape and one kind of change, which is faster than one by one.
    pictures = torch.empty(n, 3, size, size)
    for shape in toyworld.SHAPES:
        for changes in ("x", "y", "size", "angle", "light"):
            rows = [i for i in range(n)
                    if shapes[i] == shape and toyworld.MOTIONS[motions[i]][0] == changes]
            if not rows:
                continue
            rgb = torch.tensor([toyworld.COLOURS[colours[i]] for i in rows])
            poses = toyworld.poses(changes, len(rows), TRAIL, generator)
            clips = toyworld.render(shape, rgb, poses, size, generator).float()
            for i, clip in zip(rows, clips):
                pictures[i] = still(i, clip, backwards=toyworld.MOTIONS[motions[i]][1])

    captions = [templates[i].format(caption(i, colours[i], shapes[i], motions[i]))
                for i in range(n)]
    return pictures.round().to(torch.uint8), captions


def still(i: int, clip: Tensor, backwards: bool) -> Tensor:
    """The picture of still i from its clip (TRAIL, 3, s, s): with a trail if i is odd."""
    if backwards:
        clip = clip.flip(0)
    if i % 2 == 0:
        return clip[i % TRAIL]
    fade = torch.linspace(0.25, 1, TRAIL) ** 2     # the past fades, the present is clearest
    return torch.einsum("t,tchw->chw", fade / fade.sum(), clip)


def caption(i: int, colour: str, shape: str, motion: str) -> str:
    """What still i shows. Half of those with a trail are named without their colour."""
    if i % 2 == 0:
        return f"{colour} {shape}"
    if i % 4 == 1:
        return f"{shape} {motion}"
    return f"{colour} {shape} {motion}"


# --- training -------------------------------------------------------------------------------------
def contrastive_loss(clip: nn.Module, pictures: Tensor, texts: Tensor, target: Tensor) -> Tensor:
    """CLIP's loss of n pictures and m different texts; target (n,): the text of each picture."""
    image = F.normalize(clip.encode_image(normalise(pictures, MEAN, STD)), dim=-1)
    text = F.normalize(clip.encode_text(texts), dim=-1)
    logits = clip.logit_scale.clamp(max=MAX_LOG_SCALE).exp() * image @ text.T      # (n, m)

    # A text may belong to several pictures: then it is to find each of them equally.
    belongs = F.one_hot(target, len(texts)).T.float()                              # (m, n)
    belongs = belongs / belongs.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, belongs)) / 2


def train(clip: nn.Module, tokenizer: Tokenizer, size: int, options: argparse.Namespace) -> None:
    """AdamW; linear warm-up, then half a cosine. Prints a line every 100 steps.

    Stills are drawn anew for each step, so there is no data set to fit and no epoch. size: of a
    picture, in pixels. Changes clip in place.
    """
    def of_peak(step: int) -> float:
        cosine = torch.cos(torch.tensor(torch.pi * step / options.steps)).item()
        return min(1, (step + 1) / WARMUP) * 0.5 * (1 + cosine)

    generator = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.AdamW(clip.parameters(), lr=options.lr, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, of_peak)
    start = time.time()
    for step in range(options.steps):
        pictures, captions = stills(options.batch, size, generator)
        # A caption drawn twice is one text: as two, each would be wrong for the other's picture.
        texts = list(dict.fromkeys(captions))
        target = torch.tensor([texts.index(words) for words in captions])
        loss = contrastive_loss(clip, pictures, tokenizer(texts), target)

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == options.steps - 1:
            scale = clip.logit_scale.exp().item()
            print(f"step {step:5d}  loss {loss.item():.3f}  scale {scale:.1f}  "
                  f"{time.time() - start:.0f} s", flush=True)
    clip.logit_scale.data.clamp_(max=MAX_LOG_SCALE)


def save(clip: nn.Module, tokenizer: Tokenizer, out: str) -> None:
    """Write half-precision weights; of the token embeddings, only those of toyworld's words.

    The table of all 49,408 tokens would be most of the file. token_ids says which rows are there,
    and mote/files/weights.py puts them back into their places.
    """
    words = [template.format("") for template in TEMPLATES]
    words += [*toyworld.COLOURS, *toyworld.MOTIONS, *toyworld.SHAPES]
    token_ids = tokenizer(words).unique()

    state = {name: tensor.half() for name, tensor in clip.state_dict().items()}
    state["token_embedding.weight"] = state["token_embedding.weight"][token_ids].clone()
    torch.save({**state, "token_ids": token_ids}, out)
    megabytes = Path(out).stat().st_size / 1e6
    print(f"{out}: {megabytes:.2f} MB, {len(token_ids)} token rows")


def main(argv: list[str] | None = None) -> None:
    """Build a CLIP of random weights, train it, save it."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--steps", type=int, default=3500)
    add("--batch", type=int, default=192, help="stills per step")
    add("--lr", type=float, default=2e-3,
        help="peak, after 100 steps of warm-up, then a half cosine")
    add("--seed", type=int, default=0)
    add("--out", default=str(Path(toyworld.__file__).with_name("toyworld.pt")))
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    config = clip_config("toyworld")
    clip = build_clip(config)
    tokenizer = Tokenizer("toyworld", config)
    train(clip, tokenizer, config["vision_cfg"]["image_size"], options)
    save(clip, tokenizer, options.out)


if __name__ == "__main__":
    main()
