"""Byte streams over raw non-blocking sockets: the floor of the media path.

Must not know WebSockets, calls, logs, or anything else of this package.

Trio's own streams cost half as much again per frame, nearly all of it in checkpoints that a relay which has
just waited for its input does not need. These wait with Trio only when the kernel says "would block", and
offer `send_nowait`, which never waits. They keep the whole of Trio's stream contract, and the tests run
Trio's own contract suites against them.

Whatever the operating system or OpenSSL complains about becomes one of Trio's two words here, and nowhere
else: `trio.BrokenResourceError` when the far end or the network is gone, `trio.ClosedResourceError` when this
side has closed the stream.
"""

import errno
import socket
import ssl
from contextlib import suppress

import trio

# One read takes what a socket usually holds at most; a media frame is about 0.3 kB, an agent's burst 10 kB.
RECEIVE_BYTES = 65536

# A vanished peer (link down, host gone) is seen in 2 + 3 x 1 s while nothing is being sent, and in 3 s while
# something is. Without these Linux takes 15 minutes to notice on sending and never notices on receiving.
KEEPALIVE_IDLE_SECONDS = 2
KEEPALIVE_INTERVAL_SECONDS = 1
KEEPALIVE_PROBES = 3
UNACKNOWLEDGED_MILLISECONDS = 3000

# By name, because the options differ between platforms: what a platform lacks is left out.
_HARDENING: tuple[tuple[int, str, int], ...] = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_PROBES),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNACKNOWLEDGED_MILLISECONDS),
)


def harden(sock: socket.socket) -> None:
    """Send small frames at once, and notice a half-open peer within 8 seconds.

    On a listening socket this counts for every connection accepted from it.
    """
    for level, name, value in _HARDENING:
        option = getattr(socket, name, None)
        if option is not None:
            with suppress(OSError):  # not a TCP socket: a Unix pair, say
                sock.setsockopt(level, option, value)


class _NonBlockingStream(trio.abc.Stream):
    """What both streams share: when to wait, who is busy, and what an `OSError` means.

    Subclasses say how to move bytes without waiting: `_receive` and `_send` return `None` and 0 when the
    kernel or OpenSSL would block.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._sending = False

    def _receive(self, max_bytes: int) -> bytes | None:
        raise NotImplementedError

    def _send(self, data: bytes | memoryview) -> int:
        raise NotImplementedError

    def _check_open_for_sending(self) -> None:
        if self.socket.fileno() == -1:
            raise trio.ClosedResourceError("this stream was closed")

    async def _wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self.socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return them; `b""` when the far end has finished sending.

        Raises `trio.BrokenResourceError`, `trio.ClosedResourceError`, and `trio.BusyResourceError` when
        another task is receiving. Always a checkpoint; a cancelled call has received nothing.
        """
        if max_bytes is None:
            max_bytes = RECEIVE_BYTES
        elif not isinstance(max_bytes, int):
            raise TypeError("max_bytes must be an integer")
        elif max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        while True:
            if self.socket.fileno() == -1:
                raise trio.ClosedResourceError("this stream was closed")
            await self._wait_readable()
            received = self._receive(max_bytes)
            if received is not None:
                return received

    @property
    def holds_bytes(self) -> bool:
        """Whether bytes were taken from the kernel that nobody has received yet: it will not tell of them."""
        raise NotImplementedError

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """What has come, without waiting: None is nothing, `b""` the end. Raises as `receive_some`."""
        if self.socket.fileno() == -1:
            raise trio.ClosedResourceError("this stream was closed")
        return self._receive(max_bytes)

    def send_nowait(self, data: bytes) -> int:
        """Hand bytes over without waiting: how many were accepted, 0 when it would block.

        Raises as `send_all` does. Not a checkpoint, so a loop around it must have one of its own.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_open_for_sending()
        return self._send(data) if data else 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, waiting as long as it takes.

        Raises `trio.BrokenResourceError`, `trio.ClosedResourceError`, and `trio.BusyResourceError` when
        another task is sending. The checkpoint comes before the first byte: cancelled there, nothing was
        sent; cancelled later, the stream is torn and good only for closing.
        """
        self._claim_sending()
        try:
            await trio.lowlevel.checkpoint()
            remaining = memoryview(data)
            while remaining:
                self._check_open_for_sending()
                accepted = self._send(remaining)
                remaining = remaining[accepted:]
                if not accepted:
                    await trio.lowlevel.wait_writable(self.socket)
            self._check_open_for_sending()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room for more bytes. Raises as `send_all` does."""
        self._claim_sending()
        try:
            await trio.lowlevel.wait_writable(self.socket)
        finally:
            self._sending = False

    async def aclose(self) -> None:
        """Close without waiting for the far end. Tasks waiting here get `trio.ClosedResourceError`."""
        self._close()
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        if self.socket.fileno() != -1:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    def _claim_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_open_for_sending()
        self._sending = True


class SocketStream(_NonBlockingStream, trio.abc.HalfCloseableStream):
    """A stream over a connected raw socket, which it owns from now on."""

    holds_bytes = False  # no property: it is asked after each frame

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._finished = False

    @classmethod
    def adopt(cls, stream: trio.SocketStream) -> "SocketStream":
        """Move the descriptor out of a Trio stream that no task is using; the Trio stream is then closed."""
        return cls(socket.socket(fileno=stream.socket.detach()))

    def _receive(self, max_bytes: int) -> bytes | None:
        try:
            return self.socket.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as error:
            raise translated(error) from error

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise translated(error) from error

    def _check_open_for_sending(self) -> None:
        super()._check_open_for_sending()
        if self._finished:
            raise trio.ClosedResourceError("nothing can be sent after send_eof")

    async def send_eof(self) -> None:
        """Tell the far end that no more bytes follow; receiving goes on. A second call does nothing."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._finished:
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise translated(error) from error
        self._finished = True


class TLSStream(_NonBlockingStream):
    """A stream over a connected `ssl.SSLSocket`, which it owns from now on. TLS has no half-close.

    The torn rule is hard here. When `send_nowait` returns 0 or a `send_all` is cancelled, OpenSSL may already
    have written half a record of those bytes and insists on getting the same ones again. Offering any others
    raises `trio.BrokenResourceError`; the stream is then good only for closing.

    Create the socket with `suppress_ragged_eofs=False`, so that a connection cut without TLS's own goodbye is
    told apart from an orderly end.
    """

    socket: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self._unfinished: bytes | None = None

    async def handshake(self) -> None:
        """Agree on keys and check the certificate. Raises `OSError` (`ssl.SSLError` is one), untranslated."""
        while True:
            try:
                self.socket.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self.socket)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self.socket)
            else:
                return

    @property
    def holds_bytes(self) -> bool:
        """Whether OpenSSL does: the descriptor would not become readable for them."""
        return self.socket.pending() > 0

    async def _wait_readable(self) -> None:
        if self.holds_bytes:
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self.socket)

    def _receive(self, max_bytes: int) -> bytes | None:
        try:
            return self.socket.recv(max_bytes)
        except ssl.SSLWantReadError:
            return None
        except OSError as error:
            # SSLWantWriteError too: a peer that changes keys while it does not read what we send. That
            # needs 2**24 records and a full send buffer at once; ending the call costs less than the code.
            raise translated(error) from error

    def _send(self, data: bytes | memoryview) -> int:
        if self._unfinished is not None and data != self._unfinished:
            raise trio.BrokenResourceError("half a TLS record of other bytes was sent")
        try:
            accepted = self.socket.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self._unfinished = bytes(data)
            return 0
        except OSError as error:
            raise translated(error) from error
        self._unfinished = None
        return accepted

    def _close(self) -> None:
        if self.socket.fileno() != -1 and self._unfinished is None:
            # The goodbye is written if there is room for it; waiting for the answer is nobody's business.
            with suppress(OSError, ValueError):
                self.socket.unwrap()
        super()._close()


async def open_tcp(host: str, port: int) -> SocketStream:
    """Connect, trying all addresses of the host. Callers hold the deadline.

    Raises `OSError`. A cancelled call leaves no descriptor behind.
    """
    stream = SocketStream.adopt(await trio.open_tcp_stream(host, port))
    harden(stream.socket)
    return stream


async def open_tls(host: str, port: int, context: ssl.SSLContext) -> TLSStream:
    """Connect, and check that the far end may call itself `host`. Callers hold the deadline.

    Raises `OSError`: `ssl.SSLCertVerificationError` and other `ssl.SSLError` among them. A cancelled call
    leaves no descriptor behind.
    """
    plain = await open_tcp(host, port)
    try:
        sock = context.wrap_socket(
            plain.socket, server_hostname=host, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
    except BaseException:
        plain.socket.close()
        raise
    stream = TLSStream(sock)
    try:
        await stream.handshake()
    except BaseException:
        sock.close()
        raise
    return stream


def translated(error: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
    """The word for what the operating system complained about."""
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError("this stream was closed")
    return trio.BrokenResourceError(f"the connection is gone: {error}")
