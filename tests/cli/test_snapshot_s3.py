"""`inferx snapshot` and `inferx agent probe` with a bucket as the shared tier."""

import json
import re
from pathlib import Path

import pytest
from s3_server import BUCKET, credentials, missing_s3, s3_server
from snapshots import put

from inferx.exec.agent.store import FolderTier


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
