"""
How many frames an evaluation decodes and encodes for one video.

Views overlap: a frame that several share should be decoded and encoded once.
"""
import tempfile
from argparse import Namespace
from collections import Counter
from unittest.mock import patch

import torch

from mote import toyworld
from tools.bench.steps import evaluate_one, load, new_model


def wide_video(folder: str, length: int) -> str:
    """A video of so many frames, twice as wide as high, so that three crops differ. -> its path"""
    from torchcodec.encoders import VideoEncoder

    path = f"{folder}/wide.mp4"
    # Three crops of a square picture would be one and the same, and a cache could share them.
    square = toyworld.make_clip("star", "red", "moving left", (0,), frames=length)
    wide = torch.cat([square, square.flip(-1)], -1)
    VideoEncoder(wide, frame_rate=12).to_file(path)
    return path


def count_views(length: int, clips: int, crops: int) -> Counter:
    """Frames "decoded" and "encoded" for a video of so many frames, in clips x crops views.

    With toyworld's CLIP, which is fast: the numbers do not depend on the model.
    """
    from torchcodec.decoders import VideoDecoder

    options = Namespace(backbone="toyworld", device=torch.device("cpu"))
    visual = load(options.backbone, options.device)[0].visual
    model = new_model(options, visual, layers=1, experts=1, classes=5)
    counts = Counter()
    # Kept before it is replaced: the replacement calls it.
    get_frames = VideoDecoder.get_frames_at

    # Both are counted where the work is done, below every cache that could save it.
    def count_decoded(self, indices, *rest, **flags):
        counts["decoded"] += len(indices)
        return get_frames(self, indices, *rest, **flags)

    def count_encoded(_, inputs) -> None:
        counts["encoded"] += len(inputs[0])

    hook = visual.register_forward_pre_hook(count_encoded)
    with tempfile.TemporaryDirectory() as folder:
        video = wide_video(folder, length)
        with patch.object(VideoDecoder, "get_frames_at", count_decoded):
            evaluate_one(model, video, clips, crops)
    hook.remove()
    return counts
