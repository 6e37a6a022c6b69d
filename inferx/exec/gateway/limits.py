"""Every bound of the gateway's HTTP, by name."""

import msgspec

__all__ = ["HttpLimits"]


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much and how long. Seconds and bytes.

    Attributes:
        connections: Of clients, at once; more are told so and closed.
        header_bytes: Of a request's line and headers together.
        header_s: For these to come, from the connection's or the request's first byte.
        keep_alive_s: Between two requests on a connection.
        body_bytes: Of a request's body.
        body_idle_s: Between two pieces of it, and by which it may be behind the next.
        body_bytes_per_s: How fast it has to come on the whole, while it is read from.
        body_ahead_bytes: Of it held here while its request waits, or its pod is slower.
        peek_bytes: Of it that may be read to find which model is asked for.
        write_stall_s: For a client that reads nothing of its answer.
        waiting_s: Until a stream that waits is told so, and again after as long.
        connect_s: To a pod.
        pod_idle_s: Without a byte from a pod.
        pod_total_s: Of a request at a pod.
        connect_tries: Pods tried, where a connection is refused before anything was sent.
        pool_idle_s: For an unused connection to a pod; engines close theirs after 5 s.
        pool_idle_count: Unused connections kept for one pod.
        drain_s: For what is being served, after SIGTERM.
    """

    connections: int = 10_000
    header_bytes: int = 32 * 1024
    header_s: float = 10.0
    keep_alive_s: float = 75.0
    body_bytes: int = 64 * 2**20
    body_idle_s: float = 30.0
    body_bytes_per_s: int = 512
    body_ahead_bytes: int = 64 * 1024
    peek_bytes: int = 8 * 2**20
    write_stall_s: float = 60.0
    waiting_s: float = 5.0
    connect_s: float = 5.0
    pod_idle_s: float = 300.0
    pod_total_s: float = 3600.0
    connect_tries: int = 2
    pool_idle_s: float = 4.0
    pool_idle_count: int = 256
    drain_s: float = 30.0
