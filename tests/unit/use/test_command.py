"""`ssp predict`: files, folders, windows and pipes; what is wrong with one stops no other."""

import json
import os
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

import ssp
from ssp.backbone.videomamba import VideoMamba
from ssp.cli import main
from tests.unit.made_videos import scene, write_video


@pytest.fixture
def call(monkeypatch, capsys, trained, tmp_path):
    """A function that calls `ssp predict` beside a config of the results: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    plain = trained.config.model_dump(mode="json")
    plain["methods"]["vpt"] = {"method": "vpt"}
    Path("tiny.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    Path("results").symlink_to(trained.folder / "results")

    def predict(*words, model=("--config", "tiny.yaml", "--dataset", "ucf101", "--method", "ssp")):
        monkeypatch.setattr(sys, "argv", ["ssp", "predict", *map(str, (*words, *model))])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return predict


@pytest.fixture
def folder(trained, tmp_path):
    """Three videos, a broken one, and what is no video."""
    for name, video in zip(("b.avi", "a.AVI", "deep/c.avi"), trained.videos, strict=False):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(video.read_bytes())
    (tmp_path / "mine" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "mine" / "notes.txt").write_text("no video")
    return Path("mine")


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_one_video(call, trained):
    code, out, _ = call(trained.videos[0], "--top", 3)
    expected = ssp.load(trained.results, "ucf101", "ssp").predict(trained.videos[0], 3)
    assert code == 0 and out == "".join(f"{100 * p:6.2f} %  {name}\n" for name, p in expected)


def test_a_folder_with_a_broken_video_in_lines_of_json(call, trained, folder):
    code, out, err = call(folder, trained.videos[3], "--json", "--top", 2)
    found = lines(out)
    assert code == 1 and "error" not in err
    names = ["mine/a.AVI", "mine/b.avi", "mine/broken.mp4", "mine/deep/c.avi", str(trained.videos[3])]
    assert [line["file"] for line in found] == names
    predictor = ssp.load(trained.results, "ucf101", "ssp")
    for line, video in zip(found, (1, 0, None, 2, 3), strict=True):
        if video is None:
            assert line["classes"] == [] and line["error"].startswith("mine/broken.mp4: ")
            continue
        classes = [{"class": name, "probability": p} for name, p in predictor.predict(trained.videos[video], 2)]
        assert line["classes"] == classes and line["error"] is None


def test_a_folder_in_words(call, folder):
    code, out, err = call(folder, "--top", 1)
    assert code == 1
    assert out.splitlines()[::2] == ["mine/a.AVI", "mine/b.avi", "mine/deep/c.avi"]
    assert [line for line in err.splitlines() if line.startswith("error: mine/broken.mp4: ")] and err.count(
        "error"
    ) == 1


def test_results_elsewhere_and_an_export_in_place_of_a_config(call, trained, tmp_path):
    expected = call(trained.videos[0])
    cell = ("--dataset", "ucf101", "--method", "ssp")
    assert call(trained.videos[0], model=("--from", trained.results, *cell))[:2] == expected[:2]
    from ssp.use.export import write_export
    from ssp.use.run import load_run

    write_export(load_run(trained.config.placed(home=trained.results), "ucf101", "ssp", 0), tmp_path / "export")
    assert call(trained.videos[0], model=("--from", "export"))[:2] == expected[:2]


@pytest.mark.slow
def test_windows_become_a_table_and_a_picture_each(call, trained, folder):
    code, out, err = call(folder, "--window", 0.5, "--step", 0.25, "--out", "lines")
    names = ["a.AVI", "b.avi", "deep/c.avi"]
    assert code == 1 and "error: mine/broken.mp4: " in err
    assert out.splitlines() == [f"lines/{name}.{kind}" for name in names for kind in ("csv", "png")]
    found = sorted(path.relative_to("lines").as_posix() for path in Path("lines").rglob("*.*"))
    assert found == [f"{name}.{kind}" for name in names for kind in ("csv", "png")]
    windows = ssp.load(trained.results, "ucf101", "ssp").timeline(trained.videos[1], 0.5, 0.25)
    pd.testing.assert_frame_equal(pd.read_csv("lines/a.AVI.csv"), windows)
    with Image.open("lines/a.AVI.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 1000
    code, out, _ = call(folder / "a.AVI", "--window", 0.5, "--out", "again", "--json")
    assert lines(out) == [{"file": "mine/a.AVI", "csv": "again/a.AVI.csv", "png": "again/a.AVI.png", "error": None}]


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_a_pipe_is_named_window_by_window(call, trained, container):
    video = Path("stream.mkv" if container == "matroska" else "stream.ts")
    clip = scene(50)
    write_video(video, clip, "libx264" if container == "mpegts" else "mpeg4", fps=12)
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(video.read_bytes()), daemon=True)
    writer.start()
    code, out, err = call("pipe", "--window", 2, "--json")
    writer.join(timeout=60)
    found, windows = lines(out), ssp.load(trained.results, "ucf101", "ssp").timeline(video, 2)
    assert code == 0, err
    assert [(line["start"], line["end"]) for line in found] == [(0.0, 2.0), (2.0, 4.0)]
    assert [line["classes"][0]["class"] for line in found] == windows["class"].tolist()[:2]


@pytest.mark.slow
def test_draws_what_ssp_attends_to(call, trained, monkeypatch):
    batches, forward = [], VideoMamba.forward
    monkeypatch.setattr(VideoMamba, "forward", lambda self, video: batches.append(len(video)) or forward(self, video))
    plain = call(trained.videos[0])
    assert batches == [4, 2], "6 views, no more at once than an evaluation holds"
    assert plain[0] == 0 and plain[1].count("%") == 5
    assert call(trained.videos[0], "--explain", "pictures/out.png")[:2] == plain[:2]
    assert [path.name for path in Path("pictures").iterdir()] == ["out.png"]
    with Image.open("pictures/out.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 1000


VPT = ("--config", "tiny.yaml", "--dataset", "ucf101", "--method", "vpt")
SSP = (*VPT[:-1], "ssp")


@pytest.mark.parametrize(
    ("words", "model", "line"),
    [
        (["no.mp4"], SSP, "no.mp4: no such file or folder"),
        (["results/tiny/weights"], SSP, "results/tiny/weights: no video below it"),
        (["a.mp4", "--explain", "out.png"], VPT, "not method 'vpt'; take ssp"),
        (["a.mp4", "--explain", "out.jpg"], SSP, "out.jpg: the picture is a PNG"),
        (["a.mp4", "b.mp4", "--explain", "out.png"], SSP, "--explain: one picture is of one video"),
        (["a.mp4", "--window", 1], SSP, "--window: give --out, too"),
        (["a.mp4", "--out", "x"], SSP, "--step, --out: they are of windows"),
        (["a.mp4", "x/a.mp4", "--window", 1, "--out", "x"], SSP, "--out: videos of the same name"),
        (["a.mp4", "--window", 0, "--out", "x"], SSP, "window: 0 is too little"),
        (["a.mp4"], (), "give --config with --dataset and --method, or --from"),
        (["a.mp4"], (*SSP, "--from", "results/tiny"), "give --config with --dataset and --method, or --from"),
        (["a.mp4"], SSP[:2], "give --dataset and --method, too"),
        (["a.mp4"], ("--from", "x"), "x: neither config.yaml of results nor config.json"),
        (["pipe"], SSP, "pipe: a pipe is named as it comes"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(call, words, model, line):
    for path in ("a.mp4", "b.mp4", "x/a.mp4"):
        write_video(Path(path), scene(12))
    os.mkfifo("pipe")
    before = sorted(Path().iterdir())
    code, out, err = call(*words, model=model)
    assert code == 1 and out == ""
    told = [text for text in err.splitlines() if text.startswith("error: ")]
    assert len(told) == 1 and line in told[0] and err.splitlines()[-1] == told[0]
    assert sorted(Path().iterdir()) == before and sorted(Path("x").iterdir()) == [Path("x/a.mp4")]
