"""What writers that ended half-way have left in a bucket: data without a manifest, open uploads."""

from collections.abc import Callable, Mapping, Sequence

from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.s3.bucket import Bucket
from inferx.exec.agent.store.s3.published import FILES, Published, owner_of
from inferx.exec.agent.store.s3.said import GoneError

__all__ = ["remove_leftovers"]


def remove_leftovers(
    bucket: Bucket,
    listed: Callable[[], tuple[Sequence[Published], Mapping[str, str]]],
    *,
    before_ns: int,
) -> tuple[int, list[str]]:
    """Remove what is older than an instant, and that no manifest names.

    Args:
        bucket: Where.
        listed: Returns all snapshots, and a line for each that cannot be read, by id.
        before_ns: The instant, in nanoseconds since 1970, as the server tells times.

    Returns:
        How much is gone, and a line for each thing that could not be read, listed or removed.
    """
    lines: list[str] = []
    removed = 0
    try:
        # Before manifests are: what is named in between is then seen to be.
        data = [one for one in bucket.list(FILES) if one.modified_ns < before_ns]
        published, unreadable = listed()
        lines += sorted(unreadable.values())
        named = {one.data for one in published}
        for one in data:
            snapshot, _ = owner_of(one.key)
            if snapshot and one.key not in named and snapshot not in unreadable:
                bucket.delete(one.key)
                removed += 1
    except AgentError as error:
        lines.append(str(error))
    try:
        for upload in bucket.uploads(FILES):
            if owner_of(upload.key)[0] and upload.begun_ns < before_ns:
                try:
                    bucket.abort(upload.key, upload.id)
                except GoneError:
                    continue
                removed += 1
    except AgentError as error:
        if str(error) not in lines:
            lines.append(str(error))
    return removed, lines
