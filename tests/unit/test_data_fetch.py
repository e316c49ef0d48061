"""Archives come verified or not at all, from a folder or from a server that misbehaves."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from made_videos import small_config

from ssp.config import Archive, load_config
from ssp.data import download, verify
from ssp.data.fetch import fetch_dataset, obtain
from ssp.errors import DataError
from ssp.paths import Paths

CONTENT = b"PK" + bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A loopback server whose answers a test scripts: a list of functions (handler, start) per path."""

    def __init__(self):
        self.script, self.requests = {}, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
                outer.requests.append((self.path, start))
                answers = outer.script[self.path]
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                answer(self, start)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    made = Server()
    yield made
    made.close()


def send(handler, body, status=200, kind="application/octet-stream", length=None, content_range=None):
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    if content_range:
        handler.send_header("Content-Range", content_range)
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler, start):
    """A server that knows ranges."""
    rest = CONTENT[start:]
    span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}" if start else None
    send(handler, rest, 206 if start else 200, content_range=span)


def whole_without_ranges(handler, start):
    send(handler, CONTENT)


def cut_off(handler, start):
    """Announces everything, sends a third of it, and hangs up."""
    rest = CONTENT[start:]
    span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}" if start else None
    send(handler, rest[: len(rest) // 3], 206 if start else 200, length=len(rest), content_range=span)
    handler.close_connection = True


def status(code):
    return lambda handler, start: send(handler, b"no", code)


def other_bytes(handler, start):
    send(handler, b"x" * len(CONTENT))


def html(handler, start):
    send(handler, b"\n<!DOCTYPE html><html>Please log in</html>", kind="text/html")


def archive(server, *paths, **known):
    return Archive(file="a.zip", urls=[server.address + path for path in paths], **({"sha256": SHA256} | known))


def left_over(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_download(server, tmp_path):
    server.script["/a"] = [whole]
    path = obtain(archive(server, "/a", size=len(CONTENT)), None, tmp_path)
    assert path.read_bytes() == CONTENT
    assert left_over(tmp_path) == ["a.zip"]
    obtain(archive(server, "/a"), None, tmp_path)
    assert len(server.requests) == 1  # what is there and right is not fetched again


def test_a_broken_connection_is_continued_where_it_broke(server, tmp_path):
    server.script["/a"] = [cut_off, cut_off, whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    starts = [start for _, start in server.requests]
    assert starts[0] == 0
    assert 0 < starts[1] < starts[2]


def test_a_killed_download_is_continued_by_the_next_run(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(CONTENT[:1000])
    server.script["/a"] = [whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a", 1000)]


def test_a_server_that_ignores_ranges(server, tmp_path):
    server.script["/a"] = [cut_off, whole_without_ranges]
    unchecked = archive(server, "/a", sha256=None)  # a checksum would notice an appended second beginning
    assert obtain(unchecked, None, tmp_path).read_bytes() == CONTENT


def test_a_beginning_of_another_file_is_thrown_away(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(b"y" * 1000)
    server.script["/a"] = [whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert [start for _, start in server.requests] == [1000, 0]


def test_a_server_that_refuses_the_range(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(b"y" * (len(CONTENT) + 1))
    server.script["/a"] = [status(416), whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT


def test_busy_servers_are_asked_again_and_dead_links_are_not(server, tmp_path):
    server.script |= {"/dead": [status(404)], "/busy": [status(503), status(429), whole]}
    assert obtain(archive(server, "/dead", "/busy"), None, tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/dead", "/busy", "/busy", "/busy"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(404), "HTTP 404"),
        (status(503), "HTTP 503, 4 attempts"),
        (html, "HTML page"),
        (other_bytes, f"expected sha256 {SHA256}, found "),
        (cut_off, "connection"),
    ],
)
def test_when_every_address_fails_one_line_says_why(server, tmp_path, answer, reason):
    server.script["/a"] = [answer]
    with pytest.raises(DataError, match=r"a\.zip") as caught:
        obtain(archive(server, "/a"), None, tmp_path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "a.zip" not in left_over(tmp_path)


def test_wrong_bytes_are_not_kept_and_the_next_address_is_tried(server, tmp_path):
    server.script |= {"/wrong": [other_bytes], "/right": [whole]}
    assert obtain(archive(server, "/wrong", "/right"), None, tmp_path).read_bytes() == CONTENT
    assert left_over(tmp_path) == ["a.zip"]


def hangs(handler, start):
    """Sends a part, then nothing, without hanging up."""
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(CONTENT) - start))
    handler.end_headers()
    handler.wfile.write(CONTENT[start : start + 100_000])
    handler.wfile.flush()
    time.sleep(1)
    handler.close_connection = True


def test_a_server_that_falls_silent_is_asked_again_for_the_rest(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server.script["/a"] = [hangs, whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert server.requests[1][1] > 0


def test_an_error_page_with_status_200_is_not_kept_even_without_a_checksum(server, tmp_path):
    server.script |= {"/page": [html], "/right": [whole]}
    unchecked = archive(server, "/page", "/right", sha256=None)
    assert obtain(unchecked, None, tmp_path).read_bytes() == CONTENT
    assert left_over(tmp_path) == ["a.zip"]


def test_a_download_that_cannot_fit_is_not_begun(server, tmp_path, monkeypatch):
    """The size is known from the config; what another address left there counts as had."""
    server.script["/a"] = [whole]
    monkeypatch.setattr(verify.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": len(CONTENT) - 1})())
    with pytest.raises(DataError, match=r"1\.0 MB needed, 1\.0 MB free .*; make room there"):
        obtain(archive(server, "/a", size=len(CONTENT)), None, tmp_path)
    assert server.requests == []
    (tmp_path / ".a.zip.part").write_bytes(CONTENT[:1000])
    assert obtain(archive(server, "/a", size=len(CONTENT)), None, tmp_path).read_bytes() == CONTENT


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    with pytest.raises(DataError, match="no connection"):
        obtain(Archive(file="a.zip", urls=["http://127.0.0.1:9/a.zip"]), None, tmp_path)


@pytest.mark.parametrize("url", ["htp://x/a.zip", "http://", "no address"])
def test_what_is_no_address(tmp_path, url):
    with pytest.raises(DataError, match=r"a\.zip: could not be fetched") as caught:
        obtain(Archive(file="a.zip", urls=[url]), None, tmp_path)
    assert url in str(caught.value)


def test_a_file_address(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x y.zip").write_bytes(CONTENT)
    url = (tmp_path / "there" / "x y.zip").as_uri()
    assert obtain(Archive(file="a.zip", urls=[url]), None, tmp_path / "here").read_bytes() == CONTENT


def test_no_room_on_the_disk(server, tmp_path, monkeypatch):
    server.script["/a"] = [whole]
    monkeypatch.setattr(verify.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match=r"1\.0 MB needed, 10 bytes free"):
        obtain(archive(server, "/a"), None, tmp_path)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"size": 5}, f"expected 5 bytes, found {len(CONTENT)}"),
        ({"sha256": "0" * 64}, f"expected sha256 {'0' * 64}, found {SHA256}"),
        ({"md5": "0" * 32}, f"expected md5 {'0' * 32}, found {hashlib.md5(CONTENT).hexdigest()}"),
    ],
)
def test_a_local_file_that_is_not_the_right_one(tmp_path, known, reason):
    local = tmp_path / "local"
    local.mkdir()
    (local / "a.zip").write_bytes(CONTENT)
    with pytest.raises(DataError, match=reason) as caught:
        obtain(Archive(file="a.zip", **known), local, tmp_path / "archives")
    assert str(local / "a.zip") in str(caught.value)
    assert left_over(tmp_path / "archives") == []
    assert (local / "a.zip").exists()  # the user's own file is not touched


def test_local_archives_of_a_data_set(tmp_path):
    config = small_config(tmp_path, archives=[{"file": "a.zip"}, {"file": "b.zip"}])
    paths = Paths.of(config)
    with pytest.raises(DataError, match=r"a\.zip, b\.zip not there"):
        fetch_dataset(config, "ucf101")
    (tmp_path / "local").mkdir()
    for name in ("a.zip", "b.zip"):
        (tmp_path / "local" / name).write_bytes(b"PK" + name.encode())
    fetch_dataset(config, "ucf101")
    assert left_over(paths.archives("ucf101")) == ["a.zip", "b.zip"]
    assert paths.fetched("ucf101").exists()


PARTS = [f"20bn-something-something-v2-{i:02}" for i in range(20)]
LABELS = "20bn-something-something-download-package-labels.zip"


def licensed(tmp_path, **changes):
    files = [{"file": name} for name in (*PARTS, LABELS)]
    return small_config(tmp_path, archives=files, licence_page="https://example.org/licence", **changes)


def test_archives_behind_a_licence_are_named_with_page_and_place(tmp_path):
    config = licensed(tmp_path, local=None)
    folder = Paths.of(config).archives("ucf101")
    with pytest.raises(DataError) as caught:
        fetch_dataset(config, "ucf101")
    message = str(caught.value)
    assert f"{PARTS[0]} to {PARTS[19]}, {LABELS} cannot be fetched" in message
    assert "https://example.org/licence" in message
    assert str(folder) in message
    assert "datasets.ucf101.local" in message
    assert "\n" not in message

    folder.mkdir(parents=True)
    for name in (*PARTS, LABELS):
        (folder / name).write_bytes(b"PK")
    (folder / PARTS[7]).unlink()
    with pytest.raises(DataError, match=f"ucf101: {PARTS[7]} cannot be fetched"):
        fetch_dataset(config, "ucf101")
    (folder / PARTS[7]).write_bytes(b"PK")
    fetch_dataset(config, "ucf101")  # downloaded by hand into the place of the archives: nothing else to do
    assert Paths.of(config).fetched("ucf101").exists()


def test_a_folder_that_lacks_some_of_them(tmp_path):
    config = licensed(tmp_path)
    (tmp_path / "local").mkdir()
    for name in PARTS[:19]:
        (tmp_path / "local" / name).write_bytes(b"PK")
    with pytest.raises(DataError, match=rf"local: {PARTS[19]}, {LABELS} not there.*https://example\.org/licence"):
        fetch_dataset(config, "ucf101")


def test_the_shipped_config_never_fetches_what_is_licensed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(Path(__file__).parents[2] / "config" / "paper.yaml")
    assert not any(archive.urls for archive in config.datasets["ssv2"].archives)
    with pytest.raises(DataError, match=f"{PARTS[0]} to {PARTS[19]}, {LABELS} .*https://.*data/paper/ssv2/archives"):
        fetch_dataset(config, "ssv2")
