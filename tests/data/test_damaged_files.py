"""
A damaged file is Undecodable, whatever its bytes, and no header gets more memory than a frame of 8K has.

Checked on JPEGs with segments in front of their size, with sizes that they do not have, and on garbage.
"""
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mote.data import Undecodable, decode
from mote.files.decoding import jpeg_size


def jpeg(h: int, w: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((h, w, 3), 90, dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


def test_a_frame_that_is_too_large_by_its_header_is_not_decoded(world, tmp_path, monkeypatch):
    image, video = jpeg(8, 16), next((world / "toyworld/videos").iterdir())
    at = image.index(b"\xff\xc0")
    (tmp_path / "1.jpg").write_bytes(image)
    (tmp_path / "2.jpg").write_bytes(image[:at + 5] + b"\xf0\x00\xff\xff" + image[at + 9:])
    monkeypatch.setattr("torchcodec.decoders.decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(Undecodable, match="claims 65535 x 61440 pixels: more than 33554432, not decoded"):
        decode(tmp_path, np.arange)
    monkeypatch.setattr("mote.files.decoding.read_frames", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("mote.files.decoding.MAX_PIXELS", 48 * 48 - 1)
    with pytest.raises(Undecodable, match="claims 48 x 48 pixels"):
        decode(video, np.arange)


KINDS = st.sampled_from([0xC4, 0xC8, 0xCC, 0xDB, 0xFE, *range(0xE0, 0xF0)])  # tables, comments, APPn


@given(st.integers(1, 300), st.integers(1, 300), st.lists(st.tuples(KINDS, st.binary(max_size=300)), max_size=3),
       st.sampled_from([0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCF]))
def test_the_size_that_a_jpegs_header_claims_is_its_size_whatever_stands_in_front(h, w, segments, kind):
    whole = jpeg(h, w)
    front = b"".join(bytes([0xFF, k]) + (len(some) + 2).to_bytes(2, "big") + some for k, some in segments)
    assert jpeg_size(whole[:2] + front + whole[2:].replace(b"\xff\xc0", bytes([0xFF, kind]), 1)) == (h, w)


def test_bytes_that_fill_up_to_a_segment_are_passed_over():
    whole = jpeg(7, 9)
    assert jpeg_size(whole[:2] + b"\xff\xff" + whole[2:]) == (7, 9)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda some: jpeg(5, 6)[:2] + some),
                 st.integers(0, 200).map(lambda length: jpeg(5, 6)[:length])))
def test_garbage_for_a_jpeg_is_undecodable(garbage):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "1.jpg").write_bytes(garbage)
        with pytest.raises(Undecodable):
            decode(folder, np.arange)
