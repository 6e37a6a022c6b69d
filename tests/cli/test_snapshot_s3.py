"""`inferx snapshot` and `inferx agent probe` with a bucket as the shared tier."""

import json
import re
import secrets
from pathlib import Path

import pytest
from plain_pods import needs_criu, needs_root
from s3_server import BUCKET, credentials, missing_s3, s3_server
from snapshots import put
from system_parts import remove_cgroup

from inferx.exec.agent.store import FolderTier

WORKER = Path(__file__).parents[2] / "deploy" / "functions" / "worker-paced.json"


@pytest.mark.skipif(bool(missing_s3("rclone")), reason=missing_s3("rclone"))
def test_snapshots_are_copied_listed_verified_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good, call
) -> None:
    manifest = put(FolderTier("nvme", tmp_path / "nvme", budget_bytes=1 << 30), 1)
    with s3_server("rclone", tmp_path / "s3") as server:
        credentials(server, monkeypatch)
        config = tmp_path / "node.toml"
        config.write_text(
            f'[store.nvme]\npath = "{tmp_path}/nvme"\nbudget_gib = 1\n'
            f'[store.shared]\nbucket = "{BUCKET}"\nprefix = "one"\nregion = "us-east-1"\n'
            f'endpoint = "{server.endpoint}"\nbudget_gib = 1\n'
        )
        on = ("--config", config)
        told = good("snapshot", "copy", manifest.id[:4], "--to", "shared", *on)
        assert re.search(r"3\.0 KiB.*nvme, shared", told)
        good("snapshot", "rm", manifest.id, "--tier", "nvme", *on)
        (found,) = json.loads(good("snapshot", "list", "--json", *on))["snapshots"]
        assert (found["id"], found["tiers"]) == (manifest.id, ["shared"])
        assert "shared" in good("snapshot", "inspect", manifest.id[:4], *on)
        assert "as written" in good("snapshot", "verify", manifest.id[:4], *on)
        (data,) = [key for key in server.names() if "/files/" in key]
        server.file(data).write_bytes(bytes(3_100))
        status, out, _ = call("snapshot", "verify", manifest.id, "--json", *on)
        assert status == 1
        assert len(json.loads(out)["copies"][0]["faults"]) == 2
        status, _, err = call("snapshot", "copy", manifest.id, "--to", "nvme", *on)
        assert status != 0
        assert re.fullmatch(r"[^\n]*core-1.img has checksum [^\n]*\n", err)
        good("snapshot", "rm", manifest.id, *on)
        assert server.names() == []
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "forgotten")
        out = good("snapshot", "list", "--json", *on)
        (line,) = json.loads(out)["unreadable"]
        assert "refuses the credentials (SignatureDoesNotMatch)" in line
        status, _, err = call("snapshot", "verify", manifest.id, *on)
        assert status != 0
        assert err.count("\n") == 1
        for secret in (server.secret, "forgotten"):
            assert secret not in out + err


@needs_root
@needs_criu
@pytest.mark.skipif(bool(missing_s3("rclone")), reason=missing_s3("rclone"))
def test_a_pod_is_written_to_the_bucket_and_restored_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good
) -> None:
    name = f"d{secrets.token_hex(3)}"
    with s3_server("rclone", tmp_path / "s3") as server:
        credentials(server, monkeypatch)
        config = tmp_path / "node.toml"
        config.write_text(
            f'[agent]\nname = "{name}"\nstate = "{tmp_path}/state"\n'
            '[sandbox]\nkind = "process"\n[network]\nkind = "host"\n'
            '[gpu]\ndeclare = "1x8GiB"\ncheckpoints = "none"\n'
            f'[store.dram]\npath = "{tmp_path}/dram"\nbudget_gib = 1\n'
            f'[store.shared]\nbucket = "{BUCKET}"\nendpoint = "{server.endpoint}"\nbudget_gib = 1\n'
        )
        on = ("--config", config)
        try:
            assert re.search(r"store/s3 +│ yes", good("agent", "probe", *on))
            made = json.loads(good("snapshot", "create", WORKER, "--tier", "shared", "--json", *on))
            assert [one["phase"] for one in made["phases"]][-1] == "sink"
            assert list((tmp_path / "dram" / "snapshots").iterdir()) == []
            words = ("restore", made["snapshot"], WORKER, "--for", "0", "--json")
            restored = json.loads(good("snapshot", *words, *on))
            assert "fetch" in [one["phase"] for one in restored["phases"]]
            assert list((tmp_path / "dram" / "snapshots").iterdir()) == []
        finally:
            remove_cgroup(name)
