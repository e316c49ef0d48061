"""A loopback server that misbehaves as a test asks for, and the file that it serves."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ssp.config import Archive

CONTENT = b"PK" + bytes(range(256)) * 4000  # 1 MB
NEW = b"PK" + bytes(reversed(range(256))) * 4000  # as long, and another file
DATE = "Tue, 15 Nov 1994 12:45:26 GMT"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Answers are scripted: a list of functions (handler, start) per path; the last one stays."""

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

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def send(handler, body, status=200, **headers):
    """An answer; a header that is None is left out."""
    handler.send_response(status)
    for name, value in ({"content_type": "application/octet-stream", "content_length": len(body)} | headers).items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def sends(content=CONTENT, upto=None, **headers):
    """A server that knows ranges, and hangs up after `upto` bytes."""

    def answer(handler, start):
        rest = content[start:]
        span = {"content_range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        send(handler, rest[:upto], 206 if start else 200, **({"content_length": len(rest)} | span | headers))

    return answer


whole = sends()


def cut_off(handler, start):
    """Announces everything, sends a third of it, and hangs up."""
    sends(upto=(len(CONTENT) - start) // 3)(handler, start)


def status(code):
    return lambda handler, start: send(handler, b"no", code)


def archive(server, *paths, **known):
    return Archive(file="a.zip", urls=[server.address + path for path in paths], **({"sha256": SHA256} | known))


def unchecked(server, *paths, **known):
    """No checksum is known: nothing proves in the end that the pieces of a download fit."""
    return archive(server, *paths, sha256=None, **known)


def left_over(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
