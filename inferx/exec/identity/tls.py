"""TLS of the services, and mutual TLS between them: from files, renewed without a restart.

Laws:
1. TLS 1.2 is the least. A peer's certificate is checked wherever an authority is given.
2. A renewed certificate serves the next handshake after `refresh`; connections that stand stay.
3. Files that do not belong together, as between two writes of a renewal, change nothing: what was
   good goes on, and is looked at again.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc
import msgspec

from inferx.core.errors import InferXError

__all__ = ["ServerTls", "TlsError", "TlsFiles", "channel_credentials", "client_context"]

REFRESH_S: Final = 30.0

_log = logging.getLogger(__name__)


class TlsError(InferXError):
    """Certificates or keys that cannot be used."""


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service's certificates are, in PEM.

    Attributes:
        certificate: This side's, with those between it and its authority; None has none.
        key: Its private key, not encrypted; what can read it is what protects it.
        authority: Who signs the other side's; for a server, None asks clients for none.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None


class _Pem(msgspec.Struct, frozen=True):
    """What the files held at one moment; pairs are both there or both not."""

    pair: tuple[bytes, bytes] | None
    authority: bytes | None


def _read(files: TlsFiles) -> _Pem:
    """Read the files.

    Raises:
        TlsError: One cannot be read, or a certificate is without its key.
    """
    if (files.certificate is None) != (files.key is None):
        raise TlsError("TLS: a certificate and its key: expected both, or neither")
    found: list[bytes] = []
    for path in (files.certificate, files.key, files.authority):
        try:
            found.append(b"" if path is None else path.read_bytes())
        except OSError as error:
            raise TlsError(f"{path}: {error.strerror}; expected a PEM file") from error
    certificate, key, authority = found
    pair = None if files.certificate is None else (certificate, key)
    return _Pem(pair, None if files.authority is None else authority)


def _load(context: ssl.SSLContext, pem: _Pem, files: TlsFiles) -> None:
    """Have a context use what was read.

    Raises:
        TlsError: It is not what it should be; the context is then good for nothing.
    """
    try:
        if pem.pair is not None:
            certificate, key = pem.pair
            # By way of memory: the files may be others by now, and OpenSSL reads only files.
            with _in_memory(key) as key_path, _in_memory(certificate) as certificate_path:
                # A key with a passphrase would otherwise ask for it at the terminal.
                context.load_cert_chain(certificate_path, key_path, password=_no_passphrase)
    except (OSError, ValueError) as error:
        msg = f"{files.certificate}, {files.key}: {error}; expected a certificate and its key"
        raise TlsError(msg) from error
    try:
        if pem.authority is not None:
            context.load_verify_locations(cadata=pem.authority.decode("ascii"))
    except (OSError, ValueError) as error:
        raise TlsError(f"{files.authority}: {error}; expected certificates in PEM") from error


@contextmanager
def _in_memory(content: bytes) -> Generator[str]:
    """Yield the path of a file that is on no disk."""
    with os.fdopen(os.memfd_create("tls", os.MFD_CLOEXEC), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted")


def _server_context(pem: _Pem, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pem.authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    _load(context, pem, files)
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return how a client connects; without an authority the host's own are trusted.

    Raises:
        TlsError: The files cannot be used.
    """
    return _client_context(_read(files), files)


def _client_context(pem: _Pem, files: TlsFiles) -> ssl.SSLContext:
    context = (
        ssl.create_default_context()
        if pem.authority is None
        else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, pem, files)
    return context


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Return how a gRPC client connects, from the files as they are now.

    A channel keeps what it was made with: after a renewal the next channel has the new one.

    Raises:
        TlsError: The files cannot be used.
    """
    pem = _read(files)
    _client_context(pem, files)  # It tells now what gRPC would find out at the first handshake.
    certificate, key = pem.pair or (None, None)
    return grpc.ssl_channel_credentials(pem.authority, key, certificate)


class ServerTls:
    """A server's side: a context for HTTP and credentials for gRPC, both renewed in place.

    An authority that is added counts from the next `refresh` on. One that is taken away goes on
    counting for HTTP until a restart: OpenSSL adds to a context, and takes nothing out of it.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Load the files.

        Raises:
            TlsError: They cannot be used, or there is no certificate.
        """
        if files.certificate is None:
            raise TlsError("TLS: no certificate; expected one, as a server has to have")
        self._files = files
        self._pem = _read(files)
        self.context = _server_context(self._pem, files)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that ask, at each handshake, for what `refresh` found last."""
        return grpc.dynamic_ssl_server_credentials(
            self._grpc_configuration(),
            # On one of gRPC's threads: it reads one reference, which `refresh` replaces whole.
            self._grpc_configuration,
            require_client_authentication=self._files.authority is not None,
        )

    def _grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        pem = self._pem
        assert pem.pair is not None, "a server has a certificate"
        certificate, key = pem.pair
        return grpc.ssl_server_certificate_configuration([(key, certificate)], pem.authority)

    def refresh(self) -> bool:
        """Look at the files; return whether they were renewed.

        Raises:
            TlsError: They cannot be used, or do not belong together; nothing has changed.
        """
        pem = _read(self._files)
        if pem == self._pem:
            return False
        _server_context(pem, self._files)  # On another, before the one that serves is touched.
        _load(self.context, pem, self._files)
        self._pem = pem
        return True

    async def keep_fresh(self, *, every_s: float = REFRESH_S) -> None:
        """Refresh until cancelled; files that cannot be used are told of, and tried again."""
        while True:
            await asyncio.sleep(every_s)
            try:
                if self.refresh():
                    _log.info("TLS: %s was renewed", self._files.certificate)
            except TlsError as error:
                _log.error("TLS: not renewed: %s", error)
