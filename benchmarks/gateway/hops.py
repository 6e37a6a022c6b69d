"""What no candidate may forward: the headers of one hop."""

HOPS = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"host",
    )
)


def kept(headers):
    """Return the headers that go on to the next hop."""
    return [(name, value) for name, value in headers if name.lower() not in HOPS]
