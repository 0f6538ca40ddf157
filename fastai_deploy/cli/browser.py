"""Opens a page in the browser, without showing the key to anyone else.

The key is in the fragment of the page's address, which browsers do not send. It must not be on the
browser's command line either, which every user of a machine can read. So the browser is given a
one-time address on this machine, and is redirected from there:

    browser -> http://127.0.0.1:PORT/TOKEN -> 302 -> https://.../#key=...
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, final
from urllib.parse import quote

from fastai_deploy.project import Project

_SECONDS = 15.0
_LOOPBACK = "127.0.0.1"


def has_display(environ: Mapping[str, str], platform: str) -> bool:
    """Whether a browser of this machine could be seen; ``BROWSER`` names one in any case."""
    display = environ.get("BROWSER") or environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    return bool(display) or platform == "darwin"


def show(project: Project, url: str, key: str = "") -> bool:
    """Open a page, with the key in its fragment; False if that is not possible here.

    Nothing is opened without a terminal, with ``--json`` or in CI, nor without a display.
    """
    if project.consent.ask is None or not has_display(os.environ, sys.platform):
        return False
    if not key:
        return webbrowser.open(url)
    with _Redirect(f"{url}#key={quote(key, safe='')}") as redirect:
        return webbrowser.open(redirect.address) and redirect.taken(_SECONDS)


@final
class _Redirect:
    """A server on this machine that redirects the first request for its address, and no other."""

    def __init__(self, target: str) -> None:
        token, done = secrets.token_urlsafe(32), threading.Event()

        class Once(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                first = self.path == f"/{token}" and not done.is_set()
                self.send_response(HTTPStatus.FOUND if first else HTTPStatus.NOT_FOUND)
                if first:
                    self.send_header("location", target)
                self.send_header("cache-control", "no-store")
                self.send_header("referrer-policy", "no-referrer")
                self.send_header("content-length", "0")
                self.end_headers()
                if first:
                    done.set()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._done = done
        self._server = HTTPServer((_LOOPBACK, 0), Once)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.address = f"http://{_LOOPBACK}:{self._server.server_port}/{token}"

    def __enter__(self) -> _Redirect:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def taken(self, seconds: float) -> bool:
        """Wait until the browser has been redirected; False if it does not come."""
        return self._done.wait(seconds)
