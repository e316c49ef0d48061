"""One file from one HTTP address: continued where it broke, tried again where that may help.

Design choices
- A broken download stays as `.<file>.part`; beside it `.<file>.part.json` says what it is the beginning of: address,
  ETag or Last-Modified, size.
- Where a checksum is known, anything may be continued: it tells in the end whether the pieces fit. Else only the same
  address with the same ETag or date (If-Range); what cannot be known to be the same file begins again.
- An answer that is no whole file is joined only at the byte where it says that it starts (Content-Range), and is done
  only when all bytes are there.
- Errors that may pass (connection lost, timeout, 408, 425, 429, 5xx) are tried again with growing pauses, or those that
  the server asks for (Retry-After, up to some minutes); as long as bytes arrive there is no end of attempts.
- The bytes are kept as sent: a Content-Encoding is not undone, as sizes, ranges and checksums are about the file.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ssp.config import Archive
from ssp.data.verify import START, check_space, has_checksum, wrong_size, wrong_start
from ssp.files import remove_leftovers, write_json, writing
from ssp.progress import progress

if TYPE_CHECKING:
    from requests import Response

ATTEMPTS = 4  # without a new byte, per address
PAUSE_S = 1.0  # before the second attempt; doubles after each
LONGEST_PAUSE_S = 300  # that a server is granted
TIMEOUT_S = 60  # without a byte
NETWORK_CHUNK = 1 << 16  # what a broken connection loses at most
_PASSING = (408, 425, 429)  # and all from 500 on
_RANGE = re.compile(r"bytes (?:(?P<start>\d+)-\d+|\*)/(?:(?P<total>\d+)|\*)", re.IGNORECASE)


class Refused(Exception):
    """An address that will not deliver the file; the message is the reason."""


class _MayPass(Exception):
    """A failure that another attempt may not see.

    Args:
        reason: the message.
        pause_s: seconds that the server asks to wait; 0 where it does not say.
    """

    def __init__(self, reason: str, pause_s: int = 0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class _Origin(NamedTuple):
    """What a partial file is the beginning of."""

    url: str
    validator: str | None  # a strong ETag, else Last-Modified, else nothing that says "the same file"
    total: int | None  # bytes of the whole file

    def fits(self, other: _Origin) -> bool:
        """Whether nothing that both know differs."""
        return all(None in pair or pair[0] == pair[1] for pair in zip(self, other, strict=True))


def download(url: str, part: Path, archive: Archive) -> bool:
    """Fill `part` from one address, all of it as far as the server says how much that is; it is not verified yet.

    Returns:
        Whether the file was put together from several answers: when it is wrong, another beginning may be right.

    Raises:
        Refused: this address will not do; what was there before may be continued elsewhere.
        DataError: no room for the rest.
        StorageError: the disk is full, or `part` may not be written.
    """
    attempt, pause, most = 0, PAUSE_S, 0
    while True:
        try:
            return _transfer(url, part, archive)
        except _MayPass as failure:
            attempt += 1
            if (have := size_of(part)) > most:
                attempt, pause, most = 1, PAUSE_S, have
            if attempt == ATTEMPTS:
                raise Refused(f"{failure}, {ATTEMPTS} attempts") from None
            time.sleep(min(failure.pause_s, LONGEST_PAUSE_S) or pause)
            pause *= 2


def discard(part: Path) -> None:
    """Remove a partial file and the note beside it."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
    remove_leftovers(_note(part))


def _transfer(url: str, part: Path, archive: Archive) -> bool:
    """Ask once for what is missing. Returns whether the file was begun by an earlier answer."""
    origin, have = _origin(part), size_of(part)
    same = origin is not None and origin.url == url
    if have and not has_checksum(archive) and not (same and origin.validator):
        discard(part)
        have = 0
    if have and have == archive.size:
        return True
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if not has_checksum(archive):
            headers["If-Range"] = origin.validator
    with _ask(url, headers) as response:
        start, found = _extent(response, url)
        if archive.size is not None and found.total not in (None, archive.size):
            raise Refused(wrong_size(archive, found.total))
        if have and start is None and found.total == have:  # nothing behind what we have
            return True
        if start not in (0, have):
            discard(part)
            raise _MayPass("the server does not continue the download where it broke")
        if start and not has_checksum(archive) and not found.fits(origin):
            discard(part)
            raise _MayPass("the file changed on the server")
        total = found.total or archive.size
        check_space(part.parent, (total or 0) - size_of(part))
        chunks = _chunks(response)
        if start == 0:
            first = b""
            while len(first) < START and (more := next(chunks, b"")):  # a piece may be a single byte
                first += more
            if not first and found.total is None:  # no length was announced: who knows whether that was all
                raise _MayPass("the connection was closed before the first byte")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if problem := wrong_start(first, archive, media_type):
                raise Refused(f"delivered {problem}")
            chunks = chain([first], chunks)
            discard(part)
            write_json(_note(part), found._asdict())
        elif not same:  # of several addresses now: only a checksum can tell what that is
            _note(part).unlink(missing_ok=True)
        with (
            writing(part),
            part.open("ab" if start else "wb") as file,
            progress(f"fetching {archive.file}, MiB") as report,
        ):
            for chunk in chunks:
                file.write(chunk)
                report(file.tell() >> 20, (total or file.tell()) >> 20)
    size = size_of(part)
    if total is not None and size < total:
        raise _MayPass(f"the connection broke after {size} of {total} bytes")
    if found.total is not None and size > found.total:
        discard(part)
        raise _MayPass(f"{size} bytes came, {found.total} were announced")
    return start > 0


def _ask(url: str, headers: dict[str, str]) -> Response:
    """The head of an answer; the bytes are still to be read."""
    import requests
    from urllib3.exceptions import HTTPError

    try:
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S)
    except requests.exceptions.SSLError as error:
        if reason := re.search(r"certificate verify failed: ([^(]*)", str(error)):
            raise Refused(
                f"the server's certificate is not trusted ({reason[1].rstrip(' .')}): add its issuer's certificate to "
                "a copy of the file that `python -m certifi` names, and set REQUESTS_CA_BUNDLE to that copy"
            ) from None
        raise _MayPass("no secure connection") from None
    except requests.exceptions.ProxyError:
        raise _MayPass("no connection by way of the proxy that the environment names") from None
    except requests.Timeout:
        raise _MayPass(f"no answer for {TIMEOUT_S} s") from None
    except requests.ConnectionError:
        raise _MayPass("no connection, or it broke") from None
    except (requests.RequestException, HTTPError, ValueError) as error:
        raise Refused(f"not an address that can be fetched ({type(error).__name__})") from None


def _extent(response: Response, url: str) -> tuple[int | None, _Origin]:
    """Where in the file an answer starts (None: it does not say), and which file that is."""
    status, headers = response.status_code, response.headers
    if status in _PASSING or status >= 500:
        after = headers.get("Retry-After", "")  # a date is possible as well, and rare
        raise _MayPass(f"HTTP {status}", int(after) if re.fullmatch("[0-9]{1,9}", after) else 0)
    if status not in (200, 206, 416):
        raise Refused(f"HTTP {status}")
    etag = headers.get("ETag", "W/")
    validator = headers.get("Last-Modified") if etag.startswith("W/") else etag
    if status == 200:
        return 0, _Origin(url, validator, response.raw.length_remaining)
    span = _RANGE.fullmatch(headers.get("Content-Range", ""))
    start, total = span.group("start", "total") if span else (None, None)
    return start and int(start), _Origin(url, validator, total and int(total))


def _chunks(response: Response) -> Iterator[bytes]:
    """The bytes as sent; `iter_content` would undo a Content-Encoding, and make a tar of a tar.gz."""
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    try:
        yield from response.raw.stream(NETWORK_CHUNK, decode_content=False)
    except ReadTimeoutError:
        raise _MayPass(f"no answer for {TIMEOUT_S} s") from None
    except HTTPError:
        raise _MayPass("the connection broke") from None


def size_of(path: Path) -> int:
    """Bytes of a partial file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _origin(part: Path) -> _Origin | None:
    """What the note beside a partial file says; None where there is none that can be read."""
    try:
        return _Origin(**json.loads(_note(part).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
