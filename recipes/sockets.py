"""What nginx connects to while an app's processes are still those that an earlier version of deploykit has started."""

from __future__ import annotations

import os
from typing import ClassVar

from deploykit.agent import slots
from deploykit.agent.dataclass import dataclass
from deploykit.agent.deployment import live
from deploykit.agent.resource import Resource, State
from deploykit.model import layout


@dataclass(frozen=True, kw_only=True)
class Moved(Resource):
    """Links in root's folder to sockets in the app's, where they were made before: nginx's site names root's folder.

    So nothing is lost until the next deploy of the app, which makes its sockets in root's folder.
    """

    removable: ClassVar[bool] = False  # the links go with the app's processes

    names: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"sockets of {self.app}"

    def wanted(self) -> State:
        return {"reached": True}

    def observe(self) -> State | None:
        return {"reached": not (slots.moved(self.app) and any(map(self._missing, self.names)))}

    def _missing(self, name: str) -> bool:
        return not os.path.lexists(layout.socket(self.app, "live", name))

    def change(self, observed: State | None) -> None:
        slot = live(self.app)
        for name in self.names:
            if slot and self._missing(name):
                link = layout.socket(self.app, "live", name)
                slots.point(link, str(layout.run(self.app) / layout.socket(self.app, slot, name).name))
