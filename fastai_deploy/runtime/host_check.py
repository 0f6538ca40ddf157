"""Refuses requests that pages of other origins send to a server on this machine from a browser.

A web page may send requests to 127.0.0.1, and its own host name may resolve to it (DNS rebinding).
The request shows both: ``Origin`` holds the page's origin, ``Host`` the name. In containers this
check is off, because the platform decides who reaches the server and what ``Host`` says.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Callable, Optional, Sequence, Set, Tuple

from . import error_responses
from .error_responses import RequestError

# The host in group 1 or 2, the port in 3. A trailing dot is the same host (RFC 1034, 3.1).
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9._-]{1,253}?)\.?)(?::([0-9]{0,5}))?\Z")
_ORIGIN = re.compile(r"https?://([^/?#@\\]+)\Z")
# Set by the local target: the hosts and origins of a HostCheck, as JSON. It is a variable because
# the server ships in the artifact: an older one ignores it, but would exit on an unknown option.
CLIENTS_VARIABLE = "FDEPLOY_CLIENTS"
_LOOPBACK_NAME = "localhost"
_MOST_KNOWN = 64  # accepted values of Host that need no further check


class HostCheck:
    """Refuses a ``Host`` that is not this machine, and an ``Origin`` that is not this server's.

    ``hosts`` are further names of this server, without a port; ``origins`` are those whose pages
    may call it, ``*`` for all.
    """

    def __init__(self, hosts: Sequence[str] = (), origins: Sequence[str] = ()) -> None:
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)
        self._known: Set[bytes] = set()

    def refusal(
        self, version: Callable[[], str], target: bytes, headers: Sequence[Tuple[bytes, bytes]]
    ) -> Optional[RequestError]:
        """The refusal of a request with this HTTP version, request target and headers, or None.

        Header names are lower-case; ``version()`` returns for example ``1.1``. 400 for a missing or
        repeated ``Host``, 403 for a wrong one.
        """
        hosts = [value for name, value in headers if name == b"host"]
        origins = [value for name, value in headers if name == b"origin"]
        if not origins and len(hosts) == 1 and hosts[0] in self._known and target[:1] == b"/":
            return None
        if target[:1] != b"/":  # in http://host/path, this host counts (RFC 9112, 3.2.2)
            named = target.partition(b"://")[2].partition(b"/")[0]
            hosts = hosts and ([named] if named else hosts)
        if len(hosts) > 1 or hosts == [b""] or (not hosts and version() != "1.0"):
            return error_responses.no_host()
        error = self._judge(hosts[0] if hosts else None, origins)
        if error is None and hosts and len(self._known) < _MOST_KNOWN:
            self._known.add(hosts[0])
        return error

    def _judge(self, host: Optional[bytes], origins: Sequence[bytes]) -> Optional[RequestError]:
        spelt = (host or b"").decode("latin-1").strip().lower()
        if host is not None and not self._is_ours(spelt):
            return error_responses.foreign_host()
        if not all(self._may_call(origin.decode("latin-1").lower(), spelt) for origin in origins):
            return error_responses.foreign_origin()
        return None

    def _is_ours(self, authority: str) -> bool:
        host, _ = _split(authority)
        return host is not None and (host in self._hosts or _is_loopback(host))

    def _may_call(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        match = _ORIGIN.match(origin)
        if match is None:  # "null": a file, a sandbox
            return False
        name, port = _split(match[1])
        if name is None:
            return False
        if name in self._hosts:
            return True
        own, own_port = _split(host)
        # A proxy may speak TLS for this server, so the scheme means nothing.
        same = name == own or (_is_loopback(name) and own is not None and _is_loopback(own))
        return same and port == own_port


def _split(authority: str) -> Tuple[Optional[str], str]:
    """Host and port of ``host:port``; no host if it is neither a name nor an address."""
    match = _AUTHORITY.match(authority)
    if match is None:
        return None, ""
    return match[1] or match[2], match[3] or ""


def _is_loopback(host: str) -> bool:
    if host == _LOOPBACK_NAME:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback
