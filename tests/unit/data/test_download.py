"""Downloads are the file that the server has, whole, or they are not kept; the server misbehaves."""

import contextlib
import resource
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import certifi
import pytest

from ssp.config import Archive
from ssp.data import download, verify
from ssp.data.fetch import obtain
from ssp.errors import DataError, StorageError
from tests.unit.made_server import (
    CONTENT,
    DATE,
    NEW,
    SHA256,
    archive,
    cut_off,
    left_over,
    send,
    sends,
    status,
    unchecked,
    whole,
)


def whole_without_ranges(handler, start):
    send(handler, CONTENT)


def other_bytes(handler, start):
    send(handler, b"x" * len(CONTENT))


def page(body, kind="text/html; charset=utf-8"):
    return lambda handler, start: send(handler, body, content_type=kind)


html = page(b"\n<!DOCTYPE html><html>Please log in</html>")


def test_a_download(server, tmp_path):
    server.script["/a"] = [whole]
    path = obtain(archive(server, "/a", size=len(CONTENT)), None, tmp_path)
    assert path.read_bytes() == CONTENT
    assert left_over(tmp_path) == ["a.zip"]
    obtain(archive(server, "/a"), None, tmp_path)
    assert len(server.requests) == 1  # what is there and right is not fetched again


# Broken connections, with a checksum.


def test_a_broken_connection_is_continued_where_it_broke(server, tmp_path):
    server.script["/a"] = [cut_off, cut_off, whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    starts = [start for _, start in server.requests]
    assert starts[0] == 0
    assert 0 < starts[1] < starts[2]
    assert left_over(tmp_path) == ["a.zip"]


def test_as_long_as_bytes_arrive_there_is_no_end_of_attempts(server, tmp_path):
    server.script["/a"] = [sends(upto=100_000)]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) > 2 * download.ATTEMPTS


def test_a_killed_download_is_continued_by_the_next_run(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(CONTENT[:1000])
    server.script["/a"] = [whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a", 1000)]


@pytest.mark.parametrize(("known", "asked"), [({"size": len(CONTENT)}, []), ({}, [("/a", len(CONTENT))])])
def test_a_download_that_was_killed_while_it_was_verified(server, tmp_path, known, asked):
    (tmp_path / ".a.zip.part").write_bytes(CONTENT)
    nothing_left = {"content_range": f"bytes */{len(CONTENT)}"}
    server.script["/a"] = [lambda handler, start: send(handler, b"", 416, **nothing_left)]
    assert obtain(archive(server, "/a", **known), None, tmp_path).read_bytes() == CONTENT
    assert server.requests == asked


def test_a_server_that_ignores_ranges(server, tmp_path):
    server.script["/a"] = [sends(upto=300_000, etag='"1"'), whole_without_ranges]
    assert obtain(unchecked(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert [start for _, start in server.requests] == [0, 300_000]


def test_a_beginning_of_another_file_is_thrown_away(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(b"y" * 1000)
    server.script["/a"] = [whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert [start for _, start in server.requests] == [1000, 0]


def test_a_server_that_refuses_the_range(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(b"y" * (len(CONTENT) + 1))
    server.script["/a"] = [status(416), whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT


def test_a_connection_that_breaks_where_only_the_config_knows_the_size(server, tmp_path):
    server.script["/a"] = [lambda handler, start: send(handler, CONTENT[:300_000], content_length=None), whole]
    assert obtain(archive(server, "/a", size=len(CONTENT)), None, tmp_path).read_bytes() == CONTENT
    assert [start for _, start in server.requests] == [0, 300_000]


@pytest.mark.parametrize("known", [{}, {"sha256": None}])
def test_a_connection_that_is_closed_before_the_first_byte(server, tmp_path, known):
    server.script["/a"] = [sends(upto=0, content_length=None), whole]
    assert obtain(archive(server, "/a", **known), None, tmp_path).read_bytes() == CONTENT


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


# Addresses that fail.


def test_busy_servers_are_asked_again_and_dead_links_are_not(server, tmp_path):
    server.script |= {"/dead": [status(404)], "/busy": [status(503), status(429), whole]}
    assert obtain(archive(server, "/dead", "/busy"), None, tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/dead", "/busy", "/busy", "/busy"]
    server.script["/slow"] = [status(408), status(425), whole]
    assert obtain(archive(server, "/slow"), None, tmp_path / "b").read_bytes() == CONTENT


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


@pytest.mark.parametrize(
    ("asked", "longest", "waited"), [("1", 300, 1), ("3600", 0.3, 0.3), ("0", 300, 0), ("-1", 300, 0), (DATE, 300, 0)]
)
def test_a_busy_server_is_given_the_time_that_it_asks_for(server, tmp_path, monkeypatch, asked, longest, waited):
    monkeypatch.setattr(download, "LONGEST_PAUSE_S", longest)
    server.script["/a"] = [lambda handler, start: send(handler, b"", 429, retry_after=asked), whole]
    begin = time.monotonic()
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert waited <= time.monotonic() - begin < waited + 20


def test_wrong_bytes_are_not_kept_and_the_next_address_is_tried(server, tmp_path):
    server.script |= {"/wrong": [other_bytes], "/right": [whole]}
    assert obtain(archive(server, "/wrong", "/right"), None, tmp_path).read_bytes() == CONTENT
    assert left_over(tmp_path) == ["a.zip"]


def test_a_file_of_another_size_is_not_begun(server, tmp_path):
    """What another address left there stays for the next one."""
    (tmp_path / ".a.zip.part").write_bytes(CONTENT[:300_000])
    server.script |= {"/other": [sends(NEW[:900_000])], "/right": [whole]}
    assert obtain(archive(server, "/other", "/right", size=len(CONTENT)), None, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/other", 300_000), ("/right", 300_000)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (html, "delivered an HTML page"),
        (page(b'{"error": "gated"}'), "delivered an HTML page"),  # it says so itself
        (page(b'{"error": "gated"}', "application/json"), r"delivered no \.zip file .*error"),
        (page(b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "">', "text/plain"), "delivered an HTML page"),
        (page(b"", "application/zip"), "delivered an empty file"),
    ],
)
def test_an_error_page_with_status_200_is_not_kept_even_without_a_checksum(server, tmp_path, answer, reason):
    server.script |= {"/page": [answer], "/right": [whole]}
    with pytest.raises(DataError, match=reason):
        obtain(unchecked(server, "/page"), None, tmp_path)
    assert left_over(tmp_path) == []
    assert obtain(unchecked(server, "/page", "/right"), None, tmp_path).read_bytes() == CONTENT
    assert left_over(tmp_path) == ["a.zip"]


def test_an_archive_that_the_server_takes_for_a_page_is_kept(server, tmp_path):
    """Scripts that send files often forget to say what they send."""
    server.script["/a"] = [sends(content_type="text/html")]
    assert obtain(unchecked(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    weights = Archive(
        file="a.pth", urls=[server.address + "/a"], sha256=SHA256
    )  # the name says nothing of its beginning
    assert obtain(weights, None, tmp_path).read_bytes() == CONTENT


def test_a_file_whose_first_piece_is_a_single_byte(server, tmp_path):
    def pieces(handler, start):
        handler.protocol_version = "HTTP/1.1"
        send(handler, b"", content_length=None, transfer_encoding="chunked")
        for piece in (CONTENT[:1], CONTENT[1:9], CONTENT[9:], b""):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    server.script["/a"] = [pieces]
    assert obtain(unchecked(server, "/a"), None, tmp_path).read_bytes() == CONTENT


def test_a_page_at_one_address_does_not_spoil_the_next(server, tmp_path):
    long_page = b"<!doctype html><html>" + b"x" * 200_000
    server.script |= {"/page": [sends(long_page, upto=100_000)], "/a": [whole]}
    assert obtain(archive(server, "/page", "/a"), None, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/page", 0), ("/a", 0)]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".a.zip.part").write_bytes(long_page)  # as a former version left it
    assert obtain(archive(server, "/a"), None, tmp_path / "b").read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["abc", "-5", "5, 6", "5, 5"])
def test_a_server_that_announces_nonsense(server, tmp_path, length):
    server.script["/a"] = [sends(content_length=length), whole]
    with contextlib.suppress(DataError):  # one line, and nothing wrong is kept
        assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_certificate_that_is_not_trusted_is_named_with_the_ways_out(server, tmp_path, monkeypatch):
    cert = tmp_path / "cert"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
    subprocess.run(
        [*request.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", cert],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, tmp_path / "key")
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    entry = Archive(file="a.zip", urls=[server.address.replace("http:", "https:") + "/a"])
    with pytest.raises(
        DataError, match=r"certificate is not trusted \(self.signed certificate\): .*CA_BUNDLE"
    ) as caught:
        obtain(entry, None, tmp_path / "archives")
    assert "attempts" not in str(caught.value)  # it would not be another one
    assert f"by hand to {tmp_path / 'archives' / 'a.zip'}, or name a folder" in str(caught.value)

    (tmp_path / "bundle").write_text(Path(certifi.where()).read_text() + cert.read_text())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "bundle"))
    server.script["/a"] = [whole]
    assert obtain(entry, None, tmp_path / "archives").read_bytes() == CONTENT


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    with pytest.raises(DataError, match="no connection"):
        obtain(Archive(file="a.zip", urls=["http://127.0.0.1:9/a.zip"]), None, tmp_path)


def test_a_proxy_that_is_not_there(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="no connection by way of the proxy"):
        obtain(Archive(file="a.zip", urls=["http://data.example/a.zip"]), None, tmp_path)


ODD = [
    "htp://x/a.zip",
    "http://",
    "no address",
    "http://[::1/a.zip",
    "http://a..b/x",
    "http://x:y/a",
    "http://\n/\x1b[31m",
]


@pytest.mark.parametrize("url", ODD)
def test_what_is_no_address(tmp_path, url):
    with pytest.raises(DataError, match=r"a\.zip: could not be fetched") as caught:
        obtain(Archive(file="a.zip", urls=[url]), None, tmp_path)
    message = str(caught.value)
    assert (url if url.isprintable() else repr(url)) in message
    assert message.isprintable()  # one line, and no colours of the terminal


# Room on the disk.


def test_a_download_that_cannot_fit_is_not_begun(server, tmp_path, monkeypatch):
    """The size is known from the config; what another address left there counts as had."""
    server.script["/a"] = [whole]
    monkeypatch.setattr(verify.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": len(CONTENT) - 1})())
    with pytest.raises(DataError, match=r"1\.0 MB needed, 1\.0 MB free .*; make room there"):
        obtain(archive(server, "/a", size=len(CONTENT)), None, tmp_path)
    assert server.requests == []
    (tmp_path / ".a.zip.part").write_bytes(CONTENT[:1000])
    assert obtain(archive(server, "/a", size=len(CONTENT)), None, tmp_path).read_bytes() == CONTENT


def test_no_room_on_the_disk(server, tmp_path, monkeypatch):
    server.script["/a"] = [whole]
    monkeypatch.setattr(verify.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match=r"1\.0 MB needed, 10 bytes free"):
        obtain(archive(server, "/a"), None, tmp_path)


@contextlib.contextmanager
def largest_file(size):
    """The operating system refuses to let files grow beyond that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_on_the_way(server, tmp_path):
    """The message names the file, and what came stays for the next run."""
    server.script["/a"] = [sends(content_length=None)]
    with (
        pytest.raises(StorageError, match=r"\.a\.zip\.part: cannot be written \(.*\); make room"),
        largest_file(500_000),
    ):
        obtain(archive(server, "/a"), None, tmp_path)
    server.script["/a"] = [whole]
    assert obtain(archive(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert server.requests[1][1] > 0
