"""Which function serves a model: by the engine's name for it, or by the function's own."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping

from inferx.exec.functions import FunctionBook
from inferx.exec.gateway.dispatch import FunctionName
from inferx.exec.gateway.heads import RequestHead
from inferx.exec.gateway.refusals import Refused
from inferx.exec.identity.principal import Principal
from inferx.exec.identity.rights import ALLOWED, authorize
from inferx.exec.models import served_model

__all__ = ["ModelCatalogue"]


class ModelCatalogue:
    """Models by name, kept until functions change.

    A model is called `tenant/namespace/function`; or, where only one function has it, by the name
    that its engine answers to, or by the function's.

    Args:
        book: The functions.
        who: Says who sent a request.
    """

    def __init__(
        self, book: FunctionBook, who: Callable[[RequestHead], Awaitable[Principal | Refused]]
    ) -> None:
        self._book = book
        self._who = who
        self._named: Mapping[str, FunctionName] | None = None
        self._listed: Mapping[str, FunctionName] = {}

    def functions_changed(self) -> None:
        """Look anew at the next question."""
        self._named = None

    def find(self, model: str) -> FunctionName | None:
        """Return which function serves a model."""
        if self._named is None:
            self._named = self._names()
        return self._named.get(model)

    async def visible(self, head: RequestHead) -> Iterable[str]:
        """Return the models that a caller may call, by the name that works.

        Raises:
            Refused: Nobody knows who the caller is.
        """
        self.find("")
        who = await self._who(head)
        if isinstance(who, Refused):
            raise who
        return [
            model
            for model, function in self._listed.items()
            if authorize(who, "invoke", function.tenant, function.namespace, "function") is ALLOWED
        ]

    def _names(self) -> Mapping[str, FunctionName]:
        called = self._book.all()
        functions = {key: FunctionName(key.tenant, key.namespace, key.name) for key in called}
        engines = {key: served_model(one.object) for key, one in called.items()}
        bare = Counter(engines.values()) + Counter(
            key.name for key in called if engines[key] != key.name
        )
        named: dict[str, FunctionName] = {}
        listed: dict[str, FunctionName] = {}
        for key, function in functions.items():
            named[str(function)] = function
            for name in (key.name, engines[key]):
                if bare[name] == 1:
                    named[name] = function
            # Where its engine's name is another function's too, only its full name is its own.
            listed[engines[key] if bare[engines[key]] == 1 else str(function)] = function
        self._listed = listed
        return named
