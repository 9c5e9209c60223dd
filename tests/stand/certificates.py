"""Certificates on disk, by an authority of the tests."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import trustme

NAME = "pomogator.example"
"""The name in certificates for which a test names none."""


class Certificates:
    """An authority and the files of what it has issued."""

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self.authority = trustme.CA()
        self._name = name
        self._folder = folder
        self.ca = self.write("ca.pem", self.authority.cert_pem.bytes())

    def write(self, name: str, data: bytes) -> Path:
        """Writes a file of the folder."""
        path = self._folder / name
        path.write_bytes(data)
        return path

    def issue(
        self,
        who: str,
        issuer: trustme.CA | None = None,
        *names: str,
        not_after: datetime | None = None,
    ) -> tuple[Path, Path]:
        """A new certificate and its key; another under the same name is replaced.

        It is for `names`, or else for the name of this object.
        """
        issued = (issuer or self.authority).issue_cert(
            *(names or (self._name,)), not_after=not_after
        )
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        return (
            self.write(f"{who}.pem", chain),
            self.write(f"{who}.key", issued.private_key_pem.bytes()),
        )
