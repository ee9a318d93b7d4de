"""A configuration file of an app: made from the user's own template, with secrets that only the host can fill in."""

from __future__ import annotations

from deploykit.agent.dataclass import dataclass
from deploykit.agent.envfile import plain
from deploykit.agent.resource import Joined, Resource, Secret, State
from deploykit.agent.resources import File


@dataclass(frozen=True, kw_only=True)
class ConfigurationFile(Resource):
    """Root writes, the app's group reads, nobody else. With a secret in it, its content is never shown."""

    path: str
    content: str | Secret | Joined
    link: str = ""  # where a link to it is in the release, relative to the source's top

    @property
    def key(self) -> str:
        return f"configuration file {self.path}"

    def _file(self, *, make: bool) -> File:
        content = self.content
        if isinstance(content, Joined):
            content = Secret(plain(self.app, content, make=make))
        return File(self.path, content, group=self.app, mode=0o640)

    def wanted(self) -> State:
        return self._file(make=False).wanted()

    def observe(self) -> State | None:
        return self._file(make=False).observe()

    def change(self, observed: State | None) -> None:
        self._file(make=True).change(observed)

    def remove(self) -> None:
        self._file(make=False).remove()
