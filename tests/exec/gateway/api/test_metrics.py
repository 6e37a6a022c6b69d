"""The gateway's metrics at its own address: for readers of the cluster, and for nobody else."""

import pytest
from api_bed import Bed, function, run
from prometheus_client.parser import text_string_to_metric_families


async def scrape(bed: Bed, key: str) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with bed.http.get(f"{bed.url}/metrics", headers=headers) as answer:
        return answer.status, await answer.text()


def test_readers_of_the_cluster_may_scrape_and_tenants_may_not() -> None:
    async def work(bed: Bed) -> None:
        assert (await scrape(bed, ""))[0] == 401
        assert (await scrape(bed, "ix_" + "0" * 64))[0] == 401
        assert (await scrape(bed, (await bed.key("full", "t1")).token))[0] == 403
        assert (await scrape(bed, (await bed.key("inference", "*")).token))[0] == 403
        status, _ = await scrape(bed, (await bed.key("read", "*")).token)
        assert status == 200

    run(work)


def test_what_the_api_and_inference_were_told_is_counted_apart() -> None:
    async def work(bed: Bed) -> None:
        await bed.ask("PUT", "/object/", bed.admin, function("f"))
        call = "/funccall/t1/n/none/v1/completions"
        assert (await bed.ask("POST", call, bed.admin, {})).status == 404
        _, text = await scrape(bed, bed.admin)
        told = {one.name: one for one in text_string_to_metric_families(text)}
        codes = {
            (one.labels["kind"], one.labels["code"]): one.value
            for one in told["inferx_gateway_requests"].samples
        }
        assert codes["api", "201"] == 1
        assert codes["inference", "404"] == 1
        # Who makes up a function's name makes no series.
        assert told["funccallcnt"].samples == []

    run(work)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_other_methods_are_refused(method: str) -> None:
    async def work(bed: Bed) -> None:
        assert (await bed.ask(method, "/metrics", bed.admin)).status == 405

    run(work)
