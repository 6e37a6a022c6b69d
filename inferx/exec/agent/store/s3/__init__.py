"""A tier that is a bucket of S3, or of what speaks its protocol."""

from inferx.exec.agent.store.s3.client import S3Config
from inferx.exec.agent.store.s3.tier import S3Tier

__all__ = ["S3Config", "S3Tier"]
