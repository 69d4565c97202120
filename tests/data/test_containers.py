"""
From every container and codec that ffmpeg writes here, any draw of frames is the frames asked for, or a refusal.

For the files of support/footage.py, whatever their names, against ffmpeg's decoding in order; and for damaged headers
(hypothesis). docs/data.md has the table of these files. How much is decoded is counted.
"""
import mmap
import random
import shutil
import struct
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.footage import (
    BY_NAME,
    FOOTAGE,
    PATTERN,
    TURNS,
    right_frames,
    set_matrix,
    strayed,
    write,
    wrong,
)
from torchcodec.decoders import Demuxer, VideoDecoder

from mote.data import Undecodable, decode, segment_indices
from mote.files import decoding
from mote.files.containers import UNCOUNTED, avi, boxes, examine, fragments, mkv, mp4, reordering
from tools.checks import videos

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg program to write these files with")
SOUND = "sine=frequency=440:duration=1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("footage")


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, capture_output=True)
    return arguments[-1]


# --- any draw of frames -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", BY_NAME)
def test_any_draw_of_frames_is_the_frames_asked_for(folder, name):
    path = write(name, folder)
    n = len(right_frames(path))
    numbers = random.Random(name)
    draws = [segment_indices(n, 8)[0].tolist(), list(range(n)), *([i] for i in range(0, n, 3))]
    draws += [sorted(numbers.sample(range(n), numbers.randint(1, 8))) for _ in range(6)]
    for indices in draws:
        assert wrong(path, indices) == [], f"{indices}: (asked for, given)"


@pytest.mark.parametrize("name", BY_NAME)
def test_the_number_of_frames_is_ffmpegs(folder, name):
    counts = []
    decode(write(name, folder), lambda n: counts.append(n) or np.array([0]))
    assert counts == [len(right_frames(write(name, folder)))]


def test_the_usual_containers_and_codecs_are_tried_in_at_least_20_combinations():
    """Never refused: these containers and codecs, whatever else is tried. tests/docs holds the table of the page."""
    combinations = {(footage.name.rpartition(".")[2], footage.codec, footage.trouble) for footage in FOOTAGE}
    assert len(combinations) >= 20
    found = {(ending, codec) for ending, codec, _ in combinations}
    assert {("mp4", "H.264"), ("mov", "H.264"), ("mkv", "H.264"), ("mp4", "HEVC"), ("mkv", "HEVC"), ("webm", "VP9"),
            ("mp4", "AV1"), ("mkv", "AV1"), ("mp4", "MPEG-4"), ("avi", "MPEG-4"), ("avi", "MJPEG")} <= found


# --- the bytes decide, not the name -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name, other", [("mpeg4_b_frames.avi", ".mp4"), ("h264.ts", ".mp4"), ("b_frames.mp4", ".ts"),
                                         ("b_frames.mp4", ".avi"), ("mpeg2.vob", ".mkv"), ("b_frames.mkv", ".avi"),
                                         ("h264.m2ts", ".mov"), ("raw.h264", ".mp4"), ("mjpeg.avi", "")])
def test_the_name_of_a_file_changes_nothing(folder, tmp_path, name, other):
    path = write(name, folder)
    renamed = tmp_path / f"x{other}"
    shutil.copy(path, renamed)
    assert examine(renamed) == examine(path)
    assert torch.equal(decode(renamed, lambda n: segment_indices(n, 8)), decode(path, lambda n: segment_indices(n, 8)))


CONTAINERS = {"b_frames.mp4": "mp4", "negative.mov": "mp4", "lost_h264.3gp": "mp4", "b_frames.mkv": "mkv",
              "vp9.webm": "mkv", "mjpeg.avi": "avi", "h264.ts": "mpegts", "h264.m2ts": "mpegts", "mpeg1.mpg": "mpeg",
              "mpeg2.vob": "mpeg", "raw.h264": "raw stream", "raw.m2v": "raw stream", "h264.flv": "flv",
              "h264.asf": "asf", "theora.ogv": "ogg", "animated.gif": "gif"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_is_known_by_its_bytes(folder, name):
    assert examine(write(name, folder)).container == CONTAINERS[name]


# --- what is sought, what is read in order ----------------------------------------------------------------------------
SOUGHT = ("b_frames.mp4", "no_b_frames.mp4", "open_gop.mp4", "fragments.mp4", "uneven.mp4", "ten_bits.mp4",
          "mirrored.mp4", "negative.mov", "b_frames.mkv", "hevc.mp4", "vp9.webm", "av1.mp4", "mpeg4.mp4", "mpeg4.mkv",
          "mjpeg.mov", "mpeg4.avi", "mjpeg.avi", "gaps.avi")


@pytest.mark.parametrize("name", SOUGHT)
def test_a_sound_file_is_sought_and_gives_what_torchcodec_gives(folder, name):
    path = write(name, folder)
    look = examine(path)
    indices = [3, 17, 40]
    assert look.in_order == "" and look.front == 0
    if not look.mirrored:
        assert torch.equal(decode(path, lambda n: np.array(indices)), VideoDecoder(path).get_frames_at(indices).data)


def test_what_is_read_in_order_is_bit_for_bit_what_is_sought(folder):
    for name in ("b_frames.mp4", "ten_bits.mp4", "hevc.mkv", "vp9.webm", "turned_by_90.mp4"):
        path = write(name, folder)
        assert torch.equal(decoding.InOrder(path).get(list(range(50))), VideoDecoder(path)[:]), name


def test_of_a_long_mjpeg_avi_only_the_frames_asked_for_are_decoded(tmp_path):
    """All other frames are overwritten: whoever decodes one of them fails."""
    path = ffmpeg("-f", "lavfi", "-i", "testsrc2=size=16x16:rate=25:duration=1080", "-c:v", "mjpeg", "-q:v", "2",
                  "-pix_fmt", "yuvj420p", tmp_path / "long.avi")
    asked = segment_indices(27_000, 8)[0].tolist()
    right = decode(path, lambda n: np.array(asked))
    content = bytearray(path.read_bytes())
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        frames = list(avi.avi_frames(data, 0, 0))
    assert len(frames) == 27_000
    for i, (begin, end) in enumerate(frames):
        if i not in (0, *asked):                 # the first one is looked at when the file is opened
            content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    assert torch.equal(decode(path, lambda n: np.array(asked)), right)
    with pytest.raises(Undecodable):
        decode(path, lambda n: np.array([asked[1] + 1]))


def test_reading_in_order_ends_at_the_last_frame_asked_for(folder, monkeypatch):
    read = []
    frames = decoding.InOrder.frames

    def counted(self):
        for frame in frames(self):
            read.append(frame)
            yield frame
    monkeypatch.setattr(decoding.InOrder, "frames", counted)
    decode(write("mpeg4_b_frames.avi", folder), lambda n: np.array([3, 7]))
    assert len(read) == 8


def samples_of(path):
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    moov, = [(begin, end) for kind, begin, end in boxes.boxes(data, 0, len(data)) if kind == b"moov"]
    trak = boxes.box_tree(data, *boxes.box_tree(data, *moov)[b"trak"][0])
    return data, *mp4.mp4_codec(data, trak), *mp4.mp4_samples(data, trak)


@pytest.mark.parametrize("options", ["", "-x264-params aud=1", "-x264-params slices=3"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_b_slices_of_h264_are_seen_behind_whatever_stands_in_front(tmp_path, options, b_frames):
    path = ffmpeg("-f", "lavfi", "-i", PATTERN, "-c:v", "libx264", "-bf", b_frames, *options.split(),
                  tmp_path / "x.mp4")
    data, codec, config, starts, stops = samples_of(path)
    _, firsts = reordering.first_slices(data, codec, config, starts, stops)
    assert len(firsts) == 50
    assert reordering.is_slice(firsts, reordering.B_SLICES).any() == (b_frames > 0)


def test_a_look_at_a_file_opens_no_decoder(folder, monkeypatch):
    """Its cost beside a decode is a row of tools/bench/speed.py."""
    for name in ("Demuxer", "VideoDecoder"):
        monkeypatch.setattr(f"torchcodec.decoders.{name}", None)
    assert examine(write("lost_h264.mp4", folder)).in_order == reordering.LOST
    assert examine(write("no_b_frames.mp4", folder)).in_order == ""


# --- sizes that change, sound, damage ---------------------------------------------------------------------------------
def test_a_size_that_changes_on_the_way_gives_the_right_frames_in_one_size(tmp_path):
    for i, size in enumerate(("96x64", "64x48")):
        picture = f"nullsrc=s={size}:r=25:d=1,geq=lum=20+4*(N+{25 * i}):cb=128:cr=128"
        ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libvpx", "-b:v", "2M", tmp_path / f"{i}.webm")
    (tmp_path / "list.txt").write_text("file 0.webm\nfile 1.webm\n")
    both = ffmpeg("-f", "concat", "-i", tmp_path / "list.txt", "-c", "copy", tmp_path / "both.webm")
    frames = decode(both, np.arange)
    assert frames.shape == (50, 3, 64, 96) and frames.dtype == torch.uint8
    assert torch.equal(frames[:25], decode(tmp_path / "0.webm", np.arange))
    for indices in (list(range(50)), [3, 30], [40], [10]):
        assert wrong(both, indices) == []


@pytest.mark.parametrize("ending, options", [("m4a", ""), ("mp3", "-id3v2_version 3"), ("flac", ""), ("mka", "")])
@pytest.mark.parametrize("name", ["song", "song.mp4"])
def test_sound_with_a_picture_is_no_video(tmp_path, ending, options, name):
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64:d=0.04", "-frames:v", "1", tmp_path / "cover.png")
    cover = ["-i", tmp_path / "cover.png", "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v:0", "attached_pic"]
    if ending == "mka":
        cover = ["-attach", tmp_path / "cover.png", "-metadata:s:t", "mimetype=image/png"]
    song = ffmpeg("-f", "lavfi", "-i", SOUND, *cover, *options.split(), tmp_path / f"song.{ending}")
    shutil.copy(song, tmp_path / name)
    with pytest.raises(Undecodable, match="sound.* with a picture, no video"):
        decode(tmp_path / name, np.arange)


def test_sound_alone_is_no_video(tmp_path):
    with pytest.raises(Undecodable, match="sound, no video"):
        decode(ffmpeg("-f", "lavfi", "-i", SOUND, tmp_path / "sound.mp4"), np.arange)


def test_frames_that_are_missing_at_the_end_are_not_made_up(folder, tmp_path):
    """Of a file read in order, all but the last two must decode."""
    whole = write("mpeg2.mpeg", folder).read_bytes()
    (tmp_path / "cut.mpeg").write_bytes(whole[:len(whole) // 2])
    n = []
    decode(tmp_path / "cut.mpeg", lambda count: n.append(count) or np.array([0]))
    assert 10 < n[0] < 40
    with pytest.raises(IndexError, match="frames are stored, but only"):
        reader = decoding.InOrder(tmp_path / "cut.mpeg")
        reader.length = n[0] + 5
        decoding.read_frames(tmp_path / "cut.mpeg", examine(tmp_path / "cut.mpeg"), reader, [n[0] + 4])


def cut_off(folder, share):
    """A .mp4 whose header stands in front, without its end."""
    whole = ffmpeg("-i", write("b_frames.mp4", folder), *"-c copy -movflags +faststart".split(), folder / "front.mp4")
    path = folder / "cut_off.mp4"
    path.write_bytes(whole.read_bytes()[:int(share * whole.stat().st_size)])
    return path


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_of_an_mp4_without_its_end_what_is_there_is_decoded(folder, share):
    path = cut_off(folder, share)
    right_frames.cache_clear()
    n = []
    decode(path, lambda count: n.append(count) or np.array([0]))
    there = len(right_frames(path))
    assert 5 < there <= n[0] < 50                # the frame that was cut counts, and the one before stands in
    assert len(decode(path, lambda count: np.array([count - 1]))) == 1
    for indices in ([there - 1], list(range(there))):
        assert wrong(path, indices) == []


def test_a_frame_that_is_not_there_is_not_given_by_reading_in_order(folder):
    for index in (50, -1):
        with pytest.raises(Undecodable, match="of 50"):
            decode(write("h264.ts", folder), lambda n, index=index: np.array([index]))


FUZZED = ("b_frames.mp4", "cut.mp4", "lost.mp4", "lost_hevc.mp4", "fragments.mp4", "lost_h264.mkv", "hevc.mkv",
          "mpeg4_b_frames.avi", "h264.avi")


@given(name=st.sampled_from(FUZZED), changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)),
                                                      max_size=6), length=st.floats(0, 1))
def test_whatever_the_bytes_a_look_at_a_file_ends_with_an_answer(folder, name, changes, length):
    content = bytearray(write(name, folder).read_bytes())
    for place, new in changes:
        at = int(place * (len(content) - 8))
        content[at:at + len(new)] = new
    path = folder / "fuzzed"
    path.write_bytes(content[:int(length * len(content))])
    look = examine(path)
    assert isinstance(look.in_order, str) and look.front >= 0


def test_an_avi_whose_format_comes_before_any_stream_header_is_read_in_order(tmp_path):
    file = tmp_path / "x.avi"
    format_first = b"strf" + (40).to_bytes(4, "little") + bytes(40)
    file.write_bytes(b"RIFF" + (56).to_bytes(4, "little") + b"AVI " + format_first)
    assert examine(file).in_order == "its avi header is damaged"


@pytest.mark.parametrize("turn", ["", "mirrored", "turned by 90"])
def test_a_size_that_changes_in_a_turned_mp4_gives_the_right_frames(tmp_path, turn):
    for i, size in enumerate(("96x64", "64x48")):
        ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration=1", "-c:v", "libx264", "-pix_fmt",
               "yuv420p", tmp_path / f"{i}.mp4")
    (tmp_path / "list").write_text("file 0.mp4\nfile 1.mp4\n")
    both = ffmpeg("-f", "concat", "-i", tmp_path / "list", "-c", "copy", tmp_path / "both.mp4")
    set_matrix(both, TURNS[turn])
    right_frames.cache_clear()
    for indices in ([3, 30, 44], [10], [40]):
        assert wrong(both, indices) == []


# --- several tracks --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize("played", [0, 1])
@pytest.mark.parametrize("front", ["lost_h264.mp4", "cut.mp4", "cut_open_gop.mp4", "cut_mpeg4.mp4", "mirrored.mp4"])
def test_of_several_tracks_each_is_read_as_it_has_to_be(folder, tmp_path, ending, played, front):
    """The one that is played has the flag for it; the other has another size."""
    other = ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=2", "-c:v", "libx264", "-pix_fmt",
                   "yuv420p", tmp_path / "other.mp4")
    flags = ["-disposition:v:0", "0", "-disposition:v:1", "0", f"-disposition:v:{played}", "default"]
    both = ffmpeg("-i", write(front, folder), "-i", other, "-map", "0", "-map", "1", "-c", "copy", *flags,
                  tmp_path / f"both{ending}")
    alone = ffmpeg("-i", both, "-map", f"0:{played}", "-c", "copy", tmp_path / f"alone{ending}")
    assert decode(both, lambda n: np.array([0])).shape[2:] == ((64, 96), (48, 64))[played]
    draws = [segment_indices(36, 8)[0].tolist(), [1], [7], [21]]
    for indices in draws:
        given = decode(both, lambda n, indices=indices: np.array(indices))
        right = right_frames(alone)
        distances = torch.cdist(given.flatten(1).float(), right.flatten(1).float())
        assert distances.argmin(1).tolist() == indices


def test_an_avi_of_several_tracks_is_read_in_order(tmp_path):
    """The larger one is played; it has B-frames, and the first has none."""
    both = ffmpeg("-f", "lavfi", "-i", PATTERN, *"-f lavfi -i testsrc2=size=160x96:rate=25:duration=2 -map 0 -map 1 "
                  "-threads 1 -c:v mpeg4 -q:v 2 -g 20 -bf:v:0 0 -bf:v:1 2".split(), tmp_path / "both.avi")
    right = right_frames(ffmpeg("-i", both, "-map", "0:1", "-c", "copy", tmp_path / "alone.avi"))
    assert right.shape[2:] == (96, 160)
    for indices in ([3, 17, 40], [9], [41]):
        given = decode(both, lambda n, indices=indices: np.array(indices))
        assert torch.cdist(given.flatten(1).float(), right.flatten(1).float()).argmin(1).tolist() == indices


# --- files whose seeking goes wrong in one place ----------------------------------------------------------------------
def joined(folder, ending, codec="libx264", lost_first=True, options="", through=".mp4"):
    """A clip whose times were lost, and a good one, one behind the other. through: what they are in until then."""
    for name, source in (("good", "testsrc"), ("whole", "testsrc2")):
        ffmpeg("-f", "lavfi", "-i", f"{source}=size=96x64:rate=25:duration=2", "-c:v", codec, "-pix_fmt", "yuv420p",
               "-g", 20, "-bf", 3, folder / f"{name}{through}")
    ffmpeg("-i", folder / f"whole{through}", "-c", "copy", "-bsf:v", "setts=pts=DTS", folder / f"lost{through}")
    names = ("lost", "good") if lost_first else ("good", "lost")
    (folder / "list").write_text("".join(f"file {name}{through}\n" for name in names))
    return ffmpeg("-f", "concat", "-i", folder / "list", "-c", "copy", *options.split(), folder / f"joined{ending}")


def piped(folder, options, keep=1.0):
    """An .avi without an index: written to a pipe, or cut off at its end."""
    whole = folder / "whole.avi"
    ffmpeg("-f", "lavfi", "-i", PATTERN, *options.split(), whole)
    content = whole.read_bytes()
    (folder / "piped.avi").write_bytes(content[:int(keep * content.index(b"idx1"))])
    return folder / "piped.avi"


def refreshed(folder, ending, b_frames):
    """H.264 without keyframes but the first: the picture is made anew bit by bit."""
    return ffmpeg("-f", "lavfi", "-i", PATTERN, *"-c:v libx264 -pix_fmt yuv420p -g 15 -bf".split(), b_frames,
                  "-x264-params", "intra-refresh=1", folder / f"refreshed{ending}")


def edited(folder, source, *changes):
    """A file with some of its bytes changed, which keeps its length."""
    content = write(source, folder).read_bytes()
    for old, new in changes:
        assert old in content and len(old) == len(new)
        content = content.replace(old, new)
    (folder / f"edited_{source}").write_bytes(content)
    return folder / f"edited_{source}"


def two_headers(folder, ending):
    """An .avi without B-frames, and one with them: the header of the first stands for both."""
    for name, b_frames in (("none", 0), ("some", 3)):
        ffmpeg("-f", "lavfi", "-i", PATTERN, *"-c:v libx264 -pix_fmt yuv420p -g 20 -bf".split(), b_frames,
               folder / f"{name}.avi")
    (folder / "list").write_text("file none.avi\nfile some.avi\n")
    return ffmpeg("-f", "concat", "-i", folder / "list", "-c", "copy", folder / f"two{ending}")


def half_an_index(folder):
    path = folder / "wmv2.avi"
    ffmpeg("-f", "lavfi", "-i", PATTERN, *"-c:v wmv2 -q:v 3 -g 20".split(), path)
    path.write_bytes(path.read_bytes()[:-400])
    return path


def several_edits(folder):
    """An edit list of two parts: the first ten frames, and those from the twentieth on."""
    path = folder / "edits.mp4"
    content = write("no_b_frames.mp4", folder).read_bytes()
    at = content.index(b"elst") - 4
    parts = struct.pack(">I4sII", 40, b"elst", 0, 2) + struct.pack(">IiIIiI", 400, 0, 1 << 16, 1200, 10240, 1 << 16)
    grown = len(parts) - struct.unpack_from(">I", content, at)[0]
    content = content[:at] + parts + content[at + len(parts) - grown:]
    for kind in (b"edts", b"trak", b"moov"):     # the header stands behind the frames, so no place moves
        at = content.index(kind) - 4
        size = struct.unpack_from(">I", content, at)[0] + grown
        content = content[:at] + struct.pack(">I", size) + content[at + 4:]
    path.write_bytes(content)
    return path


def in_groups(path):
    """An .mkv of clusters of unknown size, with its frames in block groups, as some writers have them."""
    content = path.read_bytes()
    pieces = []
    last = 0
    for name, begin, stop in mkv.elements(content, 0, len(content)):
        if name == mkv.SIMPLE:
            block = content[begin:begin + 3] + b"\0" + content[begin + 4:stop]
            reference = b"" if content[begin + 3] & 0x80 else b"\xfb\x81\xff"
            inner = b"\xa1" + struct.pack(">I", 1 << 28 | len(block)) + block + reference
            group = b"\xa0" + struct.pack(">I", 1 << 28 | len(inner)) + inner
            pieces += [content[last:content.rindex(b"\xa3", last, begin)], group]
            last = stop
    path.write_bytes(b"".join(pieces) + content[last:])
    return path


def all_keys(path):
    content = bytearray(path.read_bytes())
    for name, begin, _ in mkv.elements(bytes(content), 0, len(content)):
        if name == mkv.SIMPLE:
            content[begin + 3] |= 0x80
    path.write_bytes(content)
    return path


def laced(path):
    """An .mkv of clusters of unknown size, with its first two frames in one block, the first one's size in front."""
    content = path.read_bytes()
    places = [place[1:] for place in mkv.elements(content, 0, len(content)) if place[0] == mkv.SIMPLE]
    (begin, middle), (second, end) = places[:2]
    one, two = content[begin:middle], content[second:end]
    lacing = bytes([one[3] | 0x06, 1]) + struct.pack(">I", 1 << 28 | len(one) - 4)
    block = one[:3] + lacing + one[4:] + two[4:]
    header = b"\xa3" + struct.pack(">I", 1 << 28 | len(block))
    path.write_bytes(content[:content.rindex(b"\xa3", 0, begin)] + header + block + content[end:])
    return path


def lying(folder, options):
    """A file without B-frames whose list of keyframes (stss) names others from the second one on."""
    path = ffmpeg("-f", "lavfi", "-i", PATTERN, *options.split(), folder / "lying.mp4")
    content = bytearray(path.read_bytes())
    at = content.index(b"stss") + 8
    count, = struct.unpack_from(">I", content, at)
    assert count > 1
    for i in range(1, count):
        number, = struct.unpack_from(">I", content, at + 4 * i + 4)
        struct.pack_into(">I", content, at + 4 * i + 4, number + 5)
    path.write_bytes(content)
    return path


def cut_and_joined(folder):
    """Two clips that were cut without decoding: the second begins before the first has ended."""
    for seconds in ("0.9", "0.3"):
        ffmpeg("-ss", seconds, "-i", write("b_frames.mp4", folder), "-c", "copy", folder / f"{seconds}.mp4")
    (folder / "list").write_text("file 0.9.mp4\nfile 0.3.mp4\n")
    return ffmpeg("-f", "concat", "-i", folder / "list", "-c", "copy", folder / "cuts.mp4")


def hevc_without_b_frames_in_front(folder, ending):
    for name, b_frames in (("none", 0), ("some", 3)):
        ffmpeg("-f", "lavfi", "-i", PATTERN, *f"-threads 1 -c:v libx265 -x265-params bframes={b_frames}:keyint=20:"
               "log-level=none:pools=none:frame-threads=1".split(), folder / f"{name}.mp4")
    ffmpeg("-i", folder / "some.mp4", "-c", "copy", "-bsf:v", "setts=pts=DTS", folder / "lost.mp4")
    (folder / "list").write_text("file none.mp4\nfile lost.mp4\n")
    return ffmpeg("-f", "concat", "-i", folder / "list", "-c", "copy", folder / f"hevc{ending}")


def live(folder, source, *options):
    return ffmpeg("-i", source, "-c", "copy", *options, "-live", "1", folder / "live.mkv")


PARTLY = {
    "two frames in a block, mkv": lambda folder: laced(live(folder, write("vp9.webm", folder))),
    "wrong marks of keyframes, HEVC": lambda folder: lying(
        folder, "-threads 1 -c:v libx265 -x265-params bframes=0:keyint=20:log-level=none:pools=none:frame-threads=1"),
    "wrong marks of keyframes, MPEG-4": lambda folder: lying(folder, "-c:v mpeg4 -q:v 2 -g 20"),
    "joined cuts, mp4": cut_and_joined,
    "no B-frames in the header, lost times behind, HEVC, mp4": lambda folder: hevc_without_b_frames_in_front(
        folder, ".mp4"),
    "lost times in front, MPEG-2, mp4": lambda folder: joined(folder, ".mp4", "mpeg2video", through=".mkv"),
    "two frames in a packet, mkv": lambda folder: ffmpeg(
        "-fflags", "+genpts", "-i", write("packed.avi", folder), "-c", "copy", folder / "packed.mkv"),
    "two frames in a packet, mp4": lambda folder: ffmpeg(
        "-fflags", "+genpts+igndts", "-i", write("packed.avi", folder), "-c", "copy", folder / "packed.mp4"),
    "intra refresh between the beginnings of fragments": lambda folder: ffmpeg(
        "-i", refreshed(folder, ".mp4", 0), *"-c copy -movflags +empty_moov -frag_duration 300000".split(),
        folder / "fragments.mp4"),
    "intra refresh in block groups, mkv": lambda folder: in_groups(live(folder, refreshed(folder, ".mkv", 0))),
    "no keyframe first in block groups, mkv": lambda folder: in_groups(
        live(folder, write("b_frames.mp4", folder), "-ss", "0.5", "-copyinkf")),
    "all marked as keyframes, mkv": lambda folder: all_keys(live(folder, write("hevc.mp4", folder))),
    "times that leap, mp4": lambda folder: ffmpeg(
        *"-f lavfi -i testsrc2=size=96x64:rate=5:duration=10 -c:v libx264 -pix_fmt yuv420p -g 20 -bf 3".split(),
        *"-video_track_timescale 1000000000".split(), folder / "leap.mp4"),
    "edit list of two parts": several_edits,
    "no B-frames in the header, lost times behind, mp4": lambda folder: two_headers(folder, ".mp4"),
    "no B-frames in the header, lost times behind, mkv": lambda folder: two_headers(folder, ".mkv"),
    "no list of keyframes, HEVC": lambda folder: edited(folder, "hevc.mp4", (b"stss", b"free")),
    "no list of keyframes, H.264": lambda folder: edited(folder, "b_frames.mp4", (b"stss", b"free")),
    "half an index, avi": half_an_index,
    "interlaced MPEG-4": lambda folder: ffmpeg(
        "-f", "lavfi", "-i", PATTERN, *"-threads 1 -c:v mpeg4 -q:v 2 -g 20 -bf 2 -flags +ildct+ilme".split(),
        folder / "interlaced.mp4"),
    "a palette, avi": lambda folder: ffmpeg(
        "-f", "lavfi", "-i", PATTERN, *"-c:v rawvideo -pix_fmt pal8".split(), folder / "palette.avi"),
    "no index, P-frames": lambda folder: piped(folder, "-c:v wmv2 -q:v 3"),
    "cut off, P-frames": lambda folder: piped(folder, "-c:v msmpeg4 -q:v 2", 0.9),
    "lost times in front, mp4": lambda folder: joined(folder, ".mp4"),
    "lost times in front, mkv": lambda folder: joined(folder, ".mkv"),
    "lost times in front, HEVC, mp4": lambda folder: joined(folder, ".mp4", "libx265"),
    "lost times in front, HEVC, mkv": lambda folder: joined(folder, ".mkv", "libx265"),
    "lost times in the first fragments": lambda folder: joined(
        folder, ".mp4", options="-movflags frag_keyframe+empty_moov"),
    "lost times in the last fragments": lambda folder: joined(
        folder, ".mp4", lost_first=False, options="-movflags frag_keyframe+empty_moov"),
    "lost times in the fragments behind the first": lambda folder: joined(
        folder, ".mp4", lost_first=False, options="-movflags frag_keyframe"),
    "intra refresh, mp4": lambda folder: refreshed(folder, ".mp4", 3),
    "intra refresh, mkv": lambda folder: refreshed(folder, ".mkv", 3),
    "intra refresh without B-frames, mp4": lambda folder: refreshed(folder, ".mp4", 0),
    "intra refresh without B-frames, mkv": lambda folder: refreshed(folder, ".mkv", 0),
    "intra refresh without B-frames, avi": lambda folder: refreshed(folder, ".avi", 0),
    "times below 0, mkv": lambda folder: ffmpeg(
        "-i", write("b_frames.mp4", folder), *"-c copy -output_ts_offset -0.04 -avoid_negative_ts disabled".split(),
        folder / "below.mkv"),
}


def test_an_mkv_in_block_groups_is_sought_where_its_keyframes_are_whole(folder, tmp_path):
    path = in_groups(live(tmp_path, write("b_frames.mp4", folder)))
    assert examine(path).in_order == ""
    for indices in (list(range(0, 50, 5)), [17], [33]):
        assert wrong(path, indices) == []


@pytest.mark.parametrize("trouble", PARTLY)
def test_what_misleads_seeking_in_one_place_is_read_in_order(tmp_path, trouble):
    path = PARTLY[trouble](tmp_path)
    n = len(right_frames(path))
    assert examine(path).in_order
    for indices in (list(range(0, n, 5)), [n // 3], [1, n // 2]):
        assert wrong(path, indices) == []


def test_h264_in_avi_that_begins_with_a_keyframe_is_not_counted_by_decoding(folder, tmp_path):
    for path in (write("h264.avi", folder), ffmpeg("-i", write("b_frames.mp4", folder), "-c", "copy",
                                                   tmp_path / "lengths.avi")):
        assert examine(path).in_order not in ("", *UNCOUNTED)


def test_of_compressed_or_encrypted_blocks_no_frame_is_looked_at(folder, monkeypatch):
    monkeypatch.setattr(mkv, "ENCODINGS", mkv.PRIVATE)           # a field that each of these tracks has
    assert examine(write("b_frames.mkv", folder)).in_order == "its frames are compressed or encrypted"
    assert examine(write("av1.mkv", folder)).in_order == ""


def test_a_run_of_frames_without_a_place_counts_as_damage(folder, monkeypatch):
    whole = fragments.read_run
    monkeypatch.setattr(fragments, "read_run", lambda *arguments: (None, whole(*arguments)[1]))
    assert examine(write("fragments.mp4", folder)).in_order == "its mp4 header is damaged"


def test_a_stream_without_slices_counts_as_damaged(folder, monkeypatch):
    data, codec, config, starts, stops = samples_of(write("b_frames.mp4", folder))
    with pytest.raises(ValueError, match="without a picture"):
        reordering.first_slices(bytes(len(data)), codec, config, starts, stops)


def test_frames_without_a_duration_are_refused_with_that_reason(folder, tmp_path):
    content = bytearray(write("b_frames.mp4", folder).read_bytes())
    struct.pack_into(">I", content, content.index(b"stts") + 16, 0)          # one row: 50 frames, ticks to the next
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(Undecodable, match="no sensible durations"):
        decode(tmp_path / "x.mp4", np.arange)


def test_av1_that_was_cut_in_front_of_a_keyframe_is_read_in_order(tmp_path):
    options = "-c:v libaom-av1 -cpu-used 8 -crf 20 -g 20".split()
    whole = ffmpeg("-f", "lavfi", "-i", PATTERN, *options, tmp_path / "whole.mkv")
    path = ffmpeg("-ss", "0.5", "-i", whole, "-c", "copy", tmp_path / "cut.mp4")
    assert examine(path).in_order == "it was cut in front of a keyframe"
    for indices in ([0, 5, 12, 17, 30], [8], [20]):              # a draw across the keyframe, and alone
        assert wrong(path, indices) == []


def of_fragments(folder, options, *before, flags="frag_keyframe+empty_moov"):
    """A copy in fragments. before: options that cut it."""
    whole = ffmpeg("-f", "lavfi", "-i", PATTERN, *options.split(), folder / "whole.mp4")
    return ffmpeg(*before, "-i", whole, "-c", "copy", "-movflags", flags, folder / "fragments.mp4")


def not_coded(folder, options=""):
    """An .avi with MPEG-4 frames of six bytes, which repeat the one before, as XviD writes them."""
    coded = ffmpeg("-f", "lavfi", "-i", PATTERN, *f"-c:v mpeg4 -q:v 2 -g 20 {options}".split(), folder / "coded.avi")
    content = coded.read_bytes()
    pieces = []
    at = content.index(b"movi") + 4
    with open(coded, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for i, (begin, stop) in enumerate(avi.avi_frames(data, at, 0)):
            pieces.append(content[begin - 8:stop + stop % 2])
            if i % 10 == 5:
                vop = int(f"0101{i % 25:05b}1001111", 2)         # P, its time in 5 bits, not coded
                pieces.append(b"00dc" + struct.pack("<I4sH", 6, b"\0\0\1\xb6", vop >> 8 | (vop & 255) << 8))
        end = stop + stop % 2
    moved = content[end:].replace(b"idx1", b"JUNK")              # without an index: all frames count
    (folder / "not_coded.avi").write_bytes(content[:at] + b"".join(pieces) + moved)
    return folder / "not_coded.avi"


OPEN_GOP = "-c:v libx264 -pix_fmt yuv420p -g 20 -bf 3 -x264-params open-gop=1:scenecut=0"
BEGINS_WITH_WHAT_DOES_NOT_DECODE = {
    "open GOP, HEVC, mkv": lambda folder: ffmpeg(
        "-ss", "1.5", "-i", write("hevc.mp4", folder), "-c", "copy", folder / "cut.mkv"),
    "open GOP without an edit list, mp4": lambda folder: ffmpeg(
        "-ss", "0.9", "-i", write("open_gop.mp4", folder), *"-c copy -use_editlist 0".split(), folder / "cut.mp4"),
    "no keyframe first, avi": lambda folder: ffmpeg(
        "-i", write("h264_no_b_frames.avi", folder), *"-ss 0.5 -c copy -copyinkf".split(), folder / "late.avi"),
    "no keyframe first, units with their lengths, avi": lambda folder: ffmpeg(
        "-i", write("b_frames.mp4", folder), *"-ss 0.5 -c copy -copyinkf".split(), folder / "late.avi"),
    "frames that are not coded, B-frames, avi": lambda folder: not_coded(folder, "-bf 2"),
    "frames that are not coded, mp4": lambda folder: ffmpeg(
        "-i", not_coded(folder), "-c", "copy", folder / "not_coded.mp4"),
    "no keyframe first, mp4": lambda folder: ffmpeg(
        "-i", write("b_frames.mp4", folder), *"-ss 0.5 -c copy -copyinkf".split(), folder / "late.mp4"),
    "no keyframe first, mkv": lambda folder: ffmpeg(
        "-i", write("b_frames.mp4", folder), *"-ss 0.5 -c copy -copyinkf".split(), folder / "late.mkv"),
    "open GOP, fragments": lambda folder: of_fragments(folder, OPEN_GOP, "-ss", "0.9"),
    "open GOP, fragments of one frame": lambda folder: of_fragments(
        folder, OPEN_GOP, "-ss", "0.9", flags="frag_every_frame+empty_moov"),
    "intra refresh, fragments": lambda folder: of_fragments(
        folder, "-c:v libx264 -pix_fmt yuv420p -g 15 -bf 0 -x264-params intra-refresh=1", "-ss", "0.9"),
    "frames that are not coded, avi": not_coded,
    "intra refresh, mkv": lambda folder: ffmpeg(
        "-ss", "0.9", "-i", refreshed(folder, ".mkv", 0), "-c", "copy", folder / "cut.mkv"),
}


@pytest.mark.parametrize("beginning", BEGINS_WITH_WHAT_DOES_NOT_DECODE)
def test_frames_at_the_beginning_that_do_not_decode_do_not_count(tmp_path, beginning):
    path = BEGINS_WITH_WHAT_DOES_NOT_DECODE[beginning](tmp_path)
    n = len(right_frames(path))
    assert examine(path).in_order in UNCOUNTED
    counts = []
    decode(path, lambda count: counts.append(count) or np.array([0]))
    assert counts == [n] and len(list(Demuxer(path))) > n
    for indices in (list(range(0, n, 5)), [n // 3], [n - 1]):
        assert strayed(path, indices) == []


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_file_that_torchcodec_cannot_go_back_in_is_read_in_order(tmp_path, codec):
    whole = ffmpeg("-f", "lavfi", "-i", PATTERN, "-c:v", *codec.split(), "-g", 20, "-bf", 0, tmp_path / "whole.mp4")
    path = ffmpeg("-i", whole, *"-ss 0.46 -c copy -copyinkf -movflags frag_keyframe+empty_moov".split(),
                  tmp_path / "cut.mp4")
    with pytest.raises(RuntimeError, match="Could not seek"):
        VideoDecoder(path)
    n = len(right_frames(path))
    for indices in (list(range(0, n, 5)), [n - 1]):
        assert wrong(path, indices) == []
    assert "problem" not in videos.examine(str(path), "none", False)


def test_vp9_whose_first_frame_is_no_keyframe_is_refused_with_that_reason(folder, tmp_path):
    options = "-ss 0.46 -c copy -copyinkf -movflags frag_keyframe+empty_moov".split()
    path = ffmpeg("-i", write("vp9.mp4", folder), *options, tmp_path / "cut.mp4")
    with pytest.raises(Undecodable, match="its first frame is no keyframe"):
        decode(path, lambda n: segment_indices(n, 8))


def test_the_end_of_an_open_gop_that_was_cut_is_decoded(tmp_path):
    whole = tmp_path / "open.mp4"
    options = "-c:v libx264 -pix_fmt yuv420p -crf 14 -g 20 -bf 3 -x264-params open-gop=1:scenecut=0"
    ffmpeg(*"-f lavfi -i testsrc2=size=128x96:rate=25:duration=4".split(), *options.split(), whole)
    for seconds in ("1.09", "1.13", "1.17"):
        path = ffmpeg("-ss", "1.3", "-i", whole, "-t", seconds, "-c", "copy", tmp_path / f"{seconds}.mp4")
        n = len(right_frames(path))
        for indices in ([n - 3], [n - 2], [n - 1], [n - 2, n - 1], [5, n - 1]):
            assert wrong(path, indices) == []
