"""A device and a real server that do not trust one another: each reason in its own words."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest
import torch

from cloud.connection import Limits
from cloud.listener import bind
from cloud.loading import TrunkSettings, load_service
from cloud.server import serve
from cloud.text import LanguageModel
from cloud.tokens import Grant, TokenStore, digest_of
from edge_runtime import RetryPolicy, TextGenerator
from lambda_split.cli import main
from lambda_split.errors import (
    CertificateExpired,
    CertificateNotYetValid,
    CertificateRejected,
    CertificateUnknownIssuer,
    CertificateWrongHost,
    TlsError,
    TlsMissing,
    TlsRequired,
    TokenMissing,
    TokenRevoked,
    Unauthorized,
)
from lambda_split.partition import open_checkpoint
from lambda_split.split import Split
from tests.certificates import NOW, YEAR, Issuer
from tests.servers import free_port

PROMPT = "Once upon a time"
LIMITS = Limits(handshake_s=20, drain_s=1.0, goodbye_s=1.0)
# So long that a test which waited for it would be noticed.
PATIENT = RetryPolicy(give_up_after_s=300.0, connect_timeout_s=10.0)


class Server:
    """A trunk service in a thread of its own, which can be stopped and started on its port."""

    def __init__(self, model: str) -> None:
        torch.set_num_threads(1)
        settings = TrunkSettings(
            split=Split(1, 1), device=torch.device("cpu"), dtype=torch.float32, max_sessions=8
        )
        self._load = lambda: load_service(open_checkpoint(model), settings)
        self.port = free_port()
        self.url = ""

    @contextlib.contextmanager
    def running(self, **settings):
        """Serve inside a ``with`` block; settings as for ``serve``."""
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def main() -> None:
            model = LanguageModel(*self._load())
            listener = bind("127.0.0.1", self.port)
            async with serve(model, listener, limits=LIMITS, **settings) as url:
                self.url = url
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
        thread.start()
        try:
            assert ready.wait(60)
            yield lambda call: asyncio.run_coroutine_threadsafe(_called(call), loop).result(60)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(60)
            loop.close()
        assert not thread.is_alive()


async def _called(call):
    return call()


@pytest.fixture
def server(checkpoint):
    return Server(str(checkpoint("llama")))


@pytest.fixture
def issuer(tmp_path):
    return Issuer(tmp_path)


def tokens_of(folder, **tokens) -> TokenStore:
    path = folder / "tokens"
    path.write_text(
        "".join(f"{Grant(name, digest_of(token)).line()}\n" for name, token in tokens.items())
    )
    path.chmod(0o600)
    return TokenStore(path)


def generate(bundle, url, **settings):
    with TextGenerator.open(bundle, url, codec="fp32", retry=PATIENT, **settings) as llm:
        return llm.generate(PROMPT, max_new_tokens=6).token_ids


def told(error, bundle, url, **settings) -> str:
    """The sentence of an error that is raised at once."""
    begin = time.monotonic()
    with pytest.raises(error) as caught:
        generate(bundle, url, **settings)
    assert type(caught.value) is error
    assert time.monotonic() - begin < 60  # 300 s where it tried again and again
    return str(caught.value)


def test_a_private_certificate_is_trusted_where_its_issuer_is_given(
    bundle, server, issuer, tmp_path
):
    loaded = bundle("llama")
    tokens = tokens_of(tmp_path, device="s3cret")
    with server.running():
        plain = generate(loaded, server.url)
    with server.running(tls=issuer.issue("server").tls(), tokens=tokens):
        assert server.url.startswith("wss://")
        assert generate(loaded, server.url, token="s3cret", ca_file=issuer.ca_file) == plain
        sentence = told(CertificateUnknownIssuer, loaded, server.url, token="s3cret")
    assert "--ca-file" in sentence


def test_the_commands_take_a_ca_file_and_a_token(bundle, server, issuer, tmp_path, capsys):
    loaded = bundle("llama")
    tokens = tmp_path / "tokens"
    device = tmp_path / "device.token"
    assert main(["token", "device", "--add-to", str(tokens), "--out", str(device)]) == 0
    common = ["--codec", "fp32", "--max-new-tokens", "4", "--quiet"]
    with server.running(tls=issuer.issue("server").tls(), tokens=TokenStore(tokens)):
        where = ["--bundle", str(loaded.path), "--url", server.url, "--token-file", str(device)]
        trusted = [*where, "--ca-file", str(issuer.ca_file), *common, "--prompt", PROMPT]
        assert main(["generate", *trusted]) == 0
        assert main(["generate", *where, *common, "--prompt", PROMPT]) == 1
        error = capsys.readouterr().err
        assert "--ca-file" in error.splitlines()[-1]
        absent = [*where, "--ca-file", str(tmp_path / "no.pem"), *common, "--prompt", PROMPT]
        assert main(["generate", *absent]) == 2
    assert "no.pem" in capsys.readouterr().err


CERTIFICATES = {
    "expired": ({"not_after": NOW - YEAR / 10, "not_before": NOW - YEAR}, (), CertificateExpired),
    "future": (
        {"not_before": NOW + YEAR / 10, "not_after": NOW + YEAR},
        (),
        CertificateNotYetValid,
    ),
    "another name": ({}, ("trunk.example",), CertificateWrongHost),
    "another address": ({}, ("192.0.2.1",), CertificateWrongHost),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_a_certificate_that_is_wrong_is_told_in_its_own_words(bundle, server, issuer, case):
    settings, hosts, error = CERTIFICATES[case]
    with server.running(tls=issuer.issue("server", *hosts, **settings).tls()):
        told(error, bundle("llama"), server.url, ca_file=issuer.ca_file)


def test_a_name_that_is_not_in_the_certificate(bundle, server, issuer):
    with server.running(tls=issuer.issue("server", "127.0.0.1").tls()):
        url = server.url.replace("127.0.0.1", "localhost")
        told(CertificateWrongHost, bundle("llama"), url, ca_file=issuer.ca_file)


def test_plain_where_the_server_speaks_tls(bundle, server, issuer):
    with server.running(tls=issuer.issue("server").tls()):
        url = server.url.replace("wss://", "ws://")
        assert "wss://" in told(TlsRequired, bundle("llama"), url)


def test_tls_where_the_server_is_plain(bundle, server, issuer):
    with server.running():
        url = server.url.replace("ws://", "wss://")
        sentence = told(TlsMissing, bundle("llama"), url, ca_file=issuer.ca_file)
    assert "--tls-cert" in sentence


def test_tokens_are_told_apart(bundle, server, tmp_path):
    tokens = tokens_of(tmp_path, device="s3cret", gone="0ld")
    path = tmp_path / "tokens"
    path.write_text(path.read_text().rstrip("\n") + " revoked\n")
    tokens.reload()
    loaded = bundle("llama")
    with server.running(tokens=tokens):
        assert len(generate(loaded, server.url, token="s3cret")) == 6
        sentences = {
            told(TokenMissing, loaded, server.url),
            told(Unauthorized, loaded, server.url, token="wrong"),
            told(TokenRevoked, loaded, server.url, token="0ld"),
        }
    assert len(sentences) == 3


def test_a_token_that_is_revoked_in_a_generation_ends_it(bundle, server, tmp_path):
    tokens = tokens_of(tmp_path, device="s3cret")
    with (
        server.running(tokens=tokens) as in_the_server,
        TextGenerator.open(bundle("llama"), server.url, token="s3cret", retry=PATIENT) as llm,
    ):
        stream = llm.stream(PROMPT, max_new_tokens=60)
        next(stream)
        (tmp_path / "tokens").write_text("")
        in_the_server(tokens.reload)
        with pytest.raises(TokenRevoked):
            list(stream)
        with pytest.raises(Unauthorized):  # now nobody knows that it ever was one
            llm.generate(PROMPT, max_new_tokens=2)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"not_after": NOW - YEAR / 10, "not_before": NOW - YEAR}, CertificateExpired),
        (None, TlsMissing),
    ],
    ids=["expired", "plain"],
)
def test_a_server_that_comes_back_with_worse_is_not_replayed_to(
    bundle, server, issuer, changes, error
):
    """The device has hidden states to replay, and must not wait for five minutes to say why."""
    good = issuer.issue("good").tls()
    worse = None if changes is None else issuer.issue("worse", **changes).tls()
    with contextlib.ExitStack() as stack:
        with server.running(tls=good):
            llm = stack.enter_context(
                TextGenerator.open(
                    bundle("llama"), server.url, ca_file=issuer.ca_file, retry=PATIENT
                )
            )
            llm.generate(PROMPT, max_new_tokens=3)
        begin = time.monotonic()
        with server.running(tls=worse), pytest.raises(error):
            llm.generate(PROMPT, max_new_tokens=3)
        assert time.monotonic() - begin < 60
        with server.running(tls=good):  # and once it is mended, the conversation goes on
            assert len(llm.generate(PROMPT, max_new_tokens=3).token_ids) == 3


def test_every_tls_error_has_a_sentence_of_its_own():
    errors = [cls for cls in TlsError.__subclasses__() if cls is not CertificateRejected]
    sentences = [str(cls("wss://trunk.example")) for cls in errors]
    assert len(set(sentences)) == len(errors) == 6
    assert all("trunk.example" in sentence for sentence in sentences)
    assert "bad luck" in str(CertificateRejected("wss://x", "bad luck"))
