"""
tools/doctor.py: each fault, planted by itself, turns its line from ok to warn or WRONG, with the value and what to do.

Faults are planted in what a check asks: the versions installed, the decoder, the cores, the disk, the memory measured.
Two are real: a torchcodec whose FFmpeg libraries are not there, a torch that cannot be imported. No GPU is needed.
"""
import importlib
import importlib.metadata
import os
import random
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import torchcodec
from hypothesis import given
from hypothesis import strategies as st
from torchcodec.encoders import VideoEncoder

import mote.data
import mote.runtime.ranks
import train
from mote.clip_backbone import clip_config, load_clip
from mote.datasets.dataset import open_dataset
from mote.runtime import workers
from mote.runtime.ranks import Ranks
from mote.temporal_experts import TemporalTransformer
from mote.toyworld import make_clip
from tools import doctor
from tools.examinations import installed, machine, step_memory, training_videos
from tools.examinations.findings import Finding

ROOT = Path(__file__).parents[2]
SYSTEM = "--data k400 --layers 4"                                # the paper's ViT-B/16 and batch of 144
# As users have reported them. The libraries of FFmpeg versions that are not installed are always missing.
ABSENT = """Could not load libtorchcodec. Likely causes:
FFmpeg version 7:
OSError: libavutil.so.59: cannot open shared object file: No such file or directory
FFmpeg version 4:
OSError: libavutil.so.56: cannot open shared object file: No such file or directory"""
MISFIT = ABSENT.replace("libavutil.so.59: cannot open shared object file: No such file or directory",
                        "/lib/libtorchcodec_core7.so: undefined symbol: torch_from_blob")
NO_CUDA = ABSENT.replace("libavutil.so.59", "libnvrtc.so.13")
ON_A_MAC = """Could not load libtorchcodec. Likely causes:
OSError: dlopen(libtorchcodec_core9.dylib, 0x0006): Library not loaded: @rpath/libavutil.61.dylib"""


def options(*arguments: str, **more) -> Namespace:
    config = train.parse_config([*SYSTEM.split(), *arguments])
    return Namespace(**{"config": config, "clip": clip_config(config.backbone), "device": torch.device("cpu"),
                        "cores": 2.0, "side": 224, "ranks": 1, "videos": 50, "seconds": 30, "clips_per_second": 0,
                        "arguments": [*SYSTEM.split(), *arguments], **more})


@pytest.fixture
def find(capsys):
    """find(check, *train.py's options, **the doctor's) -> the lines that it prints"""
    def find(check, *arguments: str, **more) -> list[str]:
        doctor.report(options(*arguments, **more), check)
        return capsys.readouterr().out.splitlines()
    return find


def free(monkeypatch, number: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Namespace(free=number))


# --- all of it --------------------------------------------------------------------------------------------------------
def test_a_healthy_machine_has_nothing_wrong(capsys):
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line[:6] for line in lines} <= {"ok    ", "warn  "} and len(lines) >= 10
    assert f"torch {importlib.metadata.version('torch')}" in lines[0] and "torchcodec has loaded FFmpeg" in lines[1]
    assert any("16 of 16 frames decoded, in order" in line for line in lines)


@pytest.mark.parametrize("arguments, says", [
    (["--no-such", "1"], "--no-such"), (["--ranks", "0"], "--ranks"), (["--frames", "0"], "--frames"),
    (["--backbone", "ViT-B-61"], "near: ")])
def test_a_mistake_in_the_command_has_exit_status_2(capsys, monkeypatch, arguments, says):
    monkeypatch.setattr(doctor, "report", lambda *_: 0)
    with pytest.raises(SystemExit) as ended:
        doctor.main(arguments)
    assert ended.value.code == 2 and says in capsys.readouterr().err.splitlines()[-1]


def test_a_check_that_raises_is_a_finding(find, monkeypatch):
    def broken(_):
        yield Finding(True, "half of it")
        raise KeyError("the reason")
    assert find(broken) == ["ok    half of it", "WRONG broken: 'the reason'"]
    monkeypatch.setenv("MOTE_TRACEBACK", "1")
    with pytest.raises(KeyError):
        find(broken)


def test_what_is_wrong_decides_the_exit_status_and_a_warning_does_not(monkeypatch):
    for level, status in (("warn", 0), ("WRONG", 1)):
        monkeypatch.setattr(doctor, "disk", lambda _, level=level: [Finding(False, "found", "advice", level)])
        assert doctor.main([]) == status


def test_with_options_of_train_the_training_is_looked_at_too(monkeypatch):
    ran = []
    for name in ("packages", "ffmpeg", "tower", "generated", "device", "threads", "shared_memory", "disk", "decoding",
                 "memory"):
        monkeypatch.setattr(doctor, name, lambda _, name=name: ran.append(name) or ())
    assert doctor.main([]) == 0 and ran[-1] == "disk"
    assert doctor.main(["--ranks", "2", "--batch", "8"]) == 0 and ran[-2:] == ["decoding", "memory"]


def test_a_tower_that_train_would_refuse_is_wrong(find, tmp_path):
    """Before any weights are read, and in the words of train.py."""
    (line,) = find(machine.tower, "--backbone", "ViT-L-14", "--pretrained", "nowhere.pt")
    assert line.startswith("WRONG --pretrained nowhere.pt: neither a file nor a tag of ViT-L-14")
    (line,) = find(machine.tower, "--backbone", "toyworld", "--pretrained", "toyworld")
    assert line.startswith("ok    toyworld: ") and "OpenAI's mean and std" in line and "tokenizer: CLIP's" in line


# --- what is installed ------------------------------------------------------------------------------------------------
def test_what_is_not_installed_is_named_and_nothing_else_is_looked_at(capsys, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "torchcodec":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "WRONG torchcodec is not installed -> pip install -e ." in lines
    assert lines[-1] == "the other checks need these first" and not any("generated" in line for line in lines)


@pytest.mark.parametrize("name, version, least", [("torch", "2.9.1+cu128", "2.11"), ("torchcodec", "0.9.1", "0.17"),
                                                  ("open_clip_torch", "2.32.0", "3.3")])
def test_a_version_below_pyprojects_is_wrong(find, monkeypatch, name, version, least):
    assert f'"{name}>={least}"' in (ROOT / "pyproject.toml").read_text()
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda other: version if other == name else real(other))
    assert f'WRONG {name} {version} is older than {least} -> pip install --upgrade "{name}>={least}"' in find(
        installed.packages)
    monkeypatch.setattr(importlib.metadata, "version", lambda other: least if other == name else real(other))
    assert [line[:5] for line in find(installed.packages)] == ["ok   "]


@pytest.mark.parametrize("name, error, found, advice", [
    ("torchvision", RuntimeError("operator torchvision::nms does not exist"), "torchvision::nms", installed.TOGETHER),
    ("torchcodec", RuntimeError(MISFIT), "undefined symbol: torch_from_blob", installed.TOGETHER),
    ("torchcodec", RuntimeError(NO_CUDA), "libnvrtc.so.13", installed.TOGETHER),
    ("torchcodec", RuntimeError(ABSENT), "no FFmpeg libraries (OSError: libavutil.so.56", installed.FFMPEG),
    ("torchcodec", RuntimeError(ON_A_MAC), "no FFmpeg libraries (OSError: dlopen", installed.FFMPEG),
    ("numpy", ValueError("numpy.dtype size changed"), "numpy.dtype size changed", installed.TOGETHER)])
def test_a_package_that_does_not_load_is_explained(find, monkeypatch, name, error, found, advice):
    real = importlib.import_module

    def import_module(module, package=None):
        if module == name:
            raise error
        return real(module, package)
    monkeypatch.setattr(importlib, "import_module", import_module)
    wrong, = (line for line in find(installed.packages) if line.startswith("WRONG"))
    assert name in wrong and found in wrong and wrong.endswith(f"-> {advice}" if advice == installed.FFMPEG else advice)


@pytest.mark.parametrize("program", ["/usr/bin/ffmpeg", None])
def test_a_missing_ffmpeg_program_is_told_from_missing_libraries(find, monkeypatch, program):
    monkeypatch.setattr(shutil, "which", lambda _: program)
    loaded, told = find(installed.ffmpeg)
    assert loaded == f"ok    torchcodec has loaded FFmpeg {torchcodec.ffmpeg_major_version}'s libraries"
    assert told.startswith(f"ok    the ffmpeg program: {program}" if program else "warn  the ffmpeg program: none -> ")

    def no_libraries(_):
        raise RuntimeError(ABSENT)
    monkeypatch.setattr(torchcodec.decoders, "VideoDecoder", no_libraries)
    wrong, = find(installed.ffmpeg)
    assert wrong.startswith("WRONG torchcodec finds no FFmpeg") and wrong.endswith(f"-> {installed.FFMPEG}")
    assert ("the ffmpeg program alone is not enough" in wrong) == bool(program)


def run_doctor(**environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "tools/doctor.py"], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **environment})


def without_ffmpeg(tmp_path):
    version = torchcodec.ffmpeg_major_version                    # a torchcodec without its part for that one
    installed, copy = Path(torchcodec.__file__).parent, tmp_path / "torchcodec"
    shutil.copytree(installed, copy, copy_function=os.symlink,
                    ignore=lambda _, names: [name for name in names if name.endswith((f"_core{version}.so", ".cpp"))])
    os.symlink(f"{installed}.libs", f"{copy}.libs")


def test_without_ffmpegs_libraries_the_scripts_say_what_to_install(tmp_path):
    without_ffmpeg(tmp_path)
    flags = ["--backbone", "toyworld", "--pretrained", "toyworld", "--data", "x"]
    done = subprocess.run([sys.executable, "eval.py", *flags], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "torchcodec cannot load FFmpeg's shared libraries" in done.stderr and "apt-get install" in done.stderr


def test_without_ffmpegs_libraries_the_doctor_says_so(tmp_path):
    without_ffmpeg(tmp_path)
    done = run_doctor(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    wrong, = (line for line in done.stdout.splitlines() if line.startswith("WRONG"))
    assert "no FFmpeg libraries" in wrong and wrong.endswith(installed.FFMPEG)


def test_without_torch_the_doctor_still_runs(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    done = run_doctor(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"WRONG torch: libcudart.so.12: cannot open shared object file -> its version does not fit torch's: " \
           f"{installed.TOGETHER}" in done.stdout.splitlines()


# --- what the machine can do ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("damage, found", [
    (lambda frames: frames.flip(0), "16 of 16 frames decoded, not in order"),
    (lambda frames: frames[:15], "15 of 16 frames decoded, not in order"),
    (lambda frames: frames[[0, *range(15)]], "not in order"),
    (lambda frames: frames // 2, "mean error")])
def test_frames_that_come_back_wrong_are_found(find, monkeypatch, damage, found):
    real = mote.data.decode
    monkeypatch.setattr(mote.data, "decode", lambda *arguments: damage(real(*arguments)))
    line, = find(installed.generated)
    assert line.startswith("WRONG") and found in line and line.endswith(installed.FFMPEG)


def test_an_ffmpeg_that_cannot_write_h264_is_found(find, monkeypatch):
    def to_file(*_, codec, **__):
        raise RuntimeError(f"Encoder {codec} not found")
    monkeypatch.setattr(VideoEncoder, "to_file", to_file)
    assert find(installed.generated) == [f"WRONG generated: Encoder libx264 not found -> {installed.FFMPEG}"]


@pytest.mark.parametrize("bf16, ranks, lines", [
    (True, 2, ["ok    T4, 16.0 GB: --precision auto is bf16", "ok    2 ranks, 2 GPUs"]),
    (False, 3, ["warn  T4, 16.0 GB: --precision auto is fp32 -> it has no bf16",
                "WRONG 3 ranks, 2 GPUs -> torchrun --nproc-per-node 2"])])
def test_a_gpu_without_bf16_and_ranks_without_a_gpu_are_found(find, monkeypatch, bf16, ranks, lines):
    monkeypatch.setattr(mote.runtime.ranks, "find_ranks", lambda *_: Ranks(0, 1, torch.device("cuda", 0)))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Namespace(name="T4", total_memory=16e9))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)
    assert all(got.startswith(line) for got, line in zip(find(machine.device, ranks=ranks), lines, strict=True))


def test_a_gpu_that_torch_does_not_find_is_wrong(find, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert find(machine.device) == ["ok    cpu: --precision auto is fp32"]
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    line, = find(machine.device)
    assert line.startswith(f"WRONG nvidia-smi is there, but torch {torch.__version__} finds no GPU -> ")
    assert find(machine.device, "--device", "cpu") == ["ok    cpu: --precision auto is fp32"]
    assert "expected auto, cpu" in find(machine.device, "--device", "gpu")[0]


@pytest.mark.parametrize("cores, ranks, arguments, omp, level, words", [
    (2, 1, "--threads 2", "", "ok", "2 cores for 1 x 2 threads"),
    (2, 2, "--threads 2", "", "WRONG", "2 cores for 2 x 2 threads of torch (on 2 cores, 2 processes of 2 threads took "
     "15 to 25 times as long as of 1) -> --threads 1"),
    (2, 4, "--threads 1", "", "WRONG", "-> --threads 1 and torchrun --nproc-per-node 2"),
    (8, 2, "", "3", "ok", "8 cores for 2 x 3 threads"),           # torch's own choice, here 3, follows OMP_NUM_THREADS
    (8, 4, "", "", "ok", "8 cores for 4 x 1 threads"),            # torchrun's, without
    (2, 1, "", "", "WRONG", "2 cores for 1 x 3 threads")])
def test_more_threads_than_cores_are_wrong(find, monkeypatch, cores, ranks, arguments, omp, level, words):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    line, workers = find(machine.threads, *arguments.split(), "--workers", "0", ranks=ranks)
    assert line.startswith(f"{level:6s}") and words in line and workers.startswith("ok")
    line, _ = find(machine.threads, *arguments.split(), "--workers", "0", ranks=ranks, device=torch.device("cuda"))
    assert line.startswith(f"{level.replace('WRONG', 'warn'):6s}")               # a GPU does the work


def test_more_workers_than_cores_and_a_containers_share_are_seen(find, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert find(machine.threads, "--workers", "32", ranks=2)[1] == "ok    64 cores for 2 x 32 workers"
    monkeypatch.setattr(workers, "container_limit", {"cpu.max": "400000 100000\n"}.get)
    assert find(machine.threads, "--workers", "32", ranks=2)[1] == "warn  4 cores for 2 x 32 workers -> --workers 2"


def test_shared_memory_is_compared_with_the_batches_that_lie_there(find, monkeypatch):
    need = (2 * 2 + 1) * 144 * 8 * 3 * 224 * 224                 # two workers, two batches each, and one in use
    for room, level in ((need, "ok    "), (need - 1, "WRONG ")):
        free(monkeypatch, room)
        line = find(machine.shared_memory)[0]
        assert line.startswith(level) and line.count("867 MB") >= 1
    assert line.endswith("-> docker run --shm-size=2g, a higher --accumulate, or --workers 0")
    free(monkeypatch, need / 16)
    assert find(machine.shared_memory, "--accumulate", "16")[0].startswith("ok    ")
    assert find(machine.shared_memory, "--accumulate", "8", ranks=2)[0].startswith("WRONG ")
    assert find(machine.shared_memory, "--workers", "0")[0].startswith("ok    ")


def test_few_open_files_are_a_warning(find, monkeypatch):
    for soft, level in ((256, "warn  256 open files at most -> ulimit -n 4096"),
                        (1024, "ok    1024 open files at most")):
        monkeypatch.setattr(machine.resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert find(machine.shared_memory)[-1] == level


def test_a_checkpoint_is_as_large_as_the_disk_must_have_room_for(find, monkeypatch, tmp_path):
    o = options("--data", "toyworld", "--backbone", "toyworld")
    clip = load_clip("toyworld", "")[0]
    parts = torch.nn.ModuleList([clip.visual, TemporalTransformer(o.clip["embed_dim"], 4, 4)])
    optimizer = torch.optim.AdamW(parts.parameters())
    sum(p.sum() for p in parts.parameters()).backward()
    optimizer.step()
    torch.save({"model": parts.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "one.pt")
    size = (tmp_path / "one.pt").stat().st_size
    arguments = ("--data", "toyworld", "--backbone", "toyworld", "--out", str(tmp_path / "new" / "run"), "--keep", "4")
    for room, level in ((5.2 * size, "ok    "), (4.8 * size, "WRONG ")):           # 4 are kept, one is being written
        free(monkeypatch, room)
        line = find(machine.disk, *arguments)[0]
        assert line.startswith(f"{level}{tmp_path}/new/run: ") and "5 checkpoints" in line
    assert line.endswith("-> another --out, or --keep 1")


def test_a_full_or_closed_folder_is_found(find, monkeypatch):
    free(monkeypatch, 1.5e9)
    _, temporary, cache = find(machine.disk)
    assert temporary.startswith("ok    ") and cache.startswith("warn  ") and cache.endswith("-> XDG_CACHE_HOME=FOLDER")
    free(monkeypatch, 0.5e9)
    assert find(machine.disk)[1].endswith("-> TMPDIR=FOLDER")
    free(monkeypatch, 1e15)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "not ours to write in" in find(machine.disk)[0] and find(machine.disk)[0].startswith("WRONG ")


# --- what the training needs ------------------------------------------------------------------------------------------
@pytest.fixture
def videos(tmp_path):
    """20 good videos, in two classes."""
    for name in ("kick", "wave"):
        (tmp_path / "data" / name).mkdir(parents=True)
        VideoEncoder(make_clip("star", "red", "moving left", (0,)), frame_rate=12).to_file(tmp_path / "0.mp4")
        for i in range(10):
            shutil.copy(tmp_path / "0.mp4", tmp_path / "data" / name / f"{i}.mp4")
    return tmp_path / "data"


def damage(videos: Path, number: int) -> list[Path]:
    files = sorted(videos.glob("*/*.mp4"))[:number]
    for file in files:
        file.write_bytes(file.read_bytes()[:300])
    return files


def slowly(path, choose):
    time.sleep(0.05)
    return mote.data.decode_distinct(path, choose)[0]


def test_the_decode_rate_is_one_workers_and_what_all_can_reach_follows(find, videos, monkeypatch):
    monkeypatch.setattr(mote.data, "decode", slowly)
    arguments = ("--data-root", str(videos), "--workers", "3", "--batch", "2")
    line, = find(training_videos.decoding, *arguments, side=32, cores=4.0, ranks=2)
    rate = float(line.removeprefix("ok    decoding: ").split()[0])
    assert 5 < rate <= 20 and "clips/s of 8 frames by one worker (16 videos), so by 2 x 3 on 4 cores at most" in line
    assert float(line.split()[-1]) == pytest.approx(4 * rate, abs=0.3)
    line, = find(training_videos.decoding, *arguments, side=32, cores=4.0, ranks=2, clips_per_second=1000)
    assert line.startswith("warn  ") and "wanted: 1000 -> " in line and line.endswith("or tools/prepare.py")
    assert 1000 / 20 <= int(line.partition("-> ")[2].split()[0]) <= 1000 / 5


@pytest.mark.parametrize("number, level", [(0, "ok"), (1, "warn"), (4, "WRONG")])
def test_videos_that_do_not_decode_are_counted_and_named(find, videos, monkeypatch, number, level):
    damaged = list(map(str, damage(videos, number)))
    # All 20, and not those of one split.
    monkeypatch.setattr(training_videos, "random", Namespace(Random=lambda _: Namespace(
        sample=lambda _, n: [(str(file), 0) for file in sorted(videos.glob("*/*.mp4"))])))
    line, *rest = find(training_videos.decoding, "--batch", "2", "--data-root", str(videos), side=32)
    assert line.startswith(f"{level:6s}")
    if number:
        assert f"{number} of 20 videos do not decode, for one {damaged[0]} -> python tools/check.py" in line
        assert line.endswith(f"--data-root {videos}") and "clips/s" in rest[0]


def test_a_folder_without_one_good_video_or_without_any_is_wrong(find, videos, tmp_path):
    damage(videos, 20)
    line, = find(training_videos.decoding, "--batch", "2", "--data-root", str(videos), side=32)
    assert line.startswith(f"WRONG decoding {videos}") and "could not be decoded" in line and "tools/check.py" in line
    line, = find(training_videos.decoding, "--batch", "2", "--data-root", str(tmp_path / "nowhere"))
    assert line.startswith("WRONG decoding: dataset k400: no folder at")


@pytest.mark.parametrize("fault, says", [(lambda: os._exit(3), "exited"), (lambda: time.sleep(60), "timed out")])
def test_a_video_that_kills_or_stops_its_decoder_is_named(find, videos, monkeypatch, fault, says):
    drawn = random.Random(0).sample(open_dataset("k400", "train", str(videos), write=False).videos, 16)

    def decode(path, choose):
        if path == drawn[5][0]:
            fault()
        return mote.data.decode_distinct(path, choose)[0]
    monkeypatch.setattr(mote.data, "decode", decode)
    monkeypatch.setattr(training_videos, "HUNG", 2)
    line, rate = find(training_videos.decoding, "--batch", "2", "--data-root", str(videos), side=32)
    assert line.startswith(f"WRONG decoding {drawn[5][0]}: ") and says in line and "(5 videos)" in rate


def test_a_batch_larger_than_the_training_set_is_wrong(find, videos):
    wrong = find(training_videos.decoding, "--batch", "17", "--data-root", str(videos), side=32)[0]
    assert wrong == "WRONG --batch 17 is more than the 16 training videos -> --batch 16 or lower"


def test_decoding_ends_in_time_and_toyworld_is_left_out(find, videos, monkeypatch):
    monkeypatch.setattr(mote.data, "decode", slowly)
    line, = find(training_videos.decoding, "--batch", "2", "--data-root", str(videos), side=32, seconds=0.12)
    assert 3 <= int(line.partition("worker (")[2].split()[0]) <= 5
    line, = find(training_videos.decoding, "--batch", "2", "--data-root", str(videos), side=32, videos=7)
    assert "(7 videos)" in line
    assert find(training_videos.decoding, "--data", "toyworld") == []


def measured(monkeypatch, one: int, two: int, room: int) -> None:
    """In the place of the processes that measure: their peaks with one clip and with two, and what is free."""
    def run(command, **_):
        clips = int(command[command.index("--clips") + 1])
        return Namespace(returncode=0, stdout=f"a line of open_clip's\n{[one, two][clips - 1]} {room}\n", stderr="")
    monkeypatch.setattr(subprocess, "run", run)


def test_memory_is_extrapolated_to_the_batch_and_compared_with_what_is_free(find, monkeypatch):
    measured(monkeypatch, 1 * 10**9, 15 * 10**8, 100 * 10**9)
    assert find(step_memory.memory, "--batch", "33") == [                                       # 1 + 0.5 x 32
        "ok    memory: 1 x 33 clips take 17.0 GB, extrapolated from 1.0 GB for one, 1.5 GB for two; 100.0 GB free"]
    assert find(step_memory.memory, "--batch", "2") == ["ok    memory: 1 x 2 clips take 1.5 GB; 100.0 GB free"]
    measured(monkeypatch, 1 * 10**9, 15 * 10**8, 10 * 10**9)
    assert find(step_memory.memory, "--batch", "32")[0].endswith(
        "10.0 GB free -> --checkpoint-activations, or --accumulate 2")          # 16: 8.5 GB
    shared, alone = (find(step_memory.memory, "--batch", "32", ranks=2, device=torch.device(kind))[0] for kind in
                     ("cpu", "cuda"))
    assert shared.startswith("WRONG memory: 2 x 16 clips take 17.0 GB") and shared.endswith(", or --accumulate 2")
    assert alone.startswith("ok    memory: 1 x 16 clips take 8.5 GB")                      # GPUs have a memory each
    measured(monkeypatch, 12 * 10**9, 12 * 10**9, 10 * 10**9)
    smaller = "fewer --frames, or a smaller --backbone"
    assert find(step_memory.memory)[0].endswith(f"free -> --checkpoint-activations, or {smaller}")
    assert find(step_memory.memory, "--checkpoint-activations")[0].endswith(f"free -> {smaller}")


@given(st.integers(1, 8), st.integers(1, 40), st.integers(1, 6), st.integers(1, 99), st.integers(0, 99),
       st.integers(1, 999))
def test_the_accumulation_advised_fits_and_none_smaller_does(ranks, part, accumulate, one, more, room):
    batch, lines = ranks * part * accumulate, []
    with pytest.MonkeyPatch.context() as patch:
        measured(patch, one, one + more, room)
        patch.setattr("builtins.print", lambda line, **_: lines.append(line))
        doctor.report(options("--batch", str(batch), "--accumulate", str(accumulate), ranks=ranks,
                              device=torch.device("cuda")), step_memory.memory)

    def fits(n: int) -> bool:
        return batch % (ranks * n) == 0 and one + more * (batch / ranks / n - 1) <= 0.9 * room
    advised = lines[0].partition("or --accumulate ")[2]
    assert lines[0].startswith("ok" if fits(accumulate) else "WRONG")
    if advised:
        assert fits(int(advised)) and not any(fits(n) for n in range(1, int(advised)))
    elif not fits(accumulate):
        assert not any(fits(n) for n in range(1, batch + 1))


def test_a_batch_that_does_not_divide_and_a_step_that_dies_are_wrong(find, monkeypatch):
    assert find(step_memory.memory, "--batch", "7", ranks=2) == [
        "WRONG memory: --batch 7 must be a multiple of ranks x accumulation = 2 x 1"]
    for code, error, says in ((-9, "", "signal 9, of which 9 is want of memory"),
                              (1, "Traceback\nOutOfMemoryError: CUDA out of memory", "CUDA out of memory")):
        monkeypatch.setattr(subprocess, "run", lambda *_, code=code, error=error, **__: Namespace(
            returncode=code, stdout="", stderr=error))
        line, = find(step_memory.memory)
        assert line.startswith("WRONG training steps of 1 clips: ") and says in line and "smaller --backbone" in line


def test_the_steps_measured_are_those_of_the_command(monkeypatch):
    seen, real = [], train.Objective.forward

    def forward(self, frames, labels, expert_LE, merging_LE):
        seen.append((tuple(frames.shape), tuple(expert_LE.shape), self.second_pass, self.model.visual.transformer
                     .grad_checkpointing, self.model.temporal.num_experts))
        return real(self, frames, labels, expert_LE, merging_LE)
    monkeypatch.setattr(train.Objective, "forward", forward)
    o = options("--data", "toyworld", "--backbone", "toyworld", "--frames", "4", "--layers", "2", "--experts", "3",
                "--checkpoint-activations", "--device", "cpu")
    peak, room = step_memory.take_steps(o, 3)
    assert seen == [((3, 4, 3, 40, 40), (2, 3), True, True, 3)] * 2
    assert 10**8 < peak < 10**11 and 0 < room < 10**15


def test_memory_is_measured_in_processes_of_their_own(find):
    line, = find(step_memory.memory, "--data", "toyworld", "--backbone", "toyworld", "--batch", "1", "--device", "cpu")
    assert line.startswith("ok    memory: 1 x 1 clips take ") and 0.1 < float(line.split("take ")[1].split()[0]) < 1000


def test_the_memory_of_a_container_counts_its_file_cache_as_free(monkeypatch):
    whole = step_memory.free_memory()
    assert 0 < whole < 10**15
    limits = {"memory.max": "1000\n", "memory.current": "900\n", "memory.stat": "anon 5\ninactive_file 300\nx 1\n"}
    monkeypatch.setattr(workers, "container_limit", limits.get)
    assert step_memory.free_memory() == 400
    monkeypatch.setattr(workers, "container_limit", lambda _: "max\n")
    assert step_memory.free_memory() == pytest.approx(whole, rel=0.5)
