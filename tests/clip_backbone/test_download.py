"""
Weights by open_clip's tag: the file that is cached, without a network; else a download, or one line within seconds.

For weights on Hugging Face's hub and at a plain URL. The only server is one of this machine.
"""
import http.server
import socket
import threading
import time

import huggingface_hub
import open_clip
import pytest

from mote.clip_backbone import load_clip
from mote.files.towers import hub
from mote.files.towers.hub import why_no_answer
from mote.files.weights import download

HUB = {"hf_hub": "timm/some.openai/"}
KINDS = {"hub": (HUB, "open_clip_model.safetensors or open_clip_pytorch_model.bin of timm/some.openai from "),
         "hub, named": ({"hf_hub": "a/b/pytorch_model.bin"}, "pytorch_model.safetensors or pytorch_model.bin of a/b "),
         "url": ({"url": "{server}/models/5806/ViT-B-16.pt"}, "ViT-B-16.pt of {server}/models/5806 from ")}


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No cache of a user is read, no proxy asked, and nothing downloaded: only this machine is there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: pytest.fail("a download was tried"))


def hub_at(monkeypatch, server: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        server + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def silent(monkeypatch):
    """The address of a server that takes connections and never answers, as behind a cluster's firewall."""
    monkeypatch.setattr(hub, "ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = f"http://127.0.0.1:{listening.getsockname()[1]}"
        hub_at(monkeypatch, server)
        yield server


@pytest.mark.parametrize("tag, named", KINDS.values(), ids=KINDS)
def test_without_a_network_one_line_within_seconds_names_the_file_and_its_repository(silent, tag, named):
    tag = {key: text.format(server=silent) for key, text in tag.items()}
    started = time.monotonic()
    with pytest.raises(OSError, match=r"--pretrained openai: .*give --pretrained FILE$") as raised:
        download("openai", tag)
    assert time.monotonic() - started < 2 and named.format(server=silent) in str(raised.value)


def test_the_default_weights_are_named(silent):
    with pytest.raises(OSError, match="open_clip_model.safetensors .*of timm/vit_base_patch16_clip_224.openai"):
        load_clip()


def test_looking_up_a_name_for_ever_counts_as_no_network(monkeypatch, silent):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    started = time.monotonic()
    try:
        assert "no answer" in why_no_answer("https://huggingface.co/a/b") and time.monotonic() - started < 2
    finally:
        over.set()


def test_a_refused_connection_is_named():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "refused" in why_no_answer(f"http://127.0.0.1:{port}/file")


# --- with a network -------------------------------------------------------------------------------
class NotFound(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """The address of a server that answers everything with 404."""
    with http.server.HTTPServer(("127.0.0.1", 0), NotFound) as answering:
        address = f"http://127.0.0.1:{answering.server_port}"
        hub_at(monkeypatch, address)
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        yield address
        answering.shutdown()


def test_where_a_server_answers_open_clip_downloads(monkeypatch, server, tmp_path):
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: f"{tmp_path}/{len(tag)}")
    assert why_no_answer(f"{server}/file") == "" and download("openai", {"url": f"{server}/w.pt"}) == tmp_path / "1"


def test_a_download_that_fails_is_one_line_too(monkeypatch, server):
    def fails(tag):
        raise ConnectionError("Max retries exceeded\nwith url")
    monkeypatch.setattr(open_clip, "download_pretrained", fails)
    with pytest.raises(OSError, match="w.pt of .*ConnectionError: Max retries exceeded with url.*FILE$") as raised:
        download("openai", {"url": f"{server}/w.pt"})
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_the_hub_does_not_have_is_named_in_one_line(server):
    with pytest.raises(OSError, match="open_clip_model.safetensors or .*of timm/some.openai.*FILE$") as raised:
        download("openai", HUB)
    assert len(str(raised.value).splitlines()) == 1


class OutOfOrder(NotFound):
    def do_HEAD(self):
        self.send_error(503)


@pytest.mark.parametrize("handler, reason", [(NotFound, ""), (OutOfOrder, "the server answers 503")])
def test_a_server_that_is_out_of_order_is_no_answer_and_a_missing_file_is_one(handler, reason):
    """The hub's client would try a 503 again and again, for half a minute a file."""
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        assert why_no_answer(f"http://127.0.0.1:{answering.server_port}/file") == reason
        answering.shutdown()


# --- what is cached -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_file_in_the_hubs_cache_is_taken_without_asking_anybody(monkeypatch, tmp_path, name):
    monkeypatch.setattr(hub, "why_no_answer", lambda url: pytest.fail("a server was asked"))
    folder = tmp_path / "models--timm--some.openai"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    (folder / "snapshots" / "c0ffee").mkdir(parents=True)
    (folder / "snapshots" / "c0ffee" / name).touch()
    assert download("openai", HUB) == folder / "snapshots" / "c0ffee" / name


def test_a_file_from_a_url_in_open_clips_cache_is_left_to_open_clip_without_asking_anybody(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "why_no_answer", lambda url: pytest.fail("a server was asked"))
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: tag["url"])
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    (tmp_path / ".cache" / "clip" / "ViT-B-16.pt").touch()
    assert str(download("openai", {"url": "models/ViT-B-16.pt"})) == "models/ViT-B-16.pt"


def test_a_hub_that_was_told_to_be_offline_is_the_reason_that_is_given(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.why_no_answer("https://huggingface.co/x") == "HF_HUB_OFFLINE is set, and it is not in the cache"
