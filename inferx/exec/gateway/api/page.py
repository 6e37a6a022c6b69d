"""The page to look at the cluster with: one file, which asks for nothing but `/view/`.

It holds no secret, and so is served to all; what it shows is what its reader's key may see. Its
policy lets the browser run this script, this style and nothing else.
"""

import re
from base64 import b64encode
from hashlib import sha256
from importlib import resources

from aiohttp import web

from inferx.exec.gateway.api.routing import Route

__all__ = ["PageRoutes"]


class PageRoutes:
    """Serves it."""

    def __init__(self) -> None:
        text = resources.files("inferx.exec.gateway.api").joinpath("page.html").read_text("utf-8")
        self._body = text.encode()
        rules = (
            "default-src 'none'",
            f"script-src {_hash(text, 'script')}",
            f"style-src {_hash(text, 'style')}",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
        self._headers = {
            "Content-Security-Policy": "; ".join(rules),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route("GET", path, self.page, "The page.", answers="text/html", is_open=True)
            for path in ("/", "/ui/")
        ]

    async def page(self, _: web.Request) -> web.Response:
        """GET / and /ui/."""
        return web.Response(
            body=self._body, content_type="text/html", charset="utf-8", headers=self._headers
        )


def _hash(text: str, tag: str) -> str:
    """Return what the browser compares the page's one element of a kind with."""
    inside = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    assert len(inside) == 1, f"one {tag}"
    return f"'sha256-{b64encode(sha256(inside[0].encode()).digest()).decode()}'"
