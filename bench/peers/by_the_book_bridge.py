"""Quart-Trio on Hypercorn, trio-websocket to the agent, everything as their manuals say."""

import json
import os

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import websocket
from quart_trio import QuartTrio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

SESSION = {
    "system_prompt": "You are a voice agent.",
    "greeting": "Hello.",
    "input": {"format": {"encoding": "audio/pcmu"}},
    "output": {"format": {"encoding": "audio/pcmu"}},
}

app = QuartTrio(__name__)


class Bridge:
    def __init__(self, agent: WebSocketConnection) -> None:
        self.agent = agent
        self.stream_sid = ""
        self.ready = False

    async def from_phone(self) -> None:
        while True:
            message = json.loads(await websocket.receive())
            if message["event"] == "media":
                if self.ready:
                    audio = message["media"]["payload"]
                    await self.agent.send_message(json.dumps({"type": "input.audio", "audio": audio}))
            elif message["event"] == "start":
                self.stream_sid = message["start"]["streamSid"]
            elif message["event"] == "stop":
                return

    async def from_agent(self) -> None:
        while True:
            message = json.loads(await self.agent.get_message())
            if message["type"] == "reply.audio":
                media = {
                    "event": "media",
                    "streamSid": self.stream_sid,
                    "media": {"payload": message["data"]},
                }
                await websocket.send(json.dumps(media))
            elif message["type"] == "session.ready":
                self.ready = True
            elif message["type"] == "reply.done" and message["status"] == "interrupted":
                await websocket.send(json.dumps({"event": "clear", "streamSid": self.stream_sid}))


@app.websocket("/twilio-stream")
async def stream() -> None:
    headers = [("Authorization", "Bearer bench")]
    try:
        async with open_websocket_url(os.environ["AGENT_URL"], extra_headers=headers) as agent:
            await agent.send_message(json.dumps({"type": "session.update", "session": SESSION}))
            bridge = Bridge(agent)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge.from_agent)
                await bridge.from_phone()
                nursery.cancel_scope.cancel()
    except* ConnectionClosed:
        pass


if __name__ == "__main__":
    config = Config()
    config.bind = [f"127.0.0.1:{os.environ['PORT']}"]
    trio.run(serve, app, config)
