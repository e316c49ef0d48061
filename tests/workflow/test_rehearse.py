"""A rehearsal that must fail: three faults are planted, and each is named with its reason and its log."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.made_videos import scene, write_video
from tests.workflow.running import ROOT, TINY

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.timeout(1800)]

PLANTED = '''
from ssp.config import Strict
from ssp.methods.method import TuningMethod


class Brittle(TuningMethod):
    """Has a code for each class, and not for more than 128."""

    name = title = "brittle"

    class Options(Strict):
        codes: int = 128

    def attach(self, model):
        codes = [0] * self.options.codes
        codes[model.head.out_features - 1]


class Hungry(TuningMethod):
    """Takes all pairs of frames at once."""

    name = title = "hungry"

    def tokens(self, current, tokens):
        if current.layout.frames >= 32 and tokens.device.type != "meta":
            raise MemoryError("pairs of 32 frames")
        return tokens
'''
ENTRY_POINTS = "[ssp.methods]\nbrittle = planted:Brittle\nhungry = planted:Hungry\n"


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """`ssp rehearse` on own videos (a listed file is gone), 174 classes, and clips of 32 frames; and its folder."""
    folder = tmp_path_factory.mktemp("faults")
    plugin = folder / "plugin"
    (plugin / "planted-1.dist-info").mkdir(parents=True)
    (plugin / "planted.py").write_text(PLANTED)
    (plugin / "planted-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
    (plugin / "planted-1.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "rehearsed.yaml").write_text(yaml.safe_dump(faulty(folder)))
    words = ["rehearse", "rehearsed.yaml", "--folder", "small", "--cores", "2"]
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{plugin}"}
    command = [sys.executable, "-m", "ssp", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True), folder / "small"


def faulty(folder: Path) -> dict:
    """A config in which three things break, each in one place."""
    plain = yaml.safe_load(TINY.read_text())
    shared = plain["datasets"]["ucf101"] | {"validation": {"fraction": 0}}
    del shared["generate"], shared["local"]
    videos = folder / "own"
    videos.mkdir()
    for number in range(4):
        write_video(videos / f"{number}.mp4", scene(12, width=48, height=36))
    lines = [f"{number}.mp4,{'ab'[number % 2]},{'train' if number < 2 else 'test'}" for number in range(4)]
    (videos / "list.csv").write_text("\n".join(["path,label,split", *lines, "gone.mp4,a,train", ""]))
    own = {key: shared[key] for key in ("frames", "checkpoint", "recipe", "start", "validation")}
    own |= {"expected": {"classes": 2, "train": 3, "test": 2}}
    own |= {"source": "table", "videos": str(videos / "list.csv"), "clips": {"sampling": "sparse", "num_frames": 4}}
    many = {"source": "ssv2", "expected": {"classes": 174, "train": 168913, "test": 24777}}
    many["archives"] = [{"file": "20bn-something-something-v2-00"}, {"file": "labels.zip"}]
    many["clips"] = {"sampling": "sparse", "num_frames": 4}
    long = {"source": "ucf101", "clips": {"sampling": "dense", "num_frames": 32}, "checkpoint": "f32"}
    plain["backbone"]["checkpoints"]["f32"] = {"num_frames": 32, "archive": {"file": "published.pth"}}
    return plain | {
        "datasets": {"long": shared | long, "many": shared | many, "mine": own},
        "methods": {"linear": {}, "brittle": {}, "hungry": {}},
        "sweep": {"trials": 0},
        "ablations": {},
        "reference": "linear",
        "explained": None,
    }


def told(done: subprocess.CompletedProcess) -> dict[str, str]:
    """Reason of each job that broke, from what was printed."""
    lines = done.stdout[done.stdout.index(" broke:") :].partition("\n\n")[0].splitlines()[1:]
    return dict(line.strip().split(": ", 1) for line in lines if not line.startswith("    "))


def test_each_fault_is_named_with_its_reason_and_nothing_else(rehearsed):
    done, _ = rehearsed
    assert done.returncode == 1, done.stdout + done.stderr
    broken = told(done)
    assert "list index out of range" in broken.pop("train many brittle seed0")
    assert broken.pop("train long hungry seed0") == "out of memory: pairs of 32 frames (one video a pass)"
    assert broken.pop("costs hungry") == "out of memory: pairs of 32 frames"
    assert "gone.mp4" in broken.pop("manifest mine")
    assert broken == {}


def test_the_log_of_each_is_there(rehearsed):
    done, folder = rehearsed
    logs = [line.partition("log: ")[2] for line in done.stdout.splitlines() if line.startswith("    log: ")]
    assert len(logs) == 4 and all((folder.parent / log).is_file() for log in logs)


def test_what_did_not_break_was_run_and_is_planned(rehearsed):
    done, folder = rehearsed
    records = {path.parts[-3:-1] for path in folder.glob("results/tiny/records/*/*/seed0.json")}
    assert {("many", "linear"), ("long", "linear"), ("many", "hungry"), ("long", "brittle")} <= records
    assert "The plan, from what was measured" in done.stdout and "Speeds measured: 4 trainings" in done.stdout
