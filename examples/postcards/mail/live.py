"""Who looks at the wall has a WebSocket open, and is shown what happens there."""

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer

from . import wall

GROUP = "wall"


def show(what, card):
    """Sends a card to everybody: it "arrived", or it was "stamped"."""
    message = {"type": "card", "what": what, "id": card.pk, "html": wall.one(card)}
    async_to_sync(get_channel_layer().group_send)(GROUP, message)


class Wall(AsyncJsonWebsocketConsumer):
    groups = (GROUP,)

    async def receive_json(self, content, **kwargs):
        if content == "hello":
            await self.send_json({"what": "welcome"})

    async def card(self, event):
        await self.send_json({key: event[key] for key in ("what", "id", "html")})
