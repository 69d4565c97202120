"""For the tests of mote/clip_backbone.py: the shipped CLIP, and no network."""
import socket

import pytest

from mote.clip_backbone import load_clip


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test here may leave the machine."""
    def refuse(*args):
        raise AssertionError("this test wants a network")
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def toy():
    return load_clip("toyworld", "toyworld")
