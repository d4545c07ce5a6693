"""Two replicas behind a real HAProxy or nginx with TLS, configured by the files in ``deploy/``."""

from __future__ import annotations

import contextlib
import pathlib
import re
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from edge_runtime import TextGenerator
from edge_runtime.sampling import SamplingSettings
from lambda_split.errors import CertificateUnknownIssuer
from tests.deploy.programs import adapted, body, find, running, until
from tests.servers import TrunkServer, free_port

PROMPT = list(range(10, 40))
NEW_TOKENS = 60
SAMPLING = SamplingSettings(temperature=0.8, top_k=40, seed=5)
PROXIES = pytest.mark.parametrize("proxy", ["haproxy", "nginx"])


class Replica(TrunkServer):
    """A trunk service with a metrics port."""

    def __init__(self, model: str) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        metrics = ("--metrics-port", str(self.metrics_port), "--drain-seconds", "120")
        super().__init__(model, *metrics, port=self.port)

    @property
    def sessions(self) -> int:
        """Open sessions, by its metrics; none where it does not run."""
        page = body(f"http://127.0.0.1:{self.metrics_port}/metrics") or b""
        found = re.search(rb"^lambda_split_sessions_open (\S+)$", page, re.MULTILINE)
        return int(float(found[1])) if found else 0

    def wait_until_not_ready(self, log: pathlib.Path) -> None:
        page = f"http://127.0.0.1:{self.metrics_port}/readyz"
        until(lambda: None if body(page) else True, log=log)


@dataclass(frozen=True)
class Site:
    url: str
    replicas: tuple[Replica, Replica]
    log: pathlib.Path

    def busy(self) -> Replica:
        """The replica that has the only session."""
        one, other = self.replicas
        assert one.sessions + other.sessions == 1
        return one if one.sessions else other


@pytest.fixture
def replicas(checkpoint) -> Iterator[tuple[Replica, Replica]]:
    made = Replica(str(checkpoint("llama"))), Replica(str(checkpoint("llama")))
    with contextlib.ExitStack() as stack:
        for replica in made:
            stack.callback(replica.close)
        threads = [threading.Thread(target=replica.start) for replica in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(replica.url for replica in made)
        yield made


@pytest.fixture
def site(request, replicas, certificates, tmp_path, monkeypatch) -> Iterator[Site]:
    proxy = request.node.callspec.params["proxy"]
    program, port = find(proxy), free_port()
    ports = {f"10.0.0.1{i}:8765": f"127.0.0.1:{each.port}" for i, each in enumerate(replicas, 1)}
    if proxy == "haproxy":
        changes = {":443": f"127.0.0.1:{port}", "/etc/haproxy/lambda-split.pem": certificates.both}
        file = adapted("haproxy.cfg", tmp_path, ports | changes)
        check, command = [program, "-c", "-f", file], [program, "-db", "-f", file]
    else:
        changes = {
            "listen 443": f"listen 127.0.0.1:{port}",
            "trunk.example": "localhost",
            "/etc/nginx/lambda-split.crt": certificates.chain,
            "/etc/nginx/lambda-split.key": certificates.key,
            "/run/nginx.pid": tmp_path / "nginx.pid",
            "/var/log/nginx/error.log": "stderr",
            "/var/lib/nginx/body": tmp_path / "body",
        }
        file = adapted("nginx.conf", tmp_path, ports | changes)
        quiet = ["-e", "stderr", "-p", tmp_path, "-c", file]
        check, command = [program, "-t", *quiet], [program, *quiet, "-g", "daemon off;"]
    checked = subprocess.run(list(map(str, check)), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr.lower()
    # Where Python's TLS looks for authorities; the device verifies as it does anywhere.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    log = tmp_path / "proxy.log"
    with running(*command, log=log):
        found = Site(f"wss://localhost:{port}", replicas, log)
        until(lambda: _status(found.url, "/") in {400, 426} or None, log=log)
        yield found


def _status(url: str, path: str) -> int | None:
    address = url.replace("wss:", "https:") + path
    try:
        context = ssl.create_default_context()
        with urllib.request.urlopen(address, timeout=30, context=context) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.fixture
def undisturbed(bundle, replicas) -> tuple[int, ...]:
    with TextGenerator.open(bundle("llama"), replicas[0].url, codec="fp32") as generator:
        return generator.generate(PROMPT, max_new_tokens=NEW_TOKENS, sampling=SAMPLING).token_ids


@pytest.mark.slow
@PROXIES
def test_a_generation_goes_on_when_its_replica_is_killed(proxy, bundle, undisturbed, site) -> None:
    with TextGenerator.open(bundle("llama"), site.url, codec="fp32") as generator:
        stream = generator.stream(PROMPT, max_new_tokens=NEW_TOKENS, sampling=SAMPLING)
        for count, _ in enumerate(stream):
            if count == 20:
                killed = site.busy()
                killed.kill()
            if count == 40:
                assert site.busy() is not killed
    assert stream.result.token_ids == undisturbed
    assert len(undisturbed) == NEW_TOKENS
    assert stream.result.stats.reconnects >= 1


@pytest.mark.slow
@PROXIES
def test_a_draining_replica_keeps_its_session_and_gets_no_other(
    proxy, bundle, undisturbed, site
) -> None:
    with (
        contextlib.ExitStack() as stack,
        TextGenerator.open(bundle("llama"), site.url, codec="fp32") as before,
    ):
        stream = before.stream(PROMPT, max_new_tokens=NEW_TOKENS, sampling=SAMPLING)
        for count, _ in enumerate(stream):
            if count == 20:
                leaving = site.busy()
                staying = next(each for each in site.replicas if each is not leaving)
                ended = threading.Thread(target=leaving.stop)
                ended.start()
                stack.callback(ended.join)
                leaving.wait_until_not_ready(site.log)
                for _ in range(3):
                    after = TextGenerator.open(bundle("llama"), site.url, codec="fp32")
                    stack.enter_context(after)
                    result = after.generate(PROMPT, max_new_tokens=4, sampling=SAMPLING)
                    assert result.token_ids == undisturbed[:4]
                    assert result.stats.reconnects == 0
                assert (leaving.sessions, staying.sessions) == (1, 3)
    assert stream.result.token_ids == undisturbed
    assert stream.result.stats.reconnects == 0


@pytest.mark.slow
@PROXIES
def test_health_and_metrics_stay_inside_and_tls_is_checked(
    proxy, bundle, site, monkeypatch, tmp_path
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert _status(site.url, path) == 404
    monkeypatch.delenv("SSL_CERT_FILE")
    with (
        pytest.raises(CertificateUnknownIssuer),
        TextGenerator.open(bundle("llama"), site.url) as generator,
    ):
        generator.generate(PROMPT, max_new_tokens=1)
