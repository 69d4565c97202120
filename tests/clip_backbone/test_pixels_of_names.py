"""
A file under a name of open_clip gets the frames that its weights were trained on, or is asked which tag it is of.

For every name that has a tag with other means, deviations, resizing or interpolation than OpenAI's: those are derived
from open_clip's own list and its own merging of preprocessing, so a later open_clip with more names tests those too.
Random weights of small towers (tests/survey/shrinking.py).
"""
import open_clip
import pytest
from survey import examining
from survey.shrinking import hub_of_tiny_files

from mote.clip_backbone import Pixels, load_clip

OTHERS = [name for name in open_clip.list_models() if set(examining.pixels_by_tag(name)) - {Pixels()}]
DISAGREE = [name for name in OTHERS if len(examining.pixels_by_tag(name)) > 1]
WITHOUT = [name for name in open_clip.list_models() if not examining.pixels_by_tag(name)]


def test_there_are_as_many_names_as_were_counted():
    """In open_clip 3.3: 46 with another mean or deviation, 54 with resizing and interpolation."""
    plain = Pixels()
    colours = [name for name in OTHERS
               if any((p.mean, p.std) != (plain.mean, plain.std) for p in examining.pixels_by_tag(name))]
    assert len(colours) >= 46 and len(OTHERS) >= 54
    assert {"ViT-L-14", "ViT-H-14", "ViT-H-14-quickgelu"} <= set(DISAGREE)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function: a name -> its small description, and a file with random weights for it."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("towers")
    with hub_of_tiny_files(folder / "hub", *OTHERS):
        yield lambda name: examining.write_small(name, folder)


@pytest.mark.parametrize("name", OTHERS)
def test_random_weights_under_a_name_load_with_its_tags_pixels(name, written):
    config, file = written(name)
    for as_tag, right in examining.tags_to_name(name).items():
        clip, _ = examining.load_ours(name, config, file, as_tag)
        assert clip.pixels == right
    file.unlink()


@pytest.mark.parametrize("name", DISAGREE)
def test_a_file_of_a_name_whose_tags_disagree_is_asked_for_its_tag_with_the_choices(name, written):
    with pytest.raises(ValueError, match="--as-tag TAG") as raised:
        examining.load_ours(name, *written(name), "")
    assert len(str(raised.value).splitlines()) == 1
    for tag in open_clip.list_pretrained_tags_by_model(name):
        assert tag in str(raised.value)


@pytest.mark.parametrize("name", WITHOUT)
def test_a_file_of_a_name_without_tags_is_asked_for_a_tag_of_another_before_it_is_read(name, tmp_path):
    file = tmp_path / "no weights at all.pt"
    file.touch()
    with pytest.raises(ValueError, match="--as-tag NAME/TAG"):
        load_clip(name, str(file))
