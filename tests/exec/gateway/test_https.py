"""HTTPS: the same gateway, over TLS alone; its certificate is renewed while it serves."""

import asyncio
import ssl

from gateway_bed import CALL, LIMIT_S, Pod, answer, echo, gateway, request, run
from system_parts import certificate

from inferx.exec.identity.tls import ServerTls, TlsFiles


def server(folder):
    made = certificate(folder)
    return ServerTls(TlsFiles(certificate=made, key=made.with_name("key.pem")))


def client(folder):
    return ssl.create_default_context(cafile=folder / "cert.pem")


async def connect(bed, trusts):
    return await asyncio.open_connection("127.0.0.1", bed.port, ssl=trusts)


async def ask(bed, trusts, body=b""):
    reader, writer = await connect(bed, trusts)
    try:
        writer.write(request("POST", CALL + "/x", body=body))
        return await answer(reader)
    finally:
        writer.close()


def test_bodies_go_both_ways_whole(tmp_path):
    async def main():
        body = bytes(range(256)) * 8_192
        async with (
            Pod(echo) as pod,
            gateway(pod.address, tls=server(tmp_path).context) as bed,
        ):
            got = await ask(bed, client(tmp_path), body)
            assert (got.status, got.body == body) == (200, True)

    run(main())


def test_a_pod_is_told_how_its_client_came(tmp_path):
    async def main():
        async with Pod(echo) as pod:
            async with gateway(pod.address, tls=server(tmp_path).context) as bed:
                await ask(bed, client(tmp_path))
            async with gateway(pod.address) as bed:
                await bed.ask("POST", CALL + "/x")
            came = [asked.headers["X-Forwarded-Proto"] for asked in pod.asked]
            assert came == ["https", "http"]

    run(main())


def test_who_speaks_no_tls_is_not_served(tmp_path):
    async def main():
        async with Pod(echo) as pod, gateway(pod.address, tls=server(tmp_path).context) as bed:
            reader, writer = await bed.connect()
            writer.write(request("GET", CALL + "/x"))
            async with asyncio.timeout(LIMIT_S):
                assert not (await reader.read()).startswith(b"HTTP")
            writer.close()
            assert bed.router.arrived == 0

    run(main())


def test_a_handshake_that_does_not_come_is_not_waited_for(tmp_path):
    async def main():
        async with gateway(tls=server(tmp_path).context, header_s=0.3) as bed:
            reader, writer = await bed.connect()
            async with asyncio.timeout(LIMIT_S):
                assert await reader.read() == b""
            writer.close()

    run(main())


def test_a_renewed_certificate_is_shown_and_who_is_connected_stays(tmp_path):
    async def main():
        tls = server(tmp_path)
        async with Pod(echo) as pod, gateway(pod.address, tls=tls.context) as bed:
            before = client(tmp_path)
            reader, writer = await connect(bed, before)
            certificate(tmp_path)
            assert tls.refresh()
            assert (await ask(bed, client(tmp_path))).status == 200
            writer.write(request("POST", CALL + "/x", body=b"still here"))
            assert (await answer(reader)).body == b"still here"
            writer.close()

    run(main())
