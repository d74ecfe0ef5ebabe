"""What browsers are let do: which host names the server answers to, and whose pages may send it something.

A page on the internet can point its own host name at 127.0.0.1 (DNS rebinding) and then read from a server without a
token, and any page can send such a server a form. Both show in the headers that browsers set and pages cannot change.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope

from mets_ray.errors import RequestError

ANY_HOST = "*"
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_READING = frozenset({"GET", "HEAD", "OPTIONS"})

# For every answer; a route that needs more, such as the page, sets its own.
_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def add_security_headers(start: Message) -> None:
    """Complete the headers of an `http.response.start` message."""
    start.setdefault("headers", [])
    headers = MutableHeaders(scope=start)
    for name, value in _SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if "etag" not in headers:  # files may be kept, answers about patients may not
        headers.setdefault("Cache-Control", "no-store")


def check_site(scope: Scope, allowed_hosts: Sequence[str]) -> None:
    """Let in what belongs to this server's own pages, or comes from no browser.

    allowed_hosts: names beside localhost and the loopback addresses; `*` for any. Raises RequestError 403.
    """
    headers = _headers(scope)
    host = _host(headers.get(b"host", []))
    if ANY_HOST not in allowed_hosts and (host is None or not _is_ours(host[0], scope, allowed_hosts)):
        raise RequestError(
            403,
            "unknown_host",
            "this server does not answer to the host name of the request",
            hint="open it as localhost, or add the name to the setting allowed_hosts",
        )
    if scope["method"] in _READING:
        return
    site = headers.get(b"sec-fetch-site", [b"none"])
    if site not in ([b"none"], [b"same-origin"]) or not _is_own_origin(headers.get(b"origin", []), host, allowed_hosts):
        raise RequestError(
            403,
            "foreign_origin",
            "the request was sent by a page of another site",
            hint="send it from this server's own page or from no browser; see the setting allowed_hosts",
        )


def _headers(scope: Scope) -> Mapping[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name, []).append(value)
    return found


def _host(values: Sequence[bytes]) -> tuple[str, str | None] | None:
    """(name, port) of the one `Host`, or None. Names are lower case, addresses without brackets and in short form."""
    match = _HOST.fullmatch(values[0].decode("latin-1").lower()) if len(values) == 1 else None
    return None if match is None else (_name(match["name"]), match["port"])


def _name(name: str) -> str:
    name = name.strip("[]").removesuffix(".")
    address = _address(name)
    return name if address is None else str(address)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_ours(name: str, scope: Scope, allowed_hosts: Sequence[str]) -> bool:
    address = _address(name)
    if name == "localhost" or name in allowed_hosts or (address is not None and address.is_loopback):
        return True
    # The address at which the connection came in: probes use it, and nobody can make it point elsewhere. A name with
    # a dot is never taken from here, because it could be somebody's domain.
    server = scope.get("server")
    return server is not None and name == _name(str(server[0])) and (address is not None or "." not in name)


def _is_own_origin(values: Sequence[bytes], host: tuple[str, str | None] | None, allowed_hosts: Sequence[str]) -> bool:
    if not values:
        return True
    try:
        origin = urlsplit(values[0].decode("latin-1").lower())
        default = _DEFAULT_PORTS[origin.scheme]
        name, port = _name(origin.hostname or ""), str(origin.port or default)
    except (ValueError, KeyError):  # `null`, as sandboxed frames and files send it
        return False
    if len(values) != 1:
        return False
    return name in allowed_hosts or (host is not None and (name, port) == (host[0], host[1] or default))
