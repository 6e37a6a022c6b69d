"""Images of a few small files, as archives that containerd imports."""

import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path


def write_image(
    path: Path, name: str, *layers: dict[str, bytes], env: tuple[str, ...] = ()
) -> None:
    """Write an OCI image archive of small files; a path that ends in a slash is a folder."""
    blobs: dict[str, bytes] = {}

    def put(blob: bytes, kind: str) -> dict[str, object]:
        digest = sha256(blob).hexdigest()
        blobs[digest] = blob
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(blob)}

    def entry(archive: tarfile.TarFile, path: str, content: bytes) -> None:
        member = tarfile.TarInfo(path.rstrip("/"))
        member.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
        member.mode = 0o755
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))

    packed = []
    for files in layers:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for file, content in files.items():
                entry(archive, file, content)
        packed.append(put(buffer.getvalue(), "layer.v1.tar"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": list(env)},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in packed]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": packed,
    }
    top = put(json.dumps(manifest).encode(), "manifest.v1+json")
    top |= {
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": {"io.containerd.image.name": name},
    }
    with tarfile.open(path, "w") as archive:
        entry(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        entry(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}).encode())
        for digest, blob in blobs.items():
            entry(archive, f"blobs/sha256/{digest}", blob)
