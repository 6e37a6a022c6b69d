"""The functions that schedulers told this node of, kept for as long as they may be needed.

A pod outlives the agent that started it, and a snapshot outlives its pod: whoever finds them again
must know how the function is started. So each object is on disk before the first command that
names it.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from inferx.core.errors import DescriptionError
from inferx.core.types import FunctionId
from inferx.exec.agent.deployed import Deployed, read_launch
from inferx.exec.agent.ports import AgentError
from inferx.exec.agent.store.durable import make_folder
from inferx.exec.files import write_whole
from inferx.exec.wire.names import FunctionNames
from inferx.spec.document import parse_json
from inferx.spec.reference import read_function_object
from inferx.spec.shape import Policy
from inferx.spec.table import Table, top_table

__all__ = ["Deployments"]


class Deployments(Mapping[FunctionId, Deployed]):
    """Functions by this node's own numbers; one that it cannot read has a number and is not there.

    Args:
        folder: Where their objects are kept.
        instead: Gives what is started in the place of each; None starts them as they say.
    """

    def __init__(self, folder: Path, instead: Callable[[Deployed], Deployed] | None = None) -> None:
        """Read what is there.

        Raises:
            AgentError: The folder cannot be used, or holds something else.
        """
        self._folder = folder
        self._instead = instead
        self._by_id: dict[FunctionId, Deployed] = {}
        self.names = FunctionNames()
        make_folder(folder)
        for file in sorted(folder.glob("*.json")):
            try:
                self._enter(file.read_text("utf-8"), str(file))
            except (OSError, DescriptionError, UnicodeDecodeError) as error:
                raise AgentError(f"{file}: {error}", phase="open") from error

    def deploy(self, name: str, text: bytes) -> None:
        """Take in a function's object; one that is known is as it was.

        Raises:
            AgentError: It is no function object, or of another name; or it cannot be kept.
        """
        number = self.names.add(name)
        if number in self._by_id:
            return
        try:
            function = self._read(text.decode("utf-8"), name, number)
        except (DescriptionError, UnicodeDecodeError) as error:
            raise AgentError(f"function {name}: {error}", phase="deploy") from error
        if function.launch.function != name:
            text_of = function.launch.function
            raise AgentError(f"function {name}: its object is of {text_of}", phase="deploy")
        file = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        write_whole(self._folder / f"{file}.json", text)
        self._by_id[number] = function

    def _enter(self, text: str, source: str) -> None:
        function = self._read(text, source, FunctionId(len(self.names)))
        self._by_id[self.names.add(function.launch.function)] = function

    def _read(self, text: str, source: str, number: FunctionId) -> Deployed:
        table: Table = top_table(parse_json(text, source))
        spec = read_function_object(table).spec(Policy())
        function = Deployed(id=number, spec=spec, launch=read_launch(table))
        return function if self._instead is None else self._instead(function)

    def __getitem__(self, function: FunctionId) -> Deployed:
        return self._by_id[function]

    def __iter__(self) -> Iterator[FunctionId]:
        return iter(tuple(self._by_id))

    def __len__(self) -> int:
        return len(self._by_id)
