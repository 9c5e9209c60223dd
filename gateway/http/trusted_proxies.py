"""Addresses of clients behind trusted proxies: `X-Forwarded-For`, and `Forwarded` of RFC 7239.

Each proxy adds the address of its own client at the end. Only what trusted proxies have added
counts: the rightmost address that is no trusted proxy's is the client's, and everything on its left
may be invented.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

from multidict import MultiMapping

Address: TypeAlias = IPv4Address | IPv6Address

HOPS_MAX = 32
"""Proxies between a client and the edge, at most."""

# A parameter of `Forwarded`: a token or a quoted string (RFC 7239, section 4).
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ELEMENT = re.compile(rf"(?:{_QUOTED}|[^,\"])+")
_FOR = re.compile(rf"(?:^|;)\s*for\s*=\s*({_QUOTED}|[^;\s]*)", re.IGNORECASE)
_PORT = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::[\w.-]+)?")


class TrustedProxies:
    """Networks of the proxies whose headers name the client. Without any, no header counts."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """Raises ValueError if one is neither an address nor a network."""
        self._networks = [ip_network(network) for network in networks]

    def client(self, peer: str, headers: MultiMapping[str]) -> str:
        """Return the address of the client whose request came from `peer`.

        Where both headers are there and disagree, the client has sent one of them itself, and
        nothing tells which: the address is that of the proxy.
        """
        if not self._networks or not self._is_trusted(address := _address(peer)):
            return peer
        chains = [
            chain
            for name, read in (("X-Forwarded-For", _forwarded_for), ("Forwarded", _forwarded))
            if (chain := list(read(",".join(headers.getall(name, ())))))
        ]
        clients = {self._rightmost(chain, address) for chain in chains}
        return str(clients.pop() if len(clients) == 1 else address)

    def says_https(self, peer: str, headers: MultiMapping[str]) -> bool:
        """Return whether `peer` is trusted, and says that its client speaks TLS to it."""
        says = headers.get("X-Forwarded-Proto", "").strip().lower() == "https"
        return says and self._is_trusted(_address(peer))

    def _rightmost(self, chain: Sequence[str], proxy: Address | None) -> Address | None:
        for text in chain[: -HOPS_MAX - 1 : -1]:
            address = _address(text)
            if address is None:
                return proxy  # It hides its client, or the header is broken.
            proxy = address
            if not self._is_trusted(address):
                break
        return proxy

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _forwarded_for(value: str) -> Iterator[str]:
    yield from (item for part in value.split(",") if (item := part.strip()))


def _forwarded(value: str) -> Iterator[str]:
    for element in _ELEMENT.findall(value):
        if element.strip():
            found = _FOR.search(element.strip())
            yield found[1].strip('"') if found else ""


def _address(text: str) -> Address | None:
    """Parse an address with or without a port. Return None for other text, such as `unknown`."""
    whole = _PORT.fullmatch(text)
    inner = (whole[1] or whole[2]) if whole else text  # An IPv6 address without brackets.
    try:
        address = ip_address(inner)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
