"""A rehearsal's folder: a config that says what it is, weights that fit, and nothing written for nothing."""

import pytest
import torch

from ssp.backbone.checkpoint import load_weights
from ssp.config import load_config, read_yaml
from ssp.errors import ConfigError
from ssp.jobs.cell import new_model
from ssp.rehearsal import run
from tests.workflow.running import TINY


@pytest.fixture
def given():
    """tiny.yaml with published weights in place of a pre-training."""
    plain = read_yaml(TINY)
    plain["backbone"]["checkpoints"]["f4"] = {"num_frames": 4, "archive": {"file": "published.pth"}}
    return plain, load_config(TINY).model_validate(plain).placed(origin=TINY)


def test_the_folder_holds_a_config_with_a_comment_and_weights_that_fit(given, tmp_path):
    small = run.prepare(*given, tmp_path, gpu=False)
    text = (tmp_path / "rehearsal.yaml").read_text()
    assert text.startswith(f"# A rehearsal of {TINY}, written by `ssp rehearse`") and "&id" not in text
    assert load_config(tmp_path / "rehearsal.yaml") == small
    model = new_model(small, "ucf101", "linear", {})
    load_weights(model, tmp_path / "backbone" / "f4.safetensors")
    assert not torch.equal(model.pos_embed, new_model(small, "ucf101", "linear", {}).pos_embed)


def test_prepared_again_it_writes_nothing_unless_the_config_is_another(given, tmp_path):
    plain, config = given
    run.prepare(plain, config, tmp_path, gpu=False)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    before = [path.stat().st_mtime_ns for path in files]
    run.prepare(plain, config, tmp_path, gpu=False)
    assert [path.stat().st_mtime_ns for path in files] == before
    plain["title"] = "Another"
    run.prepare(plain, config.model_validate(plain).placed(origin=TINY), tmp_path, gpu=False)
    assert load_config(tmp_path / "rehearsal.yaml").title == "Another"


def test_without_the_workflow_it_says_where_to_rehearse(given, tmp_path, monkeypatch):
    small = run.prepare(*given, tmp_path, gpu=False)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    with pytest.raises(ConfigError, match="no Snakefile; rehearse from a checkout of the repository"):
        run.rehearse(small, tmp_path, 32, 1, print)
