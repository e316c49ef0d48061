"""`ssp predict --explain` with weights that were really trained, at the smallest size."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from ssp.backbone.videomamba import VideoMamba
from ssp.cli import main
from ssp.jobs.seed import train_cell
from ssp.jobs.sweep import run_sweep


@pytest.fixture
def call(tiny, tiny_data, monkeypatch, capsys):
    """A function that predicts a video of the set: (exit code, stdout, stderr)."""
    config = tiny(
        sweep__trials=1,
        sweep__epochs=1,
        datasets__ucf101__recipe__epochs=1,
        datasets__ucf101__recipe__micro_batch=2,
        datasets__ucf101__clips__test_segments=3,
        datasets__ucf101__clips__test_crops=2,
    )
    Path("tiny.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    manifest = pd.read_parquet(tiny_data / "ucf101" / "manifest.parquet")
    video = tiny_data / "ucf101" / "videos" / manifest["path"].iloc[0]

    def predict(method, *more):
        words = ["ssp", "predict", video, "--config", "tiny.yaml", "--dataset", "ucf101", "--method", method, *more]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    predict.config = config
    return predict


def test_draws_what_ssp_attends_to(call, capsys, monkeypatch):
    run_sweep(call.config, "ucf101", "ssp")
    train_cell(call.config, "ucf101", "ssp", 0)
    capsys.readouterr()
    batches, forward = [], VideoMamba.forward
    monkeypatch.setattr(VideoMamba, "forward", lambda self, video: batches.append(len(video)) or forward(self, video))
    plain = call("ssp")
    assert batches == [4, 2], "6 views, no more at once than an evaluation holds"
    assert plain[0] == 0 and plain[1].count("%") == 5
    assert call("ssp", "--explain", "pictures/out.png")[:2] == plain[:2]
    assert [path.name for path in Path("pictures").iterdir()] == ["out.png"]
    with Image.open("pictures/out.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 1000


@pytest.mark.parametrize(
    ("method", "name", "line"),
    [("vpt", "out.png", "not method 'vpt'; take ssp"), ("ssp", "out.jpg", "out.jpg: the picture is a PNG")],
)
def test_a_mistake_is_one_line_and_nothing_is_written(call, method, name, line):
    code, out, err = call(method, "--explain", name)
    assert code == 1 and out == "" and not Path(name).exists()
    assert err.startswith("error: ") and line in err and err.count("\n") == 1
