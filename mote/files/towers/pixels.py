"""
How a frame becomes what a tower was trained on: size, interpolation, mean, standard deviation.

Weights do not carry this, and a wrong choice changes a score without a word. So it is looked up,
in this order, and never guessed:

    the tag of the weights            --pretrained openai: open_clip knows what it was trained on
    --as-tag TAG                      the user says which tag a file is of, or was trained like
    the description of the tower      preprocess_cfg of open_clip, preprocessor_config.json
    the tags of the backbone's name   where all of them agree: a file of any of them has theirs

Not part of the paper.
"""
from dataclasses import dataclass

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
RESIZE_MODES = ("shortest", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class Pixels:
    """How frames are preprocessed for a tower.

    The defaults are those of OpenAI's CLIP, and of open_clip where a training sets no others.
    mean, std: red, green, blue, in 0..1. resize_mode, of a frame that is tested: "shortest" brings
    the short side to the size and crops; "squash" brings both sides to it, whatever the shape was.
    interpolation: bicubic or bilinear.
    """
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"

    def __str__(self) -> str:
        size = {"shortest": "short side resized", "squash": "squashed"}[self.resize_mode]
        if (self.mean, self.std) == (OPENAI_MEAN, OPENAI_STD):
            return f"OpenAI's mean and std, {size}, {self.interpolation}"
        mean = " ".join(f"{number:.8g}" for number in self.mean)
        std = " ".join(f"{number:.8g}" for number in self.std)
        return f"mean {mean}, std {std}, {size}, {self.interpolation}"


def find_pixels(backbone: str, config: dict, tag: dict, as_tag: str, random: bool
                ) -> tuple[Pixels, str]:
    """How the frames of a tower with these weights are made, and how it is known: words.

    backbone: as the user gave it. config: its description. tag: of the weights, {} for a file.
    as_tag: what the user says that the file is, "TAG" of this backbone or "NAME/TAG" of another.
    random: the weights were never trained, so anything will do. Raises ValueError where it is not
    known, with the choices.
    """
    if tag:
        if as_tag:
            raise ValueError(f"--as-tag {as_tag}: it says what a file is, and --pretrained names a "
                             "tag already: leave it out")
        return read_pixels(tag, backbone), "of the tag"
    described = config.get("preprocess_cfg") or {}
    if not isinstance(described, dict):
        raise ValueError(f"--backbone {backbone}: preprocess_cfg must be an object with mean and "
                         f"std, got {described!r}")
    says_all = described.get("mean") is not None and described.get("std") is not None
    if as_tag:
        instead = ", in place of its description's" if says_all else ""
        return read_pixels(tag_of(backbone, as_tag), backbone), f"of the tag {as_tag}{instead}"
    if says_all:
        return read_pixels(described, backbone), "of its description"
    if random:
        return Pixels(), "of random weights"

    choices = tags_by_pixels(backbone)
    if len(choices) == 1:
        return next(iter(choices)), f"of all tags of {backbone}"
    if choices:
        said = "; ".join(f"{', '.join(tags)}: {pixels}" for pixels, tags in choices.items())
        raise ValueError(f"--backbone {backbone}: its tags differ in mean, std or resizing, and a "
                         f"file does not say which it is: give --as-tag TAG, one of {said}")
    raise ValueError(f"--backbone {backbone}: which mean and std were its weights trained with? "
                     "Neither preprocess_cfg in its description, a preprocessor_config.json beside "
                     "it nor a tag says so: add one, or give --as-tag NAME/TAG of a model that was "
                     "trained alike (ViT-B-32/openai has open_clip's defaults)")


def tag_of(backbone: str, as_tag: str) -> dict:
    """open_clip's description of a tag, "TAG" or "NAME/TAG". Raises ValueError for none."""
    from open_clip import list_pretrained_tags_by_model
    from open_clip.pretrained import get_pretrained_cfg

    name, _, tag = as_tag.rpartition("/")
    found = get_pretrained_cfg(name or backbone, tag)
    if not found:
        tags = ", ".join(list_pretrained_tags_by_model(name or backbone)) or "none"
        raise ValueError(f"--as-tag {as_tag}: no tag of {name or backbone}; tags: {tags} "
                         "(NAME/TAG for a tag of another model, such as ViT-B-32/openai)")
    return found


def tags_by_pixels(backbone: str) -> dict[Pixels, list[str]]:
    """The tags of a backbone, together where frames are made alike. {} for no name of open_clip."""
    from open_clip import list_pretrained_tags_by_model
    from open_clip.pretrained import get_pretrained_cfg

    together: dict[Pixels, list[str]] = {}
    for tag in list_pretrained_tags_by_model(backbone):
        pixels = read_pixels(get_pretrained_cfg(backbone, tag), backbone)
        together.setdefault(pixels, []).append(tag)
    return together


def read_pixels(preprocess: dict, backbone: str) -> Pixels:
    """preprocess: open_clip's preprocess_cfg or a tag; what it does not say is as OpenAI's.

    Raises ValueError for a way to make frames that is not known here.
    """
    said = {name: preprocess[name] for name in Pixels.__dataclass_fields__
            if preprocess.get(name) is not None}                 # a mean may be 0
    for name in {"mean", "std"} & said.keys():
        if isinstance(said[name], (int, float)):                 # open_clip's for all three
            said[name] = [said[name]] * 3
    if said.get("interpolation") == "random":                    # in training; in tests, bicubic
        said["interpolation"] = "bicubic"

    if not is_known(**said):
        raise ValueError(f"--backbone {backbone}: its frames are made in a way that is not known "
                         f"here ({said}); known: {' or '.join(RESIZE_MODES)}, "
                         f"{' or '.join(INTERPOLATIONS)}, 3 numbers in 0..1 of mean and of std")
    for name in {"mean", "std"} & said.keys():
        said[name] = tuple(float(number) for number in said[name])
    return Pixels(**said)


def is_known(mean: list | tuple = OPENAI_MEAN, std: list | tuple = OPENAI_STD,
             resize_mode: str = "shortest", interpolation: str = "bicubic") -> bool:
    """Whether frames can be made so. The values are those of a file: of any type."""
    for numbers in (mean, std):
        if not isinstance(numbers, (list, tuple)) or len(numbers) != 3:
            return False
        # A mean of 123 counts pixels in 0..255: frames would come out white.
        if not all(type(number) in (int, float) and 0 <= number <= 1 for number in numbers):
            return False
    return min(std) > 1e-3 and resize_mode in RESIZE_MODES and interpolation in INTERPOLATIONS
