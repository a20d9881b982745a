"""The least that a Pipecat pipeline can cost: messages in, one processor that holds the agent, messages out.

As message frames, in Pipecat's favour: audio frames would be transcoded twice each way, and paced.
"""

import asyncio
import json
import os

import uvicorn
import websockets
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.frames.frames import (
    Frame,
    InputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

SESSION = {
    "system_prompt": "You are a voice agent.",
    "greeting": "Hello.",
    "input": {"format": {"encoding": "audio/pcmu"}},
    "output": {"format": {"encoding": "audio/pcmu"}},
}

app = FastAPI()


class Messages(FrameSerializer):
    async def serialize(self, frame: Frame) -> str | bytes | None:
        return json.dumps(frame.message) if isinstance(frame, OutputTransportMessageUrgentFrame) else None

    async def deserialize(self, data: str | bytes) -> Frame | None:
        return InputTransportMessageFrame(message=json.loads(data))


class VoiceAgent(FrameProcessor):
    def __init__(self, socket: websockets.ClientConnection) -> None:
        super().__init__()
        self._socket = socket
        self._stream_sid = ""
        self._ready = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, InputTransportMessageFrame):
            await self.push_frame(frame, direction)
            return
        message = frame.message
        if direction is FrameDirection.UPSTREAM:  # the transport tells both sides of itself
            return
        if message["event"] == "media":
            if self._ready:
                audio = message["media"]["payload"]
                await self._socket.send(json.dumps({"type": "input.audio", "audio": audio}))
        elif message["event"] == "start":
            self._stream_sid = message["start"]["streamSid"]

    async def listen(self) -> None:
        await self._socket.send(json.dumps({"type": "session.update", "session": SESSION}))
        async for text in self._socket:
            message = json.loads(text)
            if message["type"] == "reply.audio":
                media = {
                    "event": "media",
                    "streamSid": self._stream_sid,
                    "media": {"payload": message["data"]},
                }
                await self.push_frame(OutputTransportMessageUrgentFrame(message=media))
            elif message["type"] == "session.ready":
                self._ready = True


@app.websocket("/twilio-stream")
async def bridge(phone: WebSocket) -> None:
    await phone.accept()
    headers = {"Authorization": "Bearer bench"}
    async with websockets.connect(
        os.environ["AGENT_URL"], additional_headers=headers, compression=None
    ) as socket:
        transport = FastAPIWebsocketTransport(phone, FastAPIWebsocketParams(serializer=Messages()))
        agent = VoiceAgent(socket)
        worker = PipelineWorker(
            Pipeline([transport.input(), agent, transport.output()]),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )

        @transport.event_handler("on_client_disconnected")
        async def gone(*_: object) -> None:
            await worker.cancel()

        listening = asyncio.create_task(agent.listen())
        try:
            await WorkerRunner(handle_sigint=False).run(worker)
        finally:
            listening.cancel()


if __name__ == "__main__":
    logger.remove()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="warning",
        loop="uvloop",
        ws_per_message_deflate=False,
    )
