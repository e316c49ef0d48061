"""Steps at the config's own size: each row once for each length of clips, with its reason where it breaks."""

import json

import pytest

from ssp.config import read_yaml
from ssp.rehearsal.at_size import FILE, at_size, take_steps
from tests.workflow.running import TINY

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]  # a process for each step


def plain(**methods):
    """tiny.yaml with clips of two lengths, of which 4 frames are those of two data sets."""
    found = read_yaml(TINY)
    ucf101 = found["datasets"]["ucf101"]
    more = ucf101 | {"expected": ucf101["expected"] | {"classes": 174}, "generate": None, "local": None}
    long = ucf101 | {"clips": ucf101["clips"] | {"num_frames": 6}, "checkpoint": "f6"}
    found["backbone"]["checkpoints"]["f6"] = found["backbone"]["checkpoints"]["f4"] | {"num_frames": 6}
    found |= {"compute": {"train": {"threads": 1}}, "methods": methods, "ablations": {}, "explained": None}
    found["reference"] = next(iter(methods))
    return found | {"datasets": {"few": ucf101, "many": more, "long": long}}


def test_each_row_takes_a_step_for_each_length_and_what_breaks_is_named(tmp_path):
    said = []
    rows = {"linear": {}, "vpt": {"options": {"num_prompts": 10**12}}, "ssp": {"options": {"inner_dim": 0}}}
    config = at_size(plain(**rows), tmp_path, 64, 1)
    assert config.backbone.image_size == 64 and config.datasets["many"].recipe.augmentation.repeats == 1
    broken = {one.job: one.reason for one in take_steps(config, tmp_path, said.append)}
    assert {job for job in broken if "vpt" in job} == {"step of vpt at 4 x 64 x 64", "step of vpt at 6 x 64 x 64"}
    assert all(reason.startswith("out of memory") for job, reason in broken.items() if "vpt" in job)
    assert "inner_dim" in broken["step of ssp at 4 x 64 x 64"] and len(broken) == 4
    assert [line.split(": ")[0] for line in said][:3] == [
        f"step of {row} at 4 x 64 x 64, 174 classes" for row in ("linear", "vpt", "ssp")
    ]
    assert said[3].startswith("step of linear at 6 x 64 x 64, 10 classes: 0.") and said[3].endswith(" GB")


def test_what_was_found_is_not_computed_again_unless_the_row_is_another(tmp_path):
    first, again, other = [], [], []
    take_steps(at_size(plain(linear={}), tmp_path, 32, 1), tmp_path, first.append)
    known = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({key: "as it was found" for key in known}))
    broken = take_steps(at_size(plain(linear={}), tmp_path, 32, 1), tmp_path, again.append)
    assert len(first) == 2 and not again and {one.reason for one in broken} == {"as it was found"}
    take_steps(at_size(plain(linear={}) | {"protocol": "fixed"}, tmp_path, 48, 1), tmp_path, other.append)
    assert len(other) == 2
