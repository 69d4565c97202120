"""
A cache of class embeddings that is damaged on the disk is computed anew.
"""
import torch
from torture.job import flip, same

from mote.clip_backbone import class_embeddings, load_clip


def test_one_flipped_bit_of_the_cached_class_embeddings_is_computed_anew(tmp_path):
    clip = load_clip("toyworld", "toyworld")
    right = class_embeddings(*clip, ["star", "ring"], ("a {}",), tmp_path)
    file, = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(flip(whole, whole.index(right.numpy().tobytes()) + 100))
    assert same(class_embeddings(*clip, ["star", "ring"], ("a {}",), tmp_path), right)
    assert same(torch.load(file, weights_only=True), right)
