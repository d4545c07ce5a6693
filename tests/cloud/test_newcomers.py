"""Whoever connects and does not get on with it: bounded in number and in time."""

import asyncio
import contextlib
import dataclasses
import socket
import ssl
import time

import pytest
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

from cloud.newcomers import AcceptPace, Newcomers
from lambda_split.errors import HandshakeTimeout
from tests.certificates import Issuer
from tests.cloud.serving import LIMITS, Device, Reference, hidden_states, run, same, serving

# A busy machine must be done with its own part of a handshake, or a ping, in these times.
QUICK = dataclasses.replace(LIMITS, handshake_s=1, goodbye_s=1.0)
PINGING = dataclasses.replace(LIMITS, ping_s=1.0, goodbye_s=1.0)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("issuer"))


def address(url):
    host, _, port = url.partition("://")[2].rpartition(":")
    return host, int(port)


async def closed_after(reader):
    """Seconds until the server closes a connection."""
    begin = asyncio.get_running_loop().time()
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 30)
    return asyncio.get_running_loop().time() - begin


async def drip(writer, data):
    """Send one byte at a time, ten a second, for as long as the server lets us."""
    with contextlib.suppress(ConnectionError):
        for index in range(len(data)):
            writer.write(data[index : index + 1])
            await writer.drain()
            await asyncio.sleep(0.1)


async def dripped(reader, writer, data):
    """Seconds until the server closes, and whether there was more to drip."""
    dripping = asyncio.ensure_future(drip(writer, data))
    seconds = await closed_after(reader)
    still_dripping = not dripping.done()
    dripping.cancel()
    writer.close()
    return seconds, still_dripping


def client_hello():
    """What a TLS client sends first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Padding: x\r\n" * 100
SLOW = {
    "says nothing": (b"", False),
    "a request, byte by byte": (REQUEST, False),
    "no TLS": (b"", True),
    "TLS, byte by byte": (client_hello(), True),
}


@pytest.mark.parametrize("case", SLOW)
def test_a_handshake_has_a_time_as_a_whole(model, issuer, case):
    data, secure = SLOW[case]
    tls = issuer.issue("slow").tls() if secure else None

    async def scenario():
        async with serving(model, limits=QUICK, tls=tls) as url:
            begin = time.monotonic()
            reader, writer = await asyncio.open_connection(*address(url))
            _, still_dripping = await dripped(reader, writer, data)
            return time.monotonic() - begin, still_dripping

    seconds, still_dripping = run(scenario())
    assert 0.5 < seconds < 20  # it was a deadline of 1 s on a busy machine
    assert still_dripping == bool(data)  # and not the end of what it had to say


def test_a_hello_byte_by_byte_has_the_same_time(model):
    limits = dataclasses.replace(QUICK, handshake_s=3)  # the upgrade must be done in it

    async def scenario():
        async with serving(model, limits=limits) as url, connect(url, compression=None) as socket:
            device = Device(socket, model.hello())

            async def slowly():
                for byte in device.session.hello():
                    yield byte
                    await asyncio.sleep(0.1)

            dripping = asyncio.ensure_future(socket.send(slowly()))
            ended = await device.fatal()
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)
            return ended

    error, code = run(scenario())
    assert type(error) is HandshakeTimeout
    assert code == 1002


async def upgraded(url, model):
    """A session whose peer is a bare socket: it answers no ping, as one whose network is gone."""
    reader, writer = await asyncio.open_connection(*address(url))
    writer.write(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    hello = Device(None, model.hello()).session.hello().encode()
    writer.write(Frame(Opcode.TEXT, hello).serialize(mask=True))
    await reader.readuntil(b'"welcome"')
    return reader, writer


def test_a_half_open_connection_frees_its_place(model):
    engine = model.engine(max_sessions=1)

    async def scenario():
        async with serving(model, engine=engine, limits=PINGING) as url:
            reader, writer = await upgraded(url, model)
            assert engine.open_sessions == 1
            seconds = await closed_after(reader)
            writer.close()
            async with Device.connected(url, model.hello()) as device:
                await device.forward(0, hidden_states(2))
            return seconds

    assert run(scenario()) < 20


def test_a_frame_byte_by_byte_is_cut_off_too(model):
    """Within a frame no pong can be sent, so that the pings' own deadline ends it."""

    async def scenario():
        async with serving(model, limits=PINGING) as url:
            reader, writer = await upgraded(url, model)
            frame = Frame(Opcode.BINARY, bytes(2000)).serialize(mask=True)
            return await dripped(reader, writer, frame)

    seconds, still_dripping = run(scenario())
    assert seconds < 20
    assert still_dripping


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("upgrade", [False, True], ids=["tcp", "websocket"])
def test_500_connections_that_never_say_hello_block_nobody(model, issuer, secure, upgrade):
    limits = dataclasses.replace(LIMITS, handshake_s=60, max_newcomers=32)
    tls = issuer.issue("crowd").tls() if secure else None
    context = ssl.create_default_context(cafile=issuer.ca_file) if secure else None

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(serving(model, limits=limits, tls=tls))
            early = await stack.enter_async_context(
                Device.connected(url, model.hello(), ssl=context)
            )
            before = await early.forward(0, hidden_states(3, 1))
            silent = []
            for _ in range(100 if upgrade else 500):
                if upgrade:
                    silent.append(await connect(url, compression=None, ssl=context))
                else:
                    silent.append(stack.enter_context(socket.create_connection(address(url))))
                await asyncio.sleep(0)
            async with Device.connected(url, model.hello(), ssl=context) as late:
                found = await late.forward(0, hidden_states(2, 2))
            after = await early.forward(3, hidden_states(2, 3))
            if upgrade:
                open_yet = sum(one.close_code is None for one in silent)
                for one in silent:
                    one.transport.abort()
            else:
                open_yet = sum(not hung_up(one) for one in silent)
            return before, found, after, open_yet

    before, found, after, open_yet = run(scenario(), timeout=120)
    assert open_yet <= limits.max_newcomers
    assert same(found, Reference(model.trunk).forward(0, hidden_states(2, 2)))
    reference = Reference(model.trunk)
    assert same(before, reference.forward(0, hidden_states(3, 1)))
    assert same(after, reference.forward(3, hidden_states(2, 3)))


def hung_up(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@contextlib.contextmanager
def pairs(count):
    made = [socket.socketpair() for _ in range(count)]
    try:
        yield made
    finally:
        for pair in made:
            for end in pair:
                end.close()


def test_the_oldest_of_the_largest_crowd_goes_first():
    newcomers = Newcomers(4)
    with pairs(8) as made:
        peers = ["192.0.2.9", "2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"]
        for (ours, _), peer in zip(made, peers, strict=False):
            newcomers.admit(ours, peer)
        newcomers.admit(made[4][0], "192.0.2.1")  # three share a /64: the oldest of those goes
        assert [hung_up(theirs) for _, theirs in made[:5]] == [False, True, False, False, False]
        newcomers.admit(made[5][0], "2001:db8::3%eth0")
        assert [hung_up(theirs) for _, theirs in made[:6]] == [False, True, True] + [False] * 3
        newcomers.admit(made[6][0], "::ffff:192.0.2.1")  # an IPv4 address in IPv6's clothes
        assert hung_up(made[3][1])
        newcomers.admit(made[7][0], "198.51.100.1")
        assert hung_up(made[4][1])
    assert newcomers.dropped == 4


def test_those_who_were_welcomed_or_left_make_room():
    newcomers = Newcomers(2)
    with pairs(4) as made:
        newcomers.admit(made[0][0], "192.0.2.1")
        newcomers.admit(made[1][0], "192.0.2.1")
        newcomers.settle(made[0][0].fileno())
        newcomers.settle(-1)  # closed meanwhile
        newcomers.admit(made[2][0], "192.0.2.1")
        made[1][0].close()
        newcomers.admit(made[3][0], "192.0.2.1")
        assert newcomers.dropped == 0
        assert len(newcomers) == 2
        assert not any(hung_up(theirs) for _, theirs in (made[0], made[2], made[3]))


def test_the_pace_is_a_rate_and_a_burst():
    pace = AcceptPace(10)
    now = time.monotonic()
    taken = 0
    while pace.allows(now):
        pace.count()
        taken += 1
    assert taken == 20  # two seconds' worth
    assert not pace.allows(now + 0.05)
    assert pace.allows(now + 0.11)


def test_a_server_that_stops_in_a_pause_says_nothing_of_it(model, caplog):
    limits = dataclasses.replace(LIMITS, newcomers_per_s=1)

    async def scenario():
        async with serving(model, limits=limits) as url:
            for _ in range(4):  # two more than are accepted
                _, writer = await asyncio.open_connection(*address(url))
                await asyncio.sleep(0.05)
                writer.close()
        await asyncio.sleep(1.2)  # a pause takes a second

    run(scenario())
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]


def test_a_storm_of_connections_is_accepted_at_a_steady_pace(model, caplog):
    limits = dataclasses.replace(LIMITS, newcomers_per_s=20)

    async def body():
        async with serving(model, limits=limits) as url:
            host, port = url.removeprefix("ws://").split(":")
            begin = time.monotonic()
            async with Device.connected(url, model.hello()) as device:
                knocking = [asyncio.open_connection(host, int(port)) for _ in range(60)]
                connections = await asyncio.gather(*knocking)  # the kernel takes them at once
                reply = await device.forward(0, hidden_states(3, 1))
                for _, writer in connections:
                    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                for reader, writer in connections:
                    assert b"200" in await reader.readline()
                    writer.close()
                return reply, time.monotonic() - begin

    reply, seconds = run(body())
    assert same(reply, Reference(model.trunk).forward(0, hidden_states(3, 1)))
    assert seconds > 0.9  # 61 are 40 and 21 at 20 a second, in pauses of a second
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]
