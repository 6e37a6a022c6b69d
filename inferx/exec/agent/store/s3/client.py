"""The SDK's client, and how it is made.

Credentials are the SDK's affair: its own chain looks in the environment, its files, and the node's
or the service account's role. None passes through here.
"""

from typing import Final
from urllib.parse import urlsplit

import msgspec

from inferx import __version__
from inferx.exec.agent.store.s3.said import missing_sdk

__all__ = ["S3Config", "connect"]

_CONNECT_S: Final = 5.0
_READ_S: Final = 30.0
"""How long a server may be silent."""
_ATTEMPTS: Final = 4
_CONNECTIONS_MAX: Final = 24
_LOOPBACK: Final = frozenset(("127.0.0.1", "localhost", "::1"))


class S3Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a bucket is.

    Attributes:
        bucket: Its name.
        budget_bytes: What all snapshots together may take.
        prefix: What all keys begin with, without slashes at its ends; empty is none.
        region: Empty is the SDK's choice.
        endpoint: URL of a server that is not AWS's; empty is AWS.
    """

    bucket: str
    budget_bytes: int
    prefix: str = ""
    region: str = ""
    endpoint: str = ""


def connect(config: S3Config, title: str) -> tuple[object, str]:
    """Return a client, for any thread, and the kind of place where the SDK found credentials.

    Raises:
        NoAnswerError: The SDK is not installed.
        BotoCoreError: The SDK's own configuration is wrong.
    """
    try:
        from botocore.config import Config
        from botocore.session import get_session
    except ImportError as error:
        raise missing_sdk(title) from error
    session = get_session()
    here = urlsplit(config.endpoint).hostname in _LOOPBACK
    client = session.create_client(
        "s3",
        region_name=config.region or None,
        endpoint_url=config.endpoint or None,
        config=Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            max_pool_connections=_CONNECTIONS_MAX,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            # Few servers of others have a name for each bucket.
            s3={"addressing_style": "path" if config.endpoint else "auto"},
            tcp_keepalive=True,
            user_agent_extra=f"inferx/{__version__}",
            # What is on this host is not reached through a proxy.
            proxies={} if here else None,
        ),
    )
    credentials = session.get_credentials()
    return client, credentials.method if credentials else ""
