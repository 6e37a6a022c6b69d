"""The container's part of a function object: image, files, mounts, how it is asked for its health.

It does not bear on scheduling: its kinds and sizes are checked, and nothing of it is kept.
"""

import base64
import binascii

from inferx.spec.document import is_list, shown
from inferx.spec.table import Table

__all__ = ["MOUNT_FILES_BYTES_LIMIT", "STANDBY", "check_container"]

STANDBY = ("File", "Mem", "Blob")
"""Where a class of a standby pod's memory may lie."""
MOUNT_FILES_BYTES_LIMIT = 1_000_000
"""Of all files that travel inside one function."""


def check_container(spec: Table) -> None:
    """Check what a function's specification says of its container."""
    spec.text("image", "-")
    spec.integer("version", 0, maximum=1 << 62)
    for key in ("commands", "entrypoint", "envs", "mounts"):
        if key in spec and not is_list(spec.values[key]):
            raise spec.error(key, shown(spec.values[key]), "a list")
    _check_files(spec)
    endpoint = spec.table("endpoint")
    endpoint.integer("port", 8000, minimum=1, maximum=65_535)
    endpoint.text("schema", "Http", ("Http", "Https"))
    endpoint.integer("probeTimeout", 1000)
    # `path` is from before `probe`; the other keys say how the container is asked for its health.
    endpoint.opaque("probe", "path", "probetype", "root_svc", "sub_svcs")
    endpoint.close()
    standby = spec.table("standby")
    for key in ("gpu", "pageable", "pinned"):
        standby.text(key, "File", STANDBY)
    standby.close()
    sample = spec.table("sample_query")
    sample.opaque("apiType", "raw_query", "path", "prompt", "prompts", "dataUrl", "max_tokens")
    sample.opaque("body", "loadingTimeout")
    sample.close()
    # `probe` and `api_type` beside `endpoint` are an older form of `endpoint` and `sample_query`.
    spec.opaque("probe", "api_type", "model_type", "catalog_source", "runtime")


def _check_files(spec: Table) -> None:
    total = 0
    for file in spec.tables("mountfiles"):
        # Where it was read from is the author's affair.
        file.opaque("src_path")
        if not file.text("target_path").startswith("/"):
            raise file.error("target_path", shown(file.values["target_path"]), "a path from /")
        text = file.values.get("data", "")
        file.opaque("data")
        file.close()
        try:
            total += len(base64.b64decode(text if isinstance(text, str) else "?", validate=True))
        except (binascii.Error, ValueError):
            raise file.error("data", shown(text), "the file's bytes in base64") from None
    if total > MOUNT_FILES_BYTES_LIMIT:
        expected = f"at most {MOUNT_FILES_BYTES_LIMIT} in all"
        raise spec.error("mountfiles", f"{total} bytes of files", expected)
