"""
tools/prepare.py keeps every frame, upright and in order, touches no original, and leaves no half file, however it ends.

For every codec, container, size, rotation and clock here; names that no shell would like; killed, interrupted, full
disks; a dataset of lists. Videos are ffmpeg's own test pictures, and where $MOTE_TEST_VIDEOS is set real ones; checked
against the source's frames as torchcodec reads them, and ffprobe. An ffmpeg that misbehaves is a script on the PATH.
"""
import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.footage import BY_NAME, right_frames, write
from torchcodec.decoders import VideoDecoder
from torchvision.transforms.v2 import functional as vision

from mote.data import Undecodable, decode
from mote.datasets.folders import read_class_folders
from mote.datasets.lists import read_split
from tools import prepare

FFMPEG = shutil.which("ffmpeg")
pytestmark = pytest.mark.skipif(not FFMPEG, reason="needs the ffmpeg program")
ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("MOTE_TEST_VIDEOS") or "-")
# Forty frames, each of its own brightness, in no simple order.
BLINKING = "nullsrc=s=48x32:r=20:d=2,geq=lum=mod(N*65\\,200)+25:cb=128:cr=128"
BRIGHTNESS = [(n * 65 % 200 + 25 - 16) * 255 / 219 for n in range(40)]           # of limited-range luma, in RGB


def video(path, picture="testsrc=s=64x48:r=12:d=1", *options):
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([FFMPEG, "-v", "error", "-y", "-f", "lavfi", "-i", picture, "-threads", "1", *options,
                    f"file:{path}"], check=True)
    return path


@pytest.fixture(scope="session")
def one(tmp_path_factory):
    """A video of 12 frames, to be copied."""
    return video(tmp_path_factory.mktemp("one") / "one.mp4")


@pytest.fixture
def src(tmp_path):
    return tmp_path / "src"


@pytest.fixture
def dst(tmp_path):
    return tmp_path / "dst"


def put(one, *paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one, path)


def run(src, dst, *flags):
    return prepare.main([str(src), str(dst), "--measure", "0", *flags])


def frames(path):
    return VideoDecoder(path)[:]


def count(path):
    done = subprocess.run(["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v", "-show_entries",
                           "stream=nb_read_frames", "-of", "csv=p=0", f"file:{path}"], capture_output=True, check=True)
    return int(done.stdout.strip(b",\n"))


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def fake_ffmpeg(tmp_path, monkeypatch, script):
    """In place of ffmpeg: a shell script where $FFMPEG is the real one, and `encoding` tells encoding from checks."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "ffmpeg").write_text(f'#!/bin/sh\nFFMPEG={FFMPEG}\nfor last; do :; done\nlast="${{last#file:}}"\n'
                                  f'encoding() {{ case "$last" in *.mp4) true;; *) false;; esac; }}\n{script}\n')
    (place / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


def refused(capsys, *argv):
    """The one line with which a mistake ends."""
    with pytest.raises(SystemExit) as raised:
        prepare.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert raised.value.code == 2 and not out
    assert len(err.splitlines()) == 1 and err.startswith("tools/prepare.py: error: ")
    return err


# --- the pictures --------------------------------------------------------------------------------------------------
SOURCES = {"h264.mp4": (), "long_gop.mkv": ("-g", "250", "-bf", "3"), "vp9.webm": ("-c:v", "libvpx-vp9"),
           "mpeg4_b_frames.avi": ("-c:v", "mpeg4", "-bf", "2", "-q:v", "2"), "mpeg2.ts": ("-c:v", "mpeg2video"),
           "UPPER.MPG": ("-r", "25", "-c:v", "mpeg2video", "-q:v", "2", "-vf", "setpts=N/25/TB"),
           "same_times.mkv": ("-c:v", "ffv1", "-vf", "settb=1/2000,setpts=N", "-fps_mode", "passthrough",
                              "-enc_time_base", "1:2000"),
           "uneven_times.mkv": ("-vf", "settb=1/1000,setpts=N*N+N*7", "-fps_mode", "passthrough"),
           "late_start.mkv": ("-output_ts_offset", "9")}


def test_every_frame_is_kept_in_order(src, dst):
    for name, options in SOURCES.items():
        video(src / name, BLINKING, *options)
    assert run(src, dst)["prepared"] == len(SOURCES), (dst / "failed.txt").read_text()
    for name in SOURCES:
        prepared = frames((dst / name).with_suffix(".mp4"))
        assert len(prepared) == count((dst / name).with_suffix(".mp4")) == 40, name
        found = prepared.float().mean(dim=(1, 2, 3))
        assert (found - torch.tensor(BRIGHTNESS)).abs().max() < 2.4, name        # neighbours in brightness: 5.8 apart


@pytest.fixture(scope="module")
def prepared_footage(tmp_path_factory):
    """A folder with all of support/footage.py (made, src) and its prepared copy (dst). -> folder, failed.txt"""
    place = tmp_path_factory.mktemp("footage")
    (place / "made").mkdir()
    for name in BY_NAME:
        made = write(name, place / "made")
        (place / "src" / name.replace(".", "_")).mkdir(parents=True)
        shutil.copy(made, place / "src" / name.replace(".", "_") / name)
    run(place / "src", place / "dst")
    failed = place / "dst" / "failed.txt"
    return place, failed.read_text() if failed.exists() else ""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BY_NAME if not name.endswith(".gif")])
def test_each_prepared_frame_is_nearest_to_its_own_source_frame(prepared_footage, name):
    """Among its twelve neighbours, of every container, codec and trouble; and there are as many."""
    place, failed = prepared_footage
    assert not failed
    right = right_frames(place / "made" / name).float()
    copy = decode(place / "dst" / name.replace(".", "_") / f"{Path(name).stem}.mp4", lambda n: torch.arange(n).numpy())
    assert copy.shape == right.shape
    distances = torch.cdist(copy.flatten(1).float(), right.flatten(1))
    for i in range(len(copy)):
        near = distances[i, max(0, i - 6):i + 7]
        assert distances[i, i] <= near.min() * 1.001, i


@pytest.mark.parametrize("sizes", [("64x48", "96x64"), ("96x64", "64x48")])
def test_a_size_that_changes_on_the_way_becomes_one(src, dst, sizes):
    """As WebRTC records: H.264 in .mkv, by way of two transport streams, one behind the other."""
    parts = b""
    for i, size in enumerate(sizes):
        picture = f"nullsrc=s={size}:r=25:d=1,geq=lum=20+4*(N+{25 * i}):cb=128:cr=128"
        parts += video(src.parent / f"{i}.ts", picture, "-c:v", "libx264", "-crf", "10", "-bf", "0").read_bytes()
    (src.parent / "both.ts").write_bytes(parts)
    src.mkdir()
    subprocess.run([FFMPEG, "-v", "error", "-i", src.parent / "both.ts", "-c", "copy", src / "a.mkv"], check=True)
    done = run(src, dst)
    assert done["prepared"] == 1, (dst / "failed.txt").read_text()
    prepared = frames(dst / "a.mp4")
    w, h = map(int, sizes[0].split("x"))
    assert prepared.shape == (50, 3, h, w)
    assert (prepared.float().mean(dim=(1, 2, 3)).diff() > 3).all()               # 4 of luma are 4.7 of RGB


def test_a_copy_whose_frames_were_moved_is_named():
    """Six frames either way; not where nothing moves, whatever the noise."""
    numbers = np.random.default_rng(0)
    source = numbers.integers(0, 256, (40, 1024)).astype(np.uint8)
    noise = numbers.integers(0, 2, source.shape).astype(np.uint8)
    assert prepare.misplaced(source, source // 2 * 2 + noise) == ""
    swapped = source.copy()
    swapped[[10, 11]] = swapped[[11, 10]]
    assert prepare.misplaced(source, swapped) == "frame 10 of the copy is frame 11 of the source"
    late = np.concatenate([source[:1].repeat(6, axis=0), source[:-6]])
    assert prepare.misplaced(source, late) == "frame 1 of the copy is frame 0 of the source"
    still = source[:1].repeat(40, axis=0)
    assert prepare.misplaced(still, still // 2 * 2 + noise) == ""
    assert prepare.misplaced(source[:1], source[:1]) == ""


LOOKS = {"plain.mp4": (), "hd.mp4": ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
         "full_range.mp4": ("-pix_fmt", "yuvj420p"), "ten_bits.mkv": ("-pix_fmt", "yuv420p10le"),
         "fine_colour.mkv": ("-pix_fmt", "yuv444p")}


def test_pictures_look_like_the_originals(src, dst):
    for name, options in LOOKS.items():
        video(src / name, "testsrc2=s=320x192:r=8:d=2", "-crf", "10", *options)
    run(src, dst, "--short-side", "96", "--crf", "10")
    for name in LOOKS:
        before, after = (frames(path) for path in (src / name, (dst / name).with_suffix(".mp4")))
        assert after.shape == (16, 3, 96, 160)
        difference = (vision.resize(before, [96, 160], antialias=True).float() - after.float()).abs()
        assert difference.mean() < 6, name
        assert difference.mean(dim=(1, 2, 3)).max() < 8, name                    # a picture too early or late: above 10


def test_any_frame_alone_is_what_it_is_in_sequence(src, dst):
    video(src / "a.mp4", "testsrc2=s=96x64:r=25:d=2")
    run(src, dst)
    path = dst / "a.mp4"
    sequence = frames(path)
    for i in torch.randperm(50, generator=torch.Generator().manual_seed(0)).tolist():
        assert torch.equal(VideoDecoder(path).get_frames_at([i]).data[0], sequence[i]), i
    assert torch.equal(decode(path, lambda n: torch.arange(n).numpy()), sequence)


@settings(max_examples=4)
@given(w=st.integers(8, 90), h=st.integers(8, 90), short=st.integers(5, 30).map(lambda n: 2 * n))
@example(w=90, h=61, short=60)
@example(w=53, h=31, short=60)
@example(w=31, h=54, short=60)
@example(w=8, h=90, short=10)
def test_the_short_side_is_as_asked_even_and_never_enlarged(tmp_path_factory, w, h, short):
    folder = tmp_path_factory.mktemp("size")
    video(folder / "src" / "a.mkv", f"testsrc=s={w}x{h}:r=5:d=0.4", "-c:v", "ffv1", "-pix_fmt", "bgr0")
    run(folder / "src", folder / "dst", "--short-side", str(short))
    height, width = frames(folder / "dst" / "a.mp4").shape[-2:]
    assert height % 2 == width % 2 == 0 and width <= w and height <= h
    assert min(width, height) == min(short, min(w, h) // 2 * 2)
    factor = min(1, short / min(w, h))
    assert abs(width - w * factor) <= 1 and abs(height - h * factor) <= 1        # so is the aspect, to a pixel


def test_a_rotated_video_comes_out_upright(src, dst):
    flat = video(src / "a.mp4", "color=black:s=64x48:r=5:d=1,drawbox=0:0:32:24:white:fill").read_bytes()
    matrix = flat.index(b"tkhd") + 44                            # of the track header; here: turn clockwise by 90
    turned = flat[:matrix] + struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30) + flat[matrix + 36:]
    (src / "a.mp4").write_bytes(turned)
    run(src, dst)
    made = (dst / "a.mp4").read_bytes()
    assert made[made.index(b"tkhd") + 44:][:36] == flat[matrix:matrix + 36]      # in its pixels, not by a flag again
    picture = frames(dst / "a.mp4")[0].float().mean(dim=0)
    assert picture.shape == (64, 48)
    assert picture[:28, 28:].mean() > 240 and picture[:, :20].mean() < 15 and picture[36:].mean() < 15
    assert torch.allclose(picture, frames(src / "a.mp4")[0].float().mean(dim=0), atol=12)        # and not turned twice


@pytest.mark.parametrize("flags, gop", [((), 12), (("--gop", "5"), 5)])
def test_a_keyframe_comes_every_gop_and_decoding_is_cheap(src, dst, flags, gop):
    video(src / "a.mp4", "testsrc=s=64x48:r=10:d=5", "-g", "250")
    run(src, dst, *flags)
    packets = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "packet=flags", "-of",
                              "csv=p=0", dst / "a.mp4"], capture_output=True, check=True, text=True).stdout.split()
    keys = [i for i, flags in enumerate(packets) if flags.startswith("K")] + [50]
    assert max(b - a for a, b in zip(keys, keys[1:])) == gop
    content = (dst / "a.mp4").read_bytes()                       # x264 writes its settings into the file
    assert b"cabac=0" in content and b"deblock=0" in content and b"crf=23" in content        # -tune fastdecode


def test_only_the_pictures_are_kept(src, dst):
    (src / "x").mkdir(parents=True)
    chapters = src / "x" / "chapters.ini"
    chapters.write_text(";FFMETADATA1\ntitle=t\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=one\n")
    video(src / "a.mp4", "testsrc=s=64x48:r=10:d=1[out0];sine=d=1[out1]", "-i", str(chapters), "-map_metadata", "1",
          "-map", "0")
    run(src, dst)
    streams = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,pix_fmt:format_tags=title",
                              "-of", "csv=p=0", dst / "a.mp4"], capture_output=True, check=True, text=True).stdout
    assert streams.split() == ["h264,yuv420p"]


def test_a_header_that_lies_is_not_believed(src, dst, capsys):
    """The first half of a file whose header still counts all frames: prepared as far as it decodes, with a warning."""
    whole = video(src / "half.mp4", "testsrc2=s=96x64:r=20:d=2", "-movflags", "+faststart", "-bf", "0").read_bytes()
    (src / "half.mp4").write_bytes(whole[:len(whole) * 6 // 10])
    assert run(src, dst)["prepared"] == 1
    kept = len(frames(dst / "half.mp4"))
    assert 5 < kept < 40 and re.fullmatch(rf"warning: half.mp4: ffmpeg complains, but keeps {kept} frames, .+\n",
                                          capsys.readouterr().err)


# --- files and folders ---------------------------------------------------------------------------------------------
ODD = ("-i.mp4", "--help.mkv", "a b.mp4", "$(touch x).mp4", "%03d.mp4", "q'uo\"te;&|.mp4", "é 视频 🎞.mp4", "http:x.mp4",
       "concat:a|b.mp4", "new\nline.mp4", "v_Mr._Bean.c01.mp4", "*?[a].mp4", "x" * 251 + ".mp4",
       os.fsdecode(b"not utf-8 \xff.mp4"))


def test_odd_names_are_names(one, src, dst):
    put(one, *(src / f"-odd {i % 3}" / name for i, name in enumerate(ODD)))
    assert run(src, dst)["prepared"] == len(ODD)
    targets = [f"-odd {i % 3}/{Path(name).stem}.mp4" for i, name in enumerate(ODD)]
    assert names(dst) == sorted([*targets, "prepare.json"])


@pytest.mark.parametrize("name", ["-src", "http:src", "concat:src"])
def test_relative_folders_with_odd_names_are_folders(one, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    put(one, Path(name) / "a.mp4")
    assert prepare.main(["--measure", "0", "--", name, f"{name}-dst"])["prepared"] == 1
    assert names(Path(f"{name}-dst")) == ["a.mp4", "prepare.json"]


def test_links_are_followed_and_hidden_files_are_not(one, tmp_path, src, dst):
    put(one, tmp_path / "elsewhere" / "x.mp4", src / "a.mp4", src / ".hidden.mp4", src / ".cache" / "y.mp4",
        src / "c" / "._a.mp4")
    (src / "b.webm").symlink_to(tmp_path / "elsewhere" / "x.mp4")
    for name in ("train", "val"):                                # twice the same folder: both are there
        (src / name).symlink_to(tmp_path / "elsewhere")
    (src / "c" / "up").symlink_to(src)                           # round and round
    dst.mkdir()
    (src / "there").symlink_to(dst)                              # our own output is no source
    assert run(src, dst)["prepared"] == 4
    assert names(dst) == ["a.mp4", "b.mp4", "prepare.json", "train/x.mp4", "val/x.mp4"]
    assert run(src, dst)["already there"] == 4


def listing(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_originals_are_not_touched(one, src, dst):
    put(one, src / "a.mp4", src / "c" / "b.avi", src / "train.txt")
    (src / "junk.mp4").write_bytes(b"junk")
    before = listing(src)
    run(src, dst)
    assert listing(src) == before and len(before) == 4


def test_a_second_run_does_not_redo(one, src, dst, capsys):
    put(one, src / "a.mp4", src / "c" / "b.avi")
    run(src, dst)
    before = listing(dst)
    put(one, src / "new.mp4")
    capsys.readouterr()
    done = run(src, dst, "--jobs", "3")
    assert (done["prepared"], done["already there"], done["failed"], done["measured"]) == (1, 2, 0, 0)
    assert {path: content for path, content in listing(dst).items() if path.name != "new.mp4"} == before
    assert capsys.readouterr().out.startswith("1 prepared, 2 already there, 0 failed \n3 videos: ")


def test_several_files_are_encoded_at_once(one, tmp_path, src, dst, monkeypatch):
    put(one, *(src / f"{i}.mp4" for i in range(3)))
    fake_ffmpeg(tmp_path, monkeypatch, f'''if encoding; then
        mkdir "{tmp_path}/at-work-$$"; for wait in $(seq 100); do
        [ "$(ls -d "{tmp_path}"/at-work-* | wc -l)" = 3 ] && exec $FFMPEG "$@"; sleep 0.1; done; exit 1
        else exec $FFMPEG "$@"; fi''')                           # each waits for the other two
    assert run(src, dst, "--jobs", "3")["prepared"] == 3


# --- what goes wrong -----------------------------------------------------------------------------------------------
def test_failures_are_listed_and_the_others_done(one, src, dst):
    put(one, src / "a.mp4", src / "z.mp4")
    for name, content in {"junk.mp4": b"junk", "empty.avi": b"", "two\nlines.mkv": b"?"}.items():
        (src / name).write_bytes(content)
    (src / "c").mkdir()
    (src / "c" / "broken.mp4").symlink_to("nowhere")
    subprocess.run([FFMPEG, "-v", "error", "-f", "lavfi", "-i", "sine=d=1", src / "sound.mp4"], check=True)
    done = subprocess.run([sys.executable, ROOT / "tools/prepare.py", src, dst, "--measure", "0"], capture_output=True,
                          text=True)
    assert done.returncode == 1 and not done.stderr
    assert done.stdout.startswith(f"2 prepared, 0 already there, 5 failed ({dst / 'failed.txt'})\n2 videos: ")
    rows = dict(line.split("\t") for line in (dst / "failed.txt").read_text().splitlines())
    assert sorted(rows) == ["c/broken.mp4", "empty.avi", "junk.mp4", "sound.mp4", "two\\nlines.mkv"]
    assert "No such file" in rows["c/broken.mp4"] and "Invalid data" in rows["junk.mp4"]
    assert "matches no streams" in rows["sound.mp4"]
    assert names(dst) == ["a.mp4", "failed.txt", "prepare.json", "z.mp4"]
    for name in ("junk.mp4", "empty.avi", "two\nlines.mkv", "c/broken.mp4", "sound.mp4"):      # mended, they are done
        (src / name).unlink()
        put(one, src / name)
    assert run(src, dst)["prepared"] == 5 and not (dst / "failed.txt").exists()


SPOILT = {"cut short": ('if encoding; then $FFMPEG "$@" && truncate -s 3000 "$last"; else exec $FFMPEG "$@"; fi', ""),
          "frames dropped": ('for a; do shift; case "$a" in scale=*) a="$a,select=mod(n\\\\,2)";; esac; '
                             'set -- "$@" "$a"; done; exec $FFMPEG "$@"', "12 frames decoded, 6 written"),
          "frames moved": ('for a; do shift; case "$a" in scale=*) a="reverse,$a";; esac; set -- "$@" "$a"; done; '
                           'exec $FFMPEG "$@"', r"frame \d+ of the copy is frame \d+ of the source"),
          "no frames": ('echo "0 frames decoded" >&2; if encoding; then : > "$last"; fi', "0 frames decoded, 0 wr"),
          "killed": ('if encoding; then $FFMPEG "$@"; kill -9 $$; fi; exec $FFMPEG "$@"', "ended with status -9"),
          "stopped": ('if encoding; then $FFMPEG "$@"; exit 255; fi; exec $FFMPEG "$@"', "ended with status 255")}


@pytest.mark.parametrize("script, why", SPOILT.values(), ids=SPOILT)
def test_a_file_that_is_not_whole_never_gets_its_name(one, tmp_path, src, dst, monkeypatch, script, why):
    put(one, src / "a.mp4")
    fake_ffmpeg(tmp_path, monkeypatch, 'case "$*" in *-encoders*|*long*) exec $FFMPEG "$@";; esac\n' + script)
    assert run(src, dst)["failed"] == 1
    assert names(dst) == ["failed.txt", "prepare.json"]
    assert re.fullmatch(rf"a\.mp4\t.*{why}.*\n", (dst / "failed.txt").read_text())


def start(src, dst):
    """With SIGINT as a terminal gives it: a job in a script's background inherits that it is ignored."""
    return subprocess.Popen([sys.executable, ROOT / "tools/prepare.py", src, dst, "--measure", "0", "--jobs", "1"],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_leaves_whole_files_and_goes_on(one, tmp_path, src, dst, monkeypatch, how):
    put(one, *(src / f"{name}.mp4" for name in "abc"))
    with monkeypatch.context() as patch:                         # a.mp4 is done; of the next all bytes, but no name
        fake_ffmpeg(tmp_path, patch, f'''encoding || exec $FFMPEG "$@"; $FFMPEG "$@" || exit 1
            mkdir "{tmp_path}/first" 2>/dev/null && exit; mkdir "{tmp_path}/second"; exec sleep 60''')
        process = start(src, dst)
    wait_for((tmp_path / "second").exists)
    os.killpg(process.pid, how)
    out, err = process.communicate(timeout=60)
    left = [name for name in names(dst) if name.startswith(".prepare-")]
    assert [name for name in names(dst) if name.endswith(".mp4") and name not in left] == ["a.mp4"]
    assert count(dst / "a.mp4") == 12 and not out
    if how == signal.SIGINT:
        assert not left and err == "tools/prepare.py: stopped; the same command goes on from here\n"
    else:
        assert len(left) == 1 and process.returncode == -how
    again = run(src, dst)
    assert (again["prepared"], again["already there"]) == (2, 1)
    assert names(dst) == ["a.mp4", "b.mp4", "c.mp4", "prepare.json"]


@pytest.mark.parametrize("status", [1, 0])                       # old versions of ffmpeg end with 0 nevertheless
@pytest.mark.parametrize("reason", ["No space left on device", "Disk quota exceeded"])
def test_a_full_disk_ends_the_run_with_one_line(one, tmp_path, src, dst, monkeypatch, capsys, status, reason):
    put(one, *(src / f"{name}.mp4" for name in "abcdefghi"))
    fake_ffmpeg(tmp_path, monkeypatch, f'''encoding || exec $FFMPEG "$@"
        echo run >> "{tmp_path}/runs"; $FFMPEG "$@"
        echo "[mp4 @ 0x1] [error] av_interleaved_write_frame(): {reason}" >&2
        echo "[error] Conversion failed!" >&2; exit {status}''')
    line = refused(capsys, src, dst, "--measure", "0", "--jobs", "1")
    assert reason in line and str(dst) in line
    assert names(dst) == ["prepare.json"]
    assert len((tmp_path / "runs").read_text().split()) < 9      # no try with each of the others


def test_a_full_disk_under_a_list_leaves_no_half_list(one, src, dst, monkeypatch, capsys):
    put(one, src / "a.mp4")
    (src / "train.txt").write_text("a.mp4 0\n")

    def full(source, target):
        Path(target).write_text("a.mp")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(shutil, "copy2", full)
    assert "No space left" in refused(capsys, src, dst)
    assert "train.txt" not in names(dst) and "a.mp4" not in names(dst)


def test_an_ffmpeg_before_5_1_is_asked_in_its_own_words(one, tmp_path, src, dst, monkeypatch):
    put(one, src / "a.mp4")
    fake_ffmpeg(tmp_path, monkeypatch, '''case "$*" in *long*) $FFMPEG "$@" | grep -v fps_mode;; *-fps_mode*) exit 1;;
        *) exec $FFMPEG "$@";; esac''')
    assert run(src, dst)["prepared"] == 1 and count(dst / "a.mp4") == 12


# --- refusals ------------------------------------------------------------------------------------------------------
def test_one_folder_inside_the_other_is_refused(one, tmp_path, src, capsys):
    put(one, src / "c" / "a.mp4")
    (tmp_path / "link").symlink_to(src)
    before = listing(tmp_path)
    link = tmp_path / "link"
    for pair in ((src, src), (src, src / "out"), (src / "c", src), (src, link), (src, src / "c" / ".." / "x"),
                 (src, link / "out"), (link / "c", src), (src, tmp_path)):
        line = refused(capsys, *pair)
        assert str(pair[0]) in line and str(pair[1]) in line and "inside" in line
    assert listing(tmp_path) == before
    assert run(src, tmp_path / "src2")["prepared"] == 1          # a longer name is no inside


MISTAKES = {"no folder at": ("missing", "dst"), "no videos below it": ("lists", "dst"), "required: DST": ("src",),
            "--short-side must be 2 to 8192, and even, got 255": ("src", "dst", "--short-side", "255"),
            "--short-side must be 2": ("src", "dst", "--short-side", "0"),
            "--gop must be": ("src", "dst", "--gop", "0"), "--crf must be": ("src", "dst", "--crf", "52"),
            "--jobs must be": ("src", "dst", "--jobs", "0"), "'two'": ("src", "dst", "--jobs", "two"),
            "--measure must be": ("src", "dst", "--measure", "-1"),
            "--clips-per-second must be": ("src", "dst", "--clips-per-second", "0")}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(one, tmp_path, src, dst, monkeypatch, capsys, what):
    put(one, src / "a.mp4", tmp_path / "lists" / "train.txt")
    monkeypatch.chdir(tmp_path)
    assert what in refused(capsys, *MISTAKES[what])
    assert not dst.exists()


def test_two_sources_of_one_target_are_both_named(one, src, dst, capsys):
    put(one, src / "c" / "a.avi", src / "c" / "a.webm", src / "c" / "b.mp4", src / "d" / "a.avi")
    line = refused(capsys, src, dst)
    assert str(src / "c" / "a.avi") in line and str(src / "c" / "a.webm") in line and not dst.exists()


def test_without_ffmpeg_one_line_says_so(one, tmp_path, src, dst, monkeypatch, capsys):
    put(one, src / "a.mp4")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no ffmpeg program" in refused(capsys, src, dst) and not dst.exists()


def test_without_libx264_one_line_says_so(one, tmp_path, src, dst, monkeypatch, capsys):
    put(one, src / "a.mp4")
    fake_ffmpeg(tmp_path, monkeypatch, '$FFMPEG "$@" | grep -v "libx264 "')
    assert "without libx264" in refused(capsys, src, dst) and not dst.exists()


def test_other_settings_do_not_go_into_the_same_folder(one, src, dst, capsys):
    put(one, src / "a.mp4")
    run(src, dst, "--short-side", "32")
    capsys.readouterr()
    before = listing(dst)
    for flags in ((), ("--short-side", "32", "--gop", "8"), ("--short-side", "32", "--crf", "30")):
        assert '"short_side": 32' in refused(capsys, src, dst, *flags)
    assert listing(dst) == before
    assert run(src, dst, "--short-side", "32")["already there"] == 1


def test_two_runs_do_not_share_a_folder(one, src, dst, capsys):
    put(one, src / "a.mp4")
    run(src, dst)
    capsys.readouterr()
    (dst / ".prepare-other.mp4").write_bytes(b"being written")
    with open(dst / "prepare.json") as file:
        fcntl.flock(file, fcntl.LOCK_SH)                         # the weaker kind: ours must be the stronger
        assert "another run" in refused(capsys, src, dst)
    assert (dst / ".prepare-other.mp4").exists()
    assert run(src, dst)["already there"] == 1 and not (dst / ".prepare-other.mp4").exists()


def test_a_target_folder_that_leads_to_the_originals_is_refused(one, src, dst, capsys):
    put(one, src / "c" / "x" / "a.avi")
    dst.mkdir()
    (dst / "c").symlink_to(src / "c")
    assert "is a link" in refused(capsys, src, dst)
    assert names(src) == ["c/x/a.avi"]


# --- the dataset ---------------------------------------------------------------------------------------------------
def test_a_dataset_of_lists_is_one_again(one, src, dst, capsys):
    put(one, *(src / "v" / f"{name}.avi" for name in "abc"), src / "v" / "deep" / "d.webm")
    texts = {"train.txt": "v/a.avi 12 0\nv/b.avi 12 1\n", "val.txt": "v/c.avi 12 1\nv/deep/d.webm 12 0\n",
             "classes.csv": "id,name\n0,run\n1,walk\n", "labels/other.JSON": "{}", "v/deep/no.txt": "-",
             ".hidden.txt": "-", ".git/config.txt": "-", "notes.md": "-", "failed.txt": "old\n", "prepare.json": "?"}
    for name, text in texts.items():
        (src / name).parent.mkdir(exist_ok=True)
        (src / name).write_text(text)
        os.utime(src / name, (4e9, 4e9))                         # newer than anything in DST
    run(src, dst)
    assert '"short_side": 256' in (dst / "prepare.json").read_text()
    assert names(dst) == ["classes.csv", "labels/other.JSON", "prepare.json", "train.txt", "v/a.mp4", "v/b.mp4",
                          "v/c.mp4", "v/deep/d.mp4", "val.txt"]
    for split, wanted in (("train", [("v/a.mp4", 0), ("v/b.mp4", 1)]), ("val", [("v/c.mp4", 1), ("v/deep/d.mp4", 0)])):
        videos, classes = read_split(dst, split)
        assert videos == [(str(dst / path), label) for path, label in wanted] and classes == ["run", "walk"]
        assert all(len(decode(path, lambda n: torch.arange(n).numpy())) == 12 for path, _ in videos)
    assert not capsys.readouterr().err


def test_a_folder_per_class_is_one_again(one, src, dst):
    put(one, *(src / c / f"{i}.mkv" for c in ("run", "walk") for i in range(2)))
    run(src, dst)
    videos, classes = read_class_folders(dst)
    assert classes == ["run", "walk"] and [label for _, label in videos] == [0, 0, 1, 1]
    assert {split: len(read_split(dst, split)[0]) for split in ("train", "val")} == {"train": 2, "val": 2}


def test_a_newer_list_is_copied_again_and_an_edited_one_stays(one, src, dst):
    put(one, src / "a.mp4")
    for name in ("train.txt", "val.txt"):
        (src / name).write_text("a.mp4 0\n")
        os.utime(src / name, (1000, 1000))
    run(src, dst)
    assert (dst / "train.txt").stat().st_mtime == 1000
    (src / "train.txt").write_text("a.mp4 1\n")
    (dst / "val.txt").write_text("a.mp4 2\n")
    run(src, dst)
    assert (dst / "train.txt").read_text() == "a.mp4 1\n" and (dst / "val.txt").read_text() == "a.mp4 2\n"


def test_a_list_of_absolute_paths_is_warned_of(one, src, dst, capsys):
    put(one, src / "a.mp4")
    (src / "train.txt").write_text(f"{src / 'a.mp4'} 0\n")
    (src / "val.txt").write_text("c/a.mp4 0\n")
    run(src, dst)
    assert capsys.readouterr().err == \
        f"warning: {dst / 'train.txt'} holds absolute paths, which still lead to the originals\n"


# --- the measurement -----------------------------------------------------------------------------------------------
def test_what_is_printed_follows_from_what_was_measured(one, src, dst, capsys, monkeypatch):
    put(one, *(src / f"{i}.mp4" for i in range(5)))
    asked = []
    monkeypatch.setattr(prepare, "measure", lambda pairs: asked.append(pairs) or (3, [10.0, 47.0]))
    done = prepare.main([str(src), str(dst), "--measure", "3", "--clips-per-second", "141"])
    assert done["measured"] == 3 and done["clips_per_second"] == [10.0, 47.0]
    before, after = (sum(path.stat().st_size for path in folder.glob("*.mp4")) for folder in (src, dst))
    assert done["bytes"] == [before, after]
    assert capsys.readouterr().out == (
        f"5 prepared, 0 already there, 0 failed \n5 videos: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after\n"
        "decoding 8 frames, one core, 3 videos: 10.0 clips/s before, 47.0 after, 4.70 times as fast\n"
        "141 clips/s need 15 cores unprepared, 3 prepared\n")
    assert len(set(asked[0])) == 3
    assert all(a.parent == src and b == dst / a.name for a, b in asked[0])


def test_rates_are_those_of_the_clips_that_training_takes(monkeypatch):
    """A source takes 0.4 s a clip and a prepared file 0.1 s, ten times as long at first; one in three is broken."""
    clock, order = [0.0], []

    class Clips:
        def __init__(self, videos, T, size, seed):
            self.path, self.settings = videos[0][0], (T, size)

        def __getitem__(self, key):
            assert self.settings == (8, 224)
            order.append((self.path, key))
            if "broken" in self.path and key[0] == 1:
                raise Undecodable(self.path)
            clock[0] += (0.4 if "src" in self.path else 0.1) * (10 if key[0] == 0 else 1)
            return {"failed": [0] if "replaced" in self.path else []}
    monkeypatch.setattr(prepare, "TrainingClips", Clips)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    pairs = [(Path("src", name), Path("dst", name)) for name in ("a", "broken", "b", "replaced", "c")]
    number, rates = prepare.measure(pairs)
    assert number == 3 and rates == pytest.approx([2.5, 10])
    assert order[:6] == [("src/a", (0, 0)), ("dst/a", (0, 0)), ("src/a", (1, 0)), ("dst/a", (1, 0)), ("src/a", (2, 0)),
                         ("dst/a", (2, 0))]                      # in turns, and the same frames of both


def test_the_decoding_of_real_files_is_measured(src, dst, capsys):
    video(src / "a.mp4", "testsrc2=s=480x360:r=25:d=4", "-g", "250")
    (src / "junk.mp4").write_bytes(b"junk")
    done = prepare.main([str(src), str(dst), "--short-side", "64"])
    assert done["measured"] == 1 and done["failed"] == 1
    before, after = done["clips_per_second"]
    assert after > 1.3 * before > 0
    assert re.search(r"1 videos: [\d.]+ clips/s before, [\d.]+ after, [\d.]+ times as fast\n144 clips/s need \d+ cores "
                     r"unprepared, \d+ prepared\n$", capsys.readouterr().out)


def test_where_nothing_decodes_nothing_is_claimed(one, src, dst, capsys):
    put(one, src / "a.mp4")
    run(src, dst)
    (src / "a.mp4").write_bytes(b"junk by now")
    assert prepare.main([str(src), str(dst)])["measured"] == 0
    out = capsys.readouterr().out
    assert out.endswith("decoding not measured: no video decodes both before and after\n") and "cores" not in out


# --- real files ----------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="$MOTE_TEST_VIDEOS names no folder of real videos")
def test_real_videos_keep_their_frames(dst, capsys):
    assert run(REAL, dst)["prepared"] == 9
    assert re.fullmatch(r"warning: corrupted.mp4: .* 49 frames, .*\n", capsys.readouterr().err)
    for path in (path for path in REAL.iterdir() if path.suffix in (".mp4", ".mkv", ".avi", ".mov")):
        prepared = frames(dst / f"{path.stem}.mp4")
        n, _, h, w = prepared.shape
        assert min(h, w) <= 256 and h % 2 == w % 2 == 0
        # By ffmpeg in sequence: torchcodec itself may be one frame off where it seeks in an MPEG-4 .avi.
        raw = subprocess.run([FFMPEG, "-v", "quiet", "-i", path, "-vf", f"scale={w}:{h}", "-vsync", "passthrough", "-f",
                              "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
        before = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, h, w, 3).movedim(-1, 1)
        assert len(before) == n and (path.stem == "corrupted" or n == len(VideoDecoder(path))), path.name
        difference = torch.stack([(a.float() - b.float()).abs().mean() for a, b in zip(before, prepared)])
        assert difference.max() < 4, path.name
