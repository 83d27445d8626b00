"""The picture kernels on the CPU, through the host shim under ASan and UBSan, against the preprocessing of the CPU.

Pictures, windows and crops lie in buffers of exactly their size; outputs start as NaN; shared memory starts as 0xff and
is as large as the launch says. `test_mutants` breaks the kernels to prove that the checks see it.
"""

import ctypes
import itertools
import shutil
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgekd.errors import InputError
from edgekd.model_set import CropInput, ImageInput
from edgekd.ops._cpu_build import kernel_sources_dir
from edgekd.runtime.crops import cut
from edgekd.runtime.picture_job import Job, crops_launch, letterbox_launch
from edgekd.runtime.preprocess import place, preprocess

GXX = shutil.which("g++")
pytestmark = pytest.mark.skipif(GXX is None, reason="needs g++")
MEAN, STD, PAD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4), (114.0, 100.0, 90.0)


def build(csrc, output):
    command = [GXX, "-g1", "-O0", "-std=c++17", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    command += ["-w", str(csrc / "host" / "picture_check.cpp"), "-o", str(output)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return output


class Shim:
    """The compiled program as a process that answers one case after another."""

    def __init__(self, program):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([program], **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()

    def run(self, launch, picture, windows=None, reverse=0):
        n = 0 if windows is None else len(windows)
        case = struct.pack("3i", int(n > 0), n, reverse) + bytes(launch.job)
        wanted = (n or np.float32().itemsize) * 3 * launch.job.out_width * launch.job.out_height
        try:
            self.process.stdin.write(case + (b"" if windows is None else windows.tobytes()) + picture.tobytes())
            self.process.stdin.flush()
            answer = self.process.stdout.read(wanted)
        except BrokenPipeError:
            answer = b""
        if len(answer) < wanted:
            raise AssertionError(self.process.stderr.read().decode(errors="replace")[:600])
        return np.frombuffer(answer, np.uint8 if n else np.float32)


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    with Shim(build(kernel_sources_dir() / "csrc", tmp_path_factory.mktemp("shim") / "picture_check")) as process:
        yield process


def picture_of(width, height, seed=0):
    """Noise over slopes: neighbours differ much, and a shift by one pixel shows everywhere."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    slope = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([1, 2, 3])
    return np.where(noise > 128, noise, slope % 256).astype(np.uint8)


def spec_of(width, height, where="centre", how="area"):
    return ImageInput(
        height_px=height, width_px=width, place=where, interpolation=how, mean=MEAN, std=STD, pad=PAD
    )  # fmt: skip


def check_letterbox(program, picture, spec, reverse=0):
    expected, placement = preprocess(picture, spec)
    launch = letterbox_launch(placement, spec)
    ours = program.run(launch, picture, reverse=reverse).reshape(expected.shape)
    levels = np.abs(ours - expected) * np.array(STD, np.float32)[:, None, None]
    assert levels.max() <= 1.001, "grey levels"
    assert (levels > 0.5).mean() < 0.02, "only ties may round differently"


def check_crops(program, picture, windows, spec):
    expected = cut(picture, windows, spec)
    launch = crops_launch(picture.shape[:2], windows, spec)
    ours = program.run(launch, picture, windows).reshape(expected.shape)
    difference = np.abs(ours.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02


sides = st.integers(1, 150)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    picture_px=st.tuples(sides, sides), input_px=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    where=st.sampled_from(("centre", "top_left")), how=st.sampled_from(("area", "linear")), seed=st.integers(0, 99),
)  # fmt: skip
@example(picture_px=(10, 10), input_px=(5, 5), where="centre", how="area", seed=0)  # a quarter of all means are ties
@example(picture_px=(148, 148), input_px=(37, 37), where="centre", how="area", seed=0)  # a sixteenth, rounded to even
@example(picture_px=(74, 74), input_px=(37, 37), where="centre", how="area", seed=1)
def test_letterbox_is_that_of_the_cpu(shim, picture_px, input_px, where, how, seed):
    check_letterbox(shim, picture_of(*picture_px, seed), spec_of(*input_px, where, how), seed % 2)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    picture_px=st.tuples(sides, sides), side=st.integers(8, 48), seed=st.integers(0, 99),
    corners=st.lists(st.tuples(st.integers(-60, 160), st.integers(-60, 160), st.integers(1, 150), st.integers(1, 150)),
                     min_size=1, max_size=3),
)  # fmt: skip
def test_crops_are_those_of_the_cpu(shim, picture_px, side, seed, corners):
    windows = np.array([(x, y, x + width, y + height) for x, y, width, height in corners], np.int32)
    check_crops(shim, picture_of(*picture_px, seed), windows, CropInput(side_px=side, window_factor=1.3, pad=PAD))


@pytest.mark.parametrize(("size", "spec"), [
    ((257, 131), spec_of(128, 128)),  # several tiles across
    ((128, 64), spec_of(64, 64, how="linear")),  # halves both sides
    ((64, 64), spec_of(64, 64)),  # nothing to resize
    ((3000, 2), spec_of(64, 32)),  # shared memory holds few rows of a tile
    ((64, 900), spec_of(32, 32)),  # several chunks of rows
])  # fmt: skip
def test_special_sizes(shim, size, spec):
    for reverse in (0, 1):
        check_letterbox(shim, picture_of(*size), spec, reverse)


def test_every_tile_fits_the_shared_memory_of_its_block():
    for picture_px, out in itertools.product(((65000, 65000), (1, 65000), (2000, 3001)), (32, 200, 640, 8192)):
        spec = spec_of(out, out)
        launch = letterbox_launch(place(picture_px, spec), spec)
        scale = picture_px[1] / launch.job.width
        columns = 4 * launch.job.tile_groups * scale + 2
        assert columns * 3 + 30 <= launch.job.staged_bytes <= 48 * 1024
        assert 128 // launch.job.tile_groups >= 4
    with pytest.raises(InputError, match="the picture shrinks 65000 times, expected at most 3072; tile it"):
        letterbox_launch(place((65000, 65000), spec_of(1, 1)), spec_of(1, 1))


def test_the_job_is_the_structure_of_the_kernels(tmp_path):
    """A field that is missing on one side shifts all that follow."""
    source = (kernel_sources_dir() / "csrc" / "picture_device.cuh").read_text()
    body = source.split("struct Job {")[1].split("};")[0]
    words = [line.split("//")[0] for line in body.splitlines()]
    names = [name.split("[")[0].strip() for line in words for name in line.replace(";", "").split(",")]
    fields = [name.removeprefix("int ").removeprefix("float ") for name in names if name]
    assert fields == [name for name, _ in Job._fields_]
    assert ctypes.sizeof(Job) == 4 * (11 + 9)


# Compiling takes most of the time of a mutant, so there are few.
MUTANTS = {
    "an unaligned load": ("picture_device.cuh", "aligned = from & ~static_cast<long long>(kVector - 1)",
                          "aligned = from"),
    "no barrier before the chunk is read": ("picture_resample.cuh", "    __syncthreads();\n    visit", "    visit"),
    "a crop beyond its rows": ("picture_kernels.cu", "job.out_width && row < job.out_height}", "job.out_width}"),
}  # fmt: skip


def check_all(program):
    windows = np.array([(-20, 30, 60, 150), (100, 100, 160, 190)], np.int32)
    for reverse in (0, 1):
        check_letterbox(program, picture_of(149, 131), spec_of(45, 45), reverse)
        check_letterbox(program, picture_of(64, 900), spec_of(32, 32), reverse)
    check_crops(program, picture_of(149, 131), windows, CropInput(side_px=31, window_factor=1, pad=PAD))


def test_the_mutants_cases_pass(shim):
    check_all(shim)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(name, tmp_path):
    file, good, bad = MUTANTS[name]
    csrc = tmp_path / "csrc"
    shutil.copytree(kernel_sources_dir() / "csrc", csrc)
    source = (csrc / file).read_text()
    assert good in source
    (csrc / file).write_text(source.replace(good, bad))
    with Shim(build(csrc, tmp_path / "mutant")) as program, pytest.raises(AssertionError):
        check_all(program)
