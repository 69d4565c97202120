"""
Convert a file of weights; which way is recognised by what is in it.

    python tools/convert.py RUN theirs.pt
        a run or checkpoint of train.py -> the authors' format
    python tools/convert.py MoTE_B16.pt ours.pt
        the authors' format -> a checkpoint like train.py's
    python tools/convert.py ViT-B-16.pt ViT-B-16-weights.pt
        OpenAI's TorchScript archive -> weights for --pretrained

The tensors stay what they are, bit for bit, and no existing file is written over.

The last way runs code from the file: an archive of torch.jit cannot be opened otherwise, so convert
only one that you trust, such as OpenAI's. Nothing else in this project does so: train.py and
eval.py refuse such archives, for which open_clip too has torch.jit.load only.

The authors' test scripts build their temporal transformer for 400 classes of fine-tuning. For a
checkpoint with another number, give their `video_header(...)` the argument
spe_cls_feature=checkpoint["fusion_model_state_dict"]["spe_cls_feature"].
"""
import argparse
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from mote.clip_backbone import SIZES, is_torchscript  # noqa: E402
from mote.runtime.authors_format import is_authors, to_authors  # noqa: E402
from mote.runtime.checkpoints import (  # noqa: E402
    build_model,
    in_our_format,
    read_file,
    save_checkpoint,
)
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402

# Some names of weights that every CLIP with a ViT has.
# With all of them a file is taken for CLIP's; open_clip's own files nest them in state_dict.
CLIP = {"visual.conv1.weight", "token_embedding.weight", "text_projection", "logit_scale"}


def from_archive(path: Path) -> tuple[dict, str]:
    """OpenAI's archive -> its weights, in the precision they have (half). Runs code from the file.

    Raises ValueError for an archive that is damaged or holds something else.
    """
    print(f"{path}: a TorchScript archive; loading it with torch.jit.load, which runs code from it",
          flush=True)
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated; the archives are from 2021.
            warnings.simplefilter("ignore", FutureWarning)
            state = torch.jit.load(str(path), map_location="cpu").state_dict()
    except Exception as error:                                   # torch raises its own, and others'
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: torch.jit.load fails ({text})") from None

    missing = sorted(CLIP - state.keys())
    if missing:
        raise ValueError(f"{path}: a TorchScript archive, but not of CLIP: it has no {missing[0]}")
    # The archive also holds three sizes as tensors, which are no weights.
    weights = {}
    for name, tensor in state.items():
        if name not in SIZES:
            weights[name] = tensor.detach().clone()
    return weights, "plain weights, for --pretrained"


def from_authors(checkpoint: dict) -> tuple[dict, str]:
    """The authors' checkpoint, translated by now -> itself, and what is known of its CLIP."""
    text = "a checkpoint like train.py's"
    backbone = checkpoint["clip"]["backbone"]
    if backbone:
        text += f", visual tower of {backbone}"
    else:
        text += ("; its visual tower is none of OpenAI's: eval.py needs --backbone and "
                 "--pretrained")
    return checkpoint, text


def from_ours(checkpoint: dict) -> tuple[dict, str]:
    """A checkpoint of train.py -> the authors', and what their code must be told about it.

    Their code does not read sizes from a file's shapes: the config must name them.
    """
    theirs = to_authors(checkpoint)
    state = theirs["fusion_model_state_dict"]
    # One mote_fusion_weight per layer, with one number per expert.
    experts = [len(tensor) for name, tensor in state.items() if name.endswith("mote_fusion_weight")]
    text = (f"the authors' format; in their config, temporal_layer: {len(experts)}, "
            f"num_experts: {experts[0]}")

    classes = len(state["spe_cls_feature"])
    if classes != 400:
        text += (f"; {classes} classes of fine-tuning, so their test scripts need a change: "
                 "see convert.py --help")
    return theirs, text


def convert(src: Path) -> tuple[dict, str]:
    """Recognise a file and convert it. -> what to save, and a description of it

    Raises ValueError for a file of another kind, or whose weights do not make a model.
    """
    if is_torchscript(src):
        return from_archive(src)
    content = read_file(src)
    if isinstance(content, dict) and (CLIP <= content.keys() or "state_dict" in content):
        raise ValueError(f"{src}: plain weights already, which --pretrained takes as they are")
    checkpoint = in_our_format(content, src)
    build_model(checkpoint)                      # raises where the weights do not make a model
    if is_authors(content):
        return from_authors(checkpoint)
    return from_ours(checkpoint)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked. A mistake raises ValueError, before src is opened."""
    parser = plain_errors(argparse.ArgumentParser("convert.py", description=__doc__))
    parser.add_argument("src", type=Path, help="a run's folder (its last.pt) or a file")
    parser.add_argument("dst", type=Path, help="the file to write, which must not exist")
    options = parser.parse_args(argv)

    if options.dst.exists() or options.dst.is_symlink():
        parser.error(f"{options.dst} exists and is not written over: choose another name")
    if not options.dst.absolute().parent.is_dir():
        parser.error(f"{options.dst}: no such folder")
    return options


def main(argv: list[str] | None = None) -> Path:
    """Convert a file. -> the one written"""
    with one_line_errors("tools/convert.py"):
        options = parse(argv)
        src = options.src / "last.pt" if options.src.is_dir() else options.src
        converted, text = convert(src)
        save_checkpoint(options.dst, converted)
        print(f"{options.dst}: {text}")
        return options.dst


if __name__ == "__main__":
    main(sys.argv[1:])
