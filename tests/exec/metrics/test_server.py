"""Where metrics are served, and how that is told."""

import asyncio
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from prometheus_client.metrics_core import Metric
from prometheus_server import scraped

from inferx.core.errors import DescriptionError
from inferx.exec.identity.tls import TlsFiles, client_context
from inferx.exec.metrics import server
from inferx.exec.metrics.process import ProcessSource
from inferx.exec.metrics.server import (
    MetricsAddress,
    MetricsListenError,
    metrics_address,
    metrics_served,
)


@pytest.mark.parametrize(
    ("given", "listen", "at"),
    [
        (None, "127.0.0.1:1237", ("127.0.0.1", 9237)),
        (None, "10.0.0.7:4000", ("127.0.0.1", 12000)),
        (None, "127.0.0.1:0", ("127.0.0.1", 0)),
        (None, "127.0.0.1:60000", ("127.0.0.1", 0)),
        (None, "no port", ("127.0.0.1", 0)),
        ("off", "127.0.0.1:1237", None),
        ("10.0.0.7:9100", "127.0.0.1:1237", ("10.0.0.7", 9100)),
        ("[::1]:9100", "127.0.0.1:1237", ("::1", 9100)),
    ],
)
def test_metrics_are_beside_the_service_on_the_loopback_unless_told_otherwise(
    given: str | None, listen: str, at: tuple[str, int] | None
) -> None:
    found = metrics_address(given, listen)
    assert (None if found is None else found[:2]) == at


@pytest.mark.parametrize("given", ["9100", "host:", ":9100", "host:x", "host:70000", "on", ""])
def test_what_is_no_address_is_told_in_a_line(given: str) -> None:
    with pytest.raises(DescriptionError, match=r"expected HOST:PORT, or off") as told:
        metrics_address(given, "127.0.0.1:1237")
    assert "\n" not in str(told.value)


def test_a_scrape_tells_the_process_and_how_late_its_loop_is() -> None:
    async def main() -> dict[str, Metric]:
        source = ProcessSource("gateway", "default")
        async with metrics_served(MetricsAddress("127.0.0.1", 0), [source]) as at:
            while True:
                found = {one.name: one for one in await asyncio.to_thread(scraped, at)}
                samples = found["inferx_event_loop_lag_seconds"].samples
                if any(one.name.endswith("_count") and one.value for one in samples):
                    return found
                await asyncio.sleep(0.05)

    found = asyncio.run(main())
    [build] = found["inferx_build_info"].samples
    assert build.labels["component"] == "gateway"
    assert build.labels["policy"] == "default"
    assert found["process_resident_memory_bytes"].samples[0].value > 1 << 20


def test_nothing_else_is_served_there_and_off_serves_nothing() -> None:
    async def main() -> None:
        async with metrics_served(None, [ProcessSource("x")]) as at:
            assert not at
        async with metrics_served(MetricsAddress("127.0.0.1", 0), []) as at:
            with pytest.raises(urllib.error.HTTPError) as told:
                await asyncio.to_thread(urllib.request.urlopen, f"http://{at}/")
            assert told.value.code == 404
            told.value.close()

    asyncio.run(main())


class Slow:
    def __init__(self) -> None:
        self.scrapes = self.most = 0

    async def pieces(self) -> AsyncIterator[Metric]:
        self.scrapes += 1
        self.most = max(self.most, self.scrapes)
        await asyncio.sleep(0.02)
        self.scrapes -= 1
        return
        yield


def test_many_scrapers_are_told_one_after_the_other() -> None:
    async def main() -> int:
        source = Slow()
        async with metrics_served(MetricsAddress("127.0.0.1", 0), [source]) as at:
            await asyncio.gather(*(asyncio.to_thread(scraped, at) for _ in range(5)))
        return source.most

    assert asyncio.run(main()) == 1


def test_what_cannot_be_looked_up_in_time_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SCRAPE_S", 0.001)

    async def main() -> None:
        async with metrics_served(MetricsAddress("127.0.0.1", 0), [Slow()]) as at:
            with pytest.raises(urllib.error.HTTPError) as told:
                await asyncio.to_thread(urllib.request.urlopen, f"http://{at}/metrics")
            assert told.value.code == 503
            told.value.close()

    asyncio.run(main())


def test_an_address_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"

        async def main() -> None:
            async with metrics_served(MetricsAddress("127.0.0.1", taken.getsockname()[1]), []):
                pass

        with pytest.raises(MetricsListenError, match=f"cannot serve metrics on {at}: "):
            asyncio.run(main())
        ran = subprocess.run(
            (
                *(sys.executable, "-m", "inferx", "state", "--store", f"sqlite:{tmp_path}/s"),
                *("--listen", "127.0.0.1:0", "--metrics-listen", at),
            ),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 2
    assert ran.stdout == ""
    [line] = ran.stderr.splitlines()
    assert f"cannot serve metrics on {at}: " in line


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_the_loopback_is_in_the_clear_whatever_certificates_there_are(host: str) -> None:
    found = metrics_address(f"{host}:1", "127.0.0.1:1237", TlsFiles(certificate=Path("c")))
    assert found is not None
    assert found.tls is None


def test_who_has_no_certificate_serves_in_the_clear() -> None:
    found = metrics_address("10.0.0.7:1", "127.0.0.1:1237", TlsFiles(authority=Path("a")))
    assert found == ("10.0.0.7", 1, None)


def test_beyond_the_loopback_scrapers_show_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    for name in ("server", "scraper"):
        made = authority.issue_cert("127.0.0.1")
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    files = {
        name: TlsFiles(
            certificate=tmp_path / f"{name}.pem",
            key=tmp_path / f"{name}.key",
            authority=tmp_path / "authority.pem",
        )
        for name in ("server", "scraper")
    }
    known = client_context(files["scraper"])
    stranger = client_context(TlsFiles(authority=tmp_path / "authority.pem"))

    def get(url: str, context: ssl.SSLContext | None = None) -> bytes:
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:
            return answer.read()

    async def main() -> None:
        address = metrics_address("0.0.0.0:0", "127.0.0.1:1237", files["server"])
        assert address is not None
        async with metrics_served(address, [ProcessSource("state")]) as at:
            where = f"127.0.0.1:{at.rpartition(':')[2]}/metrics"
            text = await asyncio.to_thread(get, f"https://{where}", known)
            assert b"inferx_build_info" in text
            for refused in (
                asyncio.to_thread(get, f"https://{where}", stranger),
                asyncio.to_thread(get, f"http://{where}"),
            ):
                with pytest.raises(OSError):
                    await refused

    asyncio.run(main())
