"""TLS and mutual TLS with real handshakes: HTTP's context, gRPC's credentials, and renewal."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from inferx.exec.identity.tls import (
    ServerTls,
    TlsError,
    TlsFiles,
    channel_credentials,
    client_context,
)

OURS, THEIRS = trustme.CA(), trustme.CA()


def go(work: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        await asyncio.wait_for(work, 30)

    asyncio.run(run())


def put(
    folder: Path, *, signer: trustme.CA = OURS, authority: trustme.CA | None = None
) -> TlsFiles:
    """Write a new certificate, its key, and whom to trust, over those that are there."""
    folder.mkdir(exist_ok=True)
    one = signer.issue_cert("127.0.0.1", "localhost")
    one.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in one.cert_chain_pems))
    if authority is not None:
        authority.cert_pem.write_to_path(folder / "ca.pem")
    return TlsFiles(
        certificate=folder / "cert.pem",
        key=folder / "key.pem",
        authority=None if authority is None else folder / "ca.pem",
    )


def serial(folder: Path) -> int:
    return x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes()).serial_number


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncGenerator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    def quiet(_: asyncio.AbstractEventLoop, __: dict[str, Any]) -> None:
        """A handshake that fails is the client's to tell of."""

    asyncio.get_running_loop().set_exception_handler(quiet)
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def seen(port: int, context: ssl.SSLContext) -> int:
    """Say something over a new connection; return the serial number that the server showed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"hello\n")
        # With TLS 1.3 a client that is not let in learns so with its first read.
        if await reader.readline() != b"hello\n":
            raise ConnectionError("closed")
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found).serial_number
    finally:
        writer.close()


def test_a_server_is_known_by_its_certificate_and_a_strangers_is_refused(tmp_path: Path):
    async def work() -> None:
        server = ServerTls(put(tmp_path / "s"))
        put(tmp_path / "c", authority=OURS)
        put(tmp_path / "d", authority=THEIRS)
        async with serving(server.context) as port:
            trusting = client_context(TlsFiles(authority=tmp_path / "c/ca.pem"))
            assert await seen(port, trusting) == serial(tmp_path / "s")
            with pytest.raises(ssl.SSLCertVerificationError):
                await seen(port, client_context(TlsFiles(authority=tmp_path / "d/ca.pem")))

    go(work())


def test_with_mutual_tls_only_our_own_are_let_in(tmp_path: Path):
    async def work() -> None:
        server = ServerTls(put(tmp_path / "s", authority=OURS))
        ours = put(tmp_path / "c", authority=OURS)
        stranger = put(tmp_path / "d", signer=THEIRS, authority=OURS)
        nobody = TlsFiles(authority=tmp_path / "c/ca.pem")
        async with serving(server.context) as port:
            assert await seen(port, client_context(ours)) == serial(tmp_path / "s")
            for files in (stranger, nobody):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await seen(port, client_context(files))

    go(work())


def test_older_protocols_are_refused(tmp_path: Path):
    async def work() -> None:
        server = ServerTls(put(tmp_path / "s"))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        async with serving(server.context) as port:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # That it is old is the point.
                old.minimum_version = ssl.TLSVersion.TLSv1
                old.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await seen(port, old)

    go(work())
    assert ServerTls(put(tmp_path / "s")).context.minimum_version == ssl.TLSVersion.TLSv1_2
    client = client_context(TlsFiles())
    assert client.minimum_version == ssl.TLSVersion.TLSv1_2
    assert client.verify_mode == ssl.CERT_REQUIRED
    assert client.check_hostname


def test_a_renewed_certificate_serves_the_next_connection_and_the_old_ones_stay(tmp_path: Path):
    async def work() -> None:
        server = ServerTls(put(tmp_path / "s"))
        put(tmp_path / "c", authority=OURS)
        trusting = client_context(TlsFiles(authority=tmp_path / "c/ca.pem"))
        async with serving(server.context) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            first = await seen(port, trusting)
            put(tmp_path / "s")
            assert server.refresh()
            assert not server.refresh()
            second = await seen(port, trusting)
            assert first != second == serial(tmp_path / "s")
            writer.write(b"still here\n")
            assert await reader.readline() == b"still here\n"
            writer.close()

    go(work())


def test_half_a_renewal_changes_nothing_and_the_whole_does(tmp_path: Path):
    async def work() -> None:
        server = ServerTls(put(tmp_path / "s"))
        put(tmp_path / "c", authority=OURS)
        trusting = client_context(TlsFiles(authority=tmp_path / "c/ca.pem"))
        before = serial(tmp_path / "s")
        key = (tmp_path / "s/key.pem").read_bytes()
        put(tmp_path / "s")
        new_key = (tmp_path / "s/key.pem").read_bytes()
        (tmp_path / "s/key.pem").write_bytes(key)
        async with serving(server.context) as port:
            with pytest.raises(TlsError, match="expected a certificate and its key"):
                server.refresh()
            assert await seen(port, trusting) == before
            (tmp_path / "s/key.pem").write_bytes(new_key)
            fresh = asyncio.create_task(server.keep_fresh(every_s=0.01))
            shown = before
            while shown == before:
                await asyncio.sleep(0.01)
                shown = await seen(port, trusting)
            assert shown == serial(tmp_path / "s")
            fresh.cancel()

    go(work())


# -- gRPC ---
class Echo(grpc.GenericRpcHandler):
    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def answer(request: bytes, __: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def grpc_serving(tls: ServerTls) -> AsyncGenerator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_secure_port("127.0.0.1:0", tls.grpc_credentials())
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def call(port: int, credentials: grpc.ChannelCredentials) -> bytes:
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        return await channel.unary_unary("/a.B/C")(b"hello", timeout=10)


def test_grpc_lets_in_our_own_and_no_stranger(tmp_path: Path):
    async def work() -> None:
        tls = ServerTls(put(tmp_path / "s", authority=OURS))
        ours = put(tmp_path / "c", authority=OURS)
        stranger = put(tmp_path / "d", signer=THEIRS, authority=OURS)
        async with grpc_serving(tls) as port:
            assert await call(port, channel_credentials(ours)) == b"hello"
            for files in (stranger, TlsFiles(authority=tmp_path / "c/ca.pem")):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(port, channel_credentials(files))
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    go(work())


def test_grpc_shows_a_renewed_certificate_without_a_restart(tmp_path: Path):
    async def work() -> None:
        tls = ServerTls(put(tmp_path / "s"))
        put(tmp_path / "c", authority=OURS)
        put(tmp_path / "d", authority=THEIRS)
        old = channel_credentials(TlsFiles(authority=tmp_path / "c/ca.pem"))
        new = channel_credentials(TlsFiles(authority=tmp_path / "d/ca.pem"))
        async with grpc_serving(tls) as port:
            assert await call(port, old) == b"hello"
            put(tmp_path / "s", signer=THEIRS)
            assert tls.refresh()
            assert await call(port, new) == b"hello"
            with pytest.raises(grpc.aio.AioRpcError):
                await call(port, old)

    go(work())


# -- Files that are not what they should be ---
def test_files_that_cannot_be_used_are_told_in_one_line(tmp_path: Path):
    def refused(files: TlsFiles, line: str) -> None:
        for use in (ServerTls, client_context, channel_credentials):
            if use is ServerTls and files.certificate is None:
                continue
            with pytest.raises(TlsError, match=line) as caught:
                use(files)
            assert "\n" not in str(caught.value)
            assert "PRIVATE" not in str(caught.value)

    good = put(tmp_path / "s", authority=OURS)
    text = tmp_path / "text"
    text.write_text("no certificate\n")
    refused(TlsFiles(certificate=good.certificate), "expected both, or neither")
    refused(TlsFiles(certificate=tmp_path / "no", key=good.key), "No such file")
    refused(TlsFiles(certificate=text, key=good.key), "expected a certificate and its key")
    refused(TlsFiles(certificate=good.certificate, key=text), "expected a certificate and its key")
    refused(TlsFiles(authority=text), "expected certificates in PEM")
    with pytest.raises(TlsError, match="no certificate"):
        ServerTls(TlsFiles())


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(tmp_path: Path):
    files = put(tmp_path)
    assert files.key is not None
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(TlsError, match="the key is encrypted"):
        ServerTls(files)
