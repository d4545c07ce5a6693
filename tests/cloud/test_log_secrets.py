"""No log, of either side and at any level, has secrets, or anything from which content follows."""

import asyncio
import base64
import contextlib
import hashlib
import logging

import numpy as np
import pytest

from cloud.logs import TextLines
from cloud.tokens import TokenStore
from edge_runtime.connection import Connection
from edge_runtime.endpoint import Endpoint
from edge_runtime.stats import Meter
from lambda_split.errors import InternalError, LambdaSplitError, NonFinite, Unauthorized
from lambda_split.wire import codecs
from lambda_split.wire.frames import Codec
from tests.certificates import Issuer
from tests.cloud.serving import WIDTH, hidden_states, marked, run, serving, token_file

TOKEN = "lst_VeryKnown-Secret_0123456789"
PIECE = 6  # bytes: long enough that no log line has it by accident


def connected(url, model, token=TOKEN, **changes):
    endpoint = Endpoint(url, token, 30.0, 30.0, changes.pop("ca_file", None))
    hello = model.hello(**changes)
    return contextlib.closing(Connection(endpoint, hello, max_chunk_tokens=80, meter=Meter()))


def forward(connection, hidden):
    """Send a chunk; returns the payloads that crossed the wire both ways."""
    encoded = codecs.encode(hidden, Codec.FP32)
    connection.send(0, len(hidden), encoded, reply=len(hidden))
    return [bytes(encoded.payload), bytes(connection.receive().payload)]


def everything(url, model, issuer, token_path, reload):
    """All that happens to a service: sessions that end well and badly, refusals, revocation."""
    settings = {"ca_file": issuer.ca_file}
    with connected(url, model, **settings) as connection:
        payloads = forward(connection, hidden_states(5))
        not_finite = marked(2, 3e25)  # comes out of this trunk as NaN
        with pytest.raises(NonFinite):
            forward(connection, not_finite)
        payloads.append(not_finite.tobytes())
    with pytest.raises(Unauthorized), connected(url, model, token=TOKEN[:-1], **settings):
        pass
    with pytest.raises(LambdaSplitError), connected(url, model, fingerprint="0" * 16, **settings):
        pass
    with connected(url, model, **settings) as connection, pytest.raises(InternalError):
        forward(connection, marked(2, 3e35))  # makes this trunk raise
    payloads.append(marked(2, 3e35).tobytes())
    with connected(url, model, **settings) as connection:
        connection._link._socket.send(b"\x01\x01" + hidden_states(3, 9).tobytes())  # no frame
        with pytest.raises(LambdaSplitError):
            connection.receive()
        payloads.append(hidden_states(3, 9).tobytes())
    with connected(url, model, **settings) as connection:
        payloads += forward(connection, hidden_states(2, 1))
        token_path.write_text("")
        reload()
        with pytest.raises(LambdaSplitError):
            connection.receive()
    return payloads


def forms_of(payload):
    """How a log might show a piece of a payload, for every piece of it."""
    for start in range(0, len(payload) - PIECE, 3):
        piece = payload[start : start + PIECE]
        yield piece.hex()
        yield piece.hex(" ")
        yield base64.b64encode(piece).decode().rstrip("=")
        yield repr(piece)[2:-1]
    for value in np.frombuffer(payload[: len(payload) // 4 * 4], np.float32):
        yield f"{value:.5f}".rstrip("0")
        yield repr(float(value))


def test_no_log_holds_a_secret_or_a_hidden_state(model, fragile, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    issuer = Issuer(tmp_path)
    path = token_file(tmp_path, someone=TOKEN)
    tokens = TokenStore(path)

    async def scenario():
        async with serving(
            model,
            engine=model.engine(trunk=fragile),
            tokens=tokens,
            tls=issuer.issue("server").tls(),
        ) as url:
            loop = asyncio.get_running_loop()
            return await asyncio.to_thread(
                everything,
                url,
                model,
                issuer,
                path,
                lambda: loop.call_soon_threadsafe(tokens.reload),
            )

    payloads = run(scenario())
    assert len(payloads) == 7
    assert min(len(payload) for payload in payloads) >= 2 * WIDTH * 4
    log = "\n".join(TextLines().format(each) for each in caplog.records)
    # The log is there, and speaks of all that happened.
    for said in ("token=someone", "HTTP 401", "incident", "was revoked", "fingerprint-refused"):
        assert said in log
    assert log.count("\n") > 15
    digest = hashlib.sha256(TOKEN.encode())
    secrets = [TOKEN[4:], TOKEN[:-1], digest.hexdigest()[:16], "Authorization", "Bearer "]
    secrets += [base64.b64encode(form).decode()[:16] for form in (TOKEN.encode(), digest.digest())]
    assert not [secret for secret in secrets if secret.lower() in log.lower()]
    for payload in payloads:
        assert not [form for form in forms_of(payload) if len(form) > 6 and form in log]


def test_the_search_would_find_it(caplog):
    """Of the helper itself: each form is found in a log that has it."""
    caplog.set_level(logging.DEBUG)
    payload = hidden_states(2, 1).tobytes()
    value = float(np.frombuffer(payload, np.float32)[5])
    for text in (payload.hex(), base64.b64encode(payload).decode(), repr(payload), repr([value])):
        caplog.clear()
        logging.getLogger("test").debug("received %s", text)
        assert [form for form in forms_of(payload) if len(form) > 6 and form in caplog.text]
