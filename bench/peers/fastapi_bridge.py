"""The sample that most Python users start from: FastAPI on uvicorn (uvloop), websockets to the agent."""

import asyncio
import json
import os

import websockets
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

SESSION = {
    "system_prompt": "You are a voice agent.",
    "greeting": "Hello.",
    "input": {"format": {"encoding": "audio/pcmu"}},
    "output": {"format": {"encoding": "audio/pcmu"}},
}

app = FastAPI()


@app.websocket("/twilio-stream")
async def bridge(phone: WebSocket) -> None:
    await phone.accept()
    headers = {"Authorization": "Bearer bench"}
    async with websockets.connect(
        os.environ["AGENT_URL"], additional_headers=headers, compression=None
    ) as agent:
        await agent.send(json.dumps({"type": "session.update", "session": SESSION}))
        stream_sid = ""
        ready = False

        async def from_phone() -> None:
            nonlocal stream_sid
            try:
                async for text in phone.iter_text():
                    message = json.loads(text)
                    if message["event"] == "media":
                        if ready:
                            await agent.send(
                                json.dumps({"type": "input.audio", "audio": message["media"]["payload"]})
                            )
                    elif message["event"] == "start":
                        stream_sid = message["start"]["streamSid"]
                    elif message["event"] == "stop":
                        return
            except WebSocketDisconnect:
                pass

        async def from_agent() -> None:
            nonlocal ready
            async for text in agent:
                message = json.loads(text)
                if message["type"] == "reply.audio":
                    await phone.send_text(
                        json.dumps(
                            {"event": "media", "streamSid": stream_sid, "media": {"payload": message["data"]}}
                        )
                    )
                elif message["type"] == "session.ready":
                    ready = True
                elif message["type"] == "reply.done" and message["status"] == "interrupted":
                    await phone.send_text(json.dumps({"event": "clear", "streamSid": stream_sid}))

        pumps = [asyncio.create_task(from_phone()), asyncio.create_task(from_agent())]
        _, pending = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pending:
            pump.cancel()


if __name__ == "__main__":
    import uvicorn

    port = int(os.environ["PORT"])
    uvicorn.run(
        app, host="127.0.0.1", port=port, log_level="warning", loop="uvloop", ws_per_message_deflate=False
    )
