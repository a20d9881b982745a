from relay.framing import Chunk
from relay.straight import Crossed

def forward(source: Chunk | int, sink: int, stream_sid: str, limit: int, /) -> Crossed: ...
def play(
    source: Chunk | int, sink: int, reply_id: str, stream_sid: str, room: int, limit: int, /
) -> Crossed: ...
