"""Small snapshots for tests of the store: real files, made and looked at as an agent would."""

import random
from pathlib import Path

from inferx.exec.agent.store import Draft, FolderTier, GpuModel, Manifest, Platform, Sizes, Watch

PLATFORM = Platform(
    architecture="x86_64",
    cpu="AMD EPYC 9004",
    kernel="6.12.0",
    driver="580.159.03",
    gpus=(GpuModel(model="NVIDIA H100 80GB HBM3", uuid="GPU-a"),),
    image_digest="sha256:11",
    command_digest="22",
    criu="4.2.1",
    runc="1.1.5",
    containerd="1.6.20",
)


def draft(
    function: str = "acme/chat/llama@1", created_ns: int = 1_000, platform: Platform = PLATFORM
) -> Draft:
    return Draft(
        function=function,
        created_ns=created_ns,
        snapshotter="criu",
        platform=platform,
        sizes=Sizes(device_bytes=1, host_bytes=2),
    )


def fill(folder: Path, seed: int, size_bytes: int = 3_000) -> int:
    """Write what a dump could look like, and return its bytes."""
    content = random.Random(seed).randbytes(size_bytes)
    (folder / "deeper").mkdir()
    (folder / "core-1.img").write_bytes(content[:100])
    (folder / "deeper" / "pages-1.img").write_bytes(content)
    (folder / "empty.img").touch()
    return 100 + size_bytes


def put(
    tier: FolderTier,
    seed: int,
    *,
    function: str = "acme/chat/llama@1",
    created_ns: int = 1_000,
    size_bytes: int = 3_000,
    platform: Platform = PLATFORM,
) -> Manifest:
    """Commit a snapshot whose content is told by a seed."""
    with tier.begin(size_bytes + 100) as staging:
        fill(staging.folder, seed, size_bytes)
        return staging.commit(draft(function, created_ns, platform))


def leftovers(root: Path) -> list[Path]:
    """Return what is on a tier beside whole snapshots and its lock."""
    return [*(root / "staging").iterdir(), *(root / "deleted").iterdir()]


def require_sound(tier: FolderTier) -> set[str]:
    """Verify every byte of a tier, and return the ids of what is there."""
    contents = tier.contents()
    assert contents.unreadable == ()
    for manifest in contents.manifests:
        assert tier.verify(manifest.id, Watch()) == []
    assert {path.name for path in (tier.root / "snapshots").iterdir()} == {
        manifest.id for manifest in contents.manifests
    }
    return {manifest.id for manifest in contents.manifests}
