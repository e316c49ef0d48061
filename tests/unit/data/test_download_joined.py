"""Pieces of a download are joined only where they are of one file; without a checksum the server must say so."""

import gzip
import os

import pytest

from ssp.config import Archive
from ssp.data.fetch import obtain
from ssp.errors import DataError
from tests.unit.made_server import CONTENT, DATE, NEW, archive, left_over, send, sends, status, unchecked, whole


@pytest.mark.parametrize(
    "validator", [{"etag": '"1"'}, {"last_modified": DATE}, {"etag": 'W/"1"', "last_modified": DATE}]
)
def test_the_same_file_is_continued(server, tmp_path, validator):
    conditions = []

    def rest(handler, start):
        conditions.append(handler.headers["If-Range"])
        sends(**validator)(handler, start)

    server.script["/a"] = [sends(upto=300_000, **validator), rest]
    assert obtain(unchecked(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert [start for _, start in server.requests] == [0, 300_000]
    assert conditions == [validator.get("last_modified", '"1"')]
    assert left_over(tmp_path) == ["a.zip"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"etag": '"1"'}, {"etag": '"2"'}),
        ({"last_modified": DATE}, {"last_modified": DATE.replace("94", "95")}),
        ({}, {}),  # the server does not say which file that is
        ({"etag": 'W/"1"'}, {"etag": 'W/"1"'}),  # nor here: the bytes may differ
    ],
)
def test_a_file_that_may_have_changed_on_the_server_begins_again(server, tmp_path, first, second):
    server.script["/a"] = [sends(upto=300_000, **first), sends(NEW, **second)]
    assert obtain(unchecked(server, "/a"), None, tmp_path).read_bytes() == NEW


def test_a_file_that_changed_its_size_begins_again(server, tmp_path):
    server.script["/a"] = [sends(upto=300_000, etag='"1"'), sends(NEW[:900_000], etag='"1"')]
    assert obtain(unchecked(server, "/a"), None, tmp_path).read_bytes() == NEW[:900_000]


def test_what_another_address_began_begins_again(server, tmp_path):
    server.script |= {"/other": [sends(upto=300_000, etag='"1"'), status(404)], "/a": [sends(NEW, etag='"1"')]}
    assert obtain(unchecked(server, "/other", "/a"), None, tmp_path).read_bytes() == NEW
    assert server.requests == [("/other", 0), ("/other", 300_000), ("/a", 0)]


def test_what_several_addresses_began_is_of_no_origin(server, tmp_path):
    """A checksum would have decided; where there is none any more, nothing can."""
    server.script |= {path: [sends(upto=300_000, etag='"1"'), status(404)] for path in ("/one", "/two")}
    with pytest.raises(DataError, match="404"):
        obtain(archive(server, "/one", "/two"), None, tmp_path)
    assert left_over(tmp_path) == [".a.zip.part"]
    server.script["/one"] = [sends(NEW, etag='"1"')]
    assert obtain(unchecked(server, "/one"), None, tmp_path).read_bytes() == NEW


def test_a_beginning_of_unknown_origin_begins_again(server, tmp_path):
    (tmp_path / ".a.zip.part").write_bytes(CONTENT[:1000])
    server.script["/a"] = [sends(NEW, etag='"1"')]
    assert obtain(unchecked(server, "/a"), None, tmp_path).read_bytes() == NEW


@pytest.mark.parametrize("known", [{}, {"sha256": None}])
@pytest.mark.parametrize("back", [1000, 300_000])
def test_an_answer_that_starts_elsewhere_is_not_joined(server, tmp_path, known, back):
    """As many bytes as are missing, but from before; or all, from the beginning of the file."""

    def earlier(handler, start):
        begin = start - back
        end = len(CONTENT) - back if begin else len(CONTENT)
        send(handler, CONTENT[begin:end], 206, content_range=f"bytes {begin}-{end - 1}/{len(CONTENT)}")

    server.script["/a"] = [sends(upto=300_000, etag='"1"'), earlier, whole]
    assert obtain(archive(server, "/a", **known), None, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == (2 if back == 300_000 else 3)


@pytest.mark.parametrize("unit", ["bytes", "Bytes"])
def test_answers_of_a_piece_each(server, tmp_path, unit):
    """As of a cache that serves blocks: what is not all yet is asked for, though no connection broke."""

    def piece(handler, start):
        end = min(start + 300_000, len(CONTENT))
        span = f"{unit} {start}-{end - 1}/{len(CONTENT)}"
        send(handler, CONTENT[start:end], 206, content_range=span, etag='"1"')

    server.script["/a"] = [piece]
    assert obtain(unchecked(server, "/a"), None, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 4


@pytest.mark.parametrize("known", [{}, {"sha256": None}])
def test_more_bytes_than_announced_are_not_kept(server, tmp_path, known):
    too_long = {"content_range": f"bytes 300000-{len(CONTENT) - 1}/{len(CONTENT)}", "etag": '"1"'}
    server.script["/a"] = [
        sends(upto=300_000, etag='"1"'),
        lambda handler, start: send(handler, CONTENT[start:] + b"x", 206, **too_long),
        whole,
    ]
    assert obtain(archive(server, "/a", **known), None, tmp_path).read_bytes() == CONTENT


def test_a_server_that_packs_what_it_sends(server, tmp_path):
    """Many call a tar.gz a tar in gzip; ranges and checksums are about the file as it lies there."""
    content = gzip.compress(os.urandom(500_000))
    entry = Archive(file="a.tar.gz", urls=[server.address + "/a"])
    for coding in ("gzip", "x-gzip"):
        server.script["/a"] = [
            sends(content, upto=upto, content_encoding=coding, etag='"1"') for upto in (200_000, None)
        ]
        assert obtain(entry, None, tmp_path / coding).read_bytes() == content
    assert [start for _, start in server.requests] == [0, 200_000] * 2
