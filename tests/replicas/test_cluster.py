"""Replicas on a real Ray cluster: placing, loss, draining, scaling, several gateways."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import psutil
import pytest
import ray
from ray import serve

from cloud.replicas.cluster import Scaling, deployed, running_replicas
from cloud.replicas.metrics import GatewayMetrics
from cloud.replicas.running import _Watch
from cloud.status import ServerStatus
from lambda_split.errors import CapacityRefused, ClusterUnavailable, ReplicasMissing, Unauthorized
from tests.replicas.gateways import device, gateway, wait_until
from tests.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TWO = Scaling(min_replicas=2, max_replicas=2, cpus=0.1, interval_s=1.0)
PROMPTS = ["once upon a time", "a", "the quick brown fox jumps over", "zz top"]


@pytest.fixture(scope="module")
def two(ray_cluster, tiny):
    """Two replicas, and the handle to them."""
    with deployed(tiny.settings(), TWO, name="two") as handle:
        yield handle


def replica_processes(name: str) -> dict[int, psutil.Process]:
    title = f"ray::ServeReplica:{name}:trunk"
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if "".join(process.cmdline()[:1]).startswith(title):  # and what it is doing just now
                found[process.pid] = process
    return found


def connections(process: psutil.Process) -> int:
    """Sessions of a replica: connections that gateways (this process) have opened to it."""
    try:
        ports = web_socket_ports(process)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # killed meanwhile
        return 0
    ours = psutil.Process().net_connections("tcp")
    return sum(each.status == "ESTABLISHED" and each.raddr.port in ports for each in ours)


def web_socket_ports(process: psutil.Process) -> set[int]:
    """The loopback IPv4 ports it listens on: Ray's own are IPv6 sockets."""
    return {
        each.laddr.port
        for each in process.net_connections("tcp4")
        if each.status == "LISTEN" and each.laddr.ip == "127.0.0.1"
    }


def sessions(name: str) -> dict[int, int]:
    """Sessions of each replica by its process id."""
    return {pid: connections(process) for pid, process in replica_processes(name).items()}


def page(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.read().decode()


def generate(bundle, url, prompt, tokens=60, **settings):
    with device(bundle, url, **settings) as llm:
        return llm.generate(prompt, max_new_tokens=tokens).token_ids


def test_a_generation_through_the_gateway_is_the_plain_servers(two, tiny):
    from tests.servers import serving

    with gateway(two) as front, serving(str(tiny.folder), "--device", "cpu") as plain:
        for prompt in PROMPTS:
            through = generate(tiny.bundle, front.url, prompt)
            assert through == generate(tiny.bundle, plain.url, prompt)
        assert front.counted("sessions_total") == len(PROMPTS)
        assert front.counted("sent_bytes_total") > 0


def test_a_killed_replica_costs_no_token(two, tiny):
    """SIGKILL of one replica after the other while generations run on both."""
    stop = threading.Event()
    outcomes: list[object] = []
    with gateway(two) as front:
        expected = [generate(tiny.bundle, front.url, prompt, 200) for prompt in PROMPTS]

        def keep_generating(index: int) -> None:
            try:
                with device(tiny.bundle, front.url) as llm:
                    while not stop.is_set():
                        result = llm.generate(PROMPTS[index], max_new_tokens=200)
                        outcomes.append(result.token_ids == expected[index])
            except Exception as error:  # noqa: BLE001  # any is a failure, told at the end
                outcomes.append(error)

        threads = [
            threading.Thread(target=keep_generating, args=(number % len(PROMPTS),))
            for number in range(6)
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                wait_until(lambda: running_replicas(name="two") == 2, 180, "two replicas")
                before = front.moved()
                wait_until(lambda: len(sessions("two")) == 2, 180, "two processes")
                wait_until(lambda: sum(sessions("two").values()) == 6, 180, "six sessions")
                # The fullest: whichever way they went after the last loss.
                victim = max(replica_processes("two").values(), key=connections)
                assert connections(victim) > 0
                victim.send_signal(signal.SIGKILL)
                wait_until(lambda: front.moved() > before, 180, "a session moves")  # noqa: B023
                wait_until(lambda: victim.pid not in replica_processes("two"), 180, "gone")  # noqa: B023
            count = len(outcomes)
            wait_until(lambda: len(outcomes) > count + 6, 180, "generations go on")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert front.counted("gateway_sessions_moved_total", reason="lost") >= 3
    assert outcomes
    assert all(outcome is True for outcome in outcomes), outcomes


def test_sessions_spread_by_free_memory(two, tiny):
    wait_until(lambda: running_replicas(name="two") == len(sessions("two")) == 2, 180, "two")
    time.sleep(10)  # Serve's figures are some seconds old: those of other tests' sessions fade
    with gateway(two) as front, contextlib.ExitStack() as stack:
        for count in range(1, 9):
            stack.enter_context(device(tiny.bundle, front.url))
            spread = sorted(sessions("two").values())
            assert sum(spread) == count
            assert spread[1] - spread[0] <= 2, spread


def test_a_full_cluster_refuses(two, tiny):
    """Eight sessions a replica: the seventeenth is told to come back, and fits in later."""
    wait_until(lambda: running_replicas(name="two") == 2, 180, "two replicas")
    with gateway(two) as front, contextlib.ExitStack() as stack:
        devices = []

        def fits() -> bool:
            with contextlib.suppress(CapacityRefused):
                devices.append(stack.enter_context(device(tiny.bundle, front.url)))
                return True
            return False

        for _ in range(16):  # sessions of other tests may be there for a moment yet
            wait_until(fits, 180, "a place is free")
        before = front.counted("refused_total", reason="capacity-refused")
        with pytest.raises(CapacityRefused) as refused:
            device(tiny.bundle, front.url)
        assert refused.value.retry_after_s > 0
        assert front.counted("refused_total", reason="capacity-refused") == before + 1
        devices[0].close()
        wait_until(fits, 180, "a place is free again")


def test_a_wrong_token_gets_nowhere(two, tiny):
    with gateway(two, token="right") as front:
        with pytest.raises(Unauthorized):
            device(tiny.bundle, front.url, token="wrong")
        with device(tiny.bundle, front.url, token="right") as llm:
            assert llm.generate("a", max_new_tokens=2).token_ids
        assert front.counted("sessions_total") == 1


def test_draining_moves_the_sessions(ray_cluster, tiny):
    """One of three replicas has to go: Serve drains it, its sessions go on elsewhere."""
    three = Scaling(min_replicas=3, max_replicas=3, cpus=0.1)
    with deployed(tiny.settings(), three, name="drain") as handle, gateway(handle) as front:
        expected = [generate(tiny.bundle, front.url, prompt) for prompt in PROMPTS]
        with contextlib.ExitStack() as stack:
            devices = [stack.enter_context(device(tiny.bundle, front.url)) for _ in range(6)]
            streams = [
                llm.stream(PROMPTS[number % len(PROMPTS)], max_new_tokens=60)
                for number, llm in enumerate(devices)
            ]
            for stream in streams:
                next(stream)
            assert all(connections(each) for each in replica_processes("drain").values())
            with deployed(tiny.settings(), TWO, name="drain"):
                wait_until(lambda: running_replicas(name="drain") == 2, 180, "two are left")
                wait_until(lambda: front.moved() > 0, 180, "sessions move")
                for number, stream in enumerate(streams):
                    for _ in stream:
                        pass
                    ids = (
                        devices[number]
                        .generate(PROMPTS[number % len(PROMPTS)], max_new_tokens=60)
                        .token_ids
                    )
                    assert ids == expected[number % len(PROMPTS)]
        assert front.counted("gateway_sessions_moved_total", reason="drained") > 0
        assert front.counted("gateway_sessions_moved_total", reason="lost") == 0


def test_scales_up_under_load_and_down_after(ray_cluster, tiny):
    scaling = Scaling(
        min_replicas=1,
        max_replicas=3,
        cpus=0.1,
        upscale_delay_s=0.5,
        downscale_delay_s=1.0,
        interval_s=0.5,
        look_back_s=2.0,
    )
    settings = tiny.settings(max_sessions=4)
    with deployed(settings, scaling, name="scale") as handle, gateway(handle) as front:
        assert running_replicas(name="scale") == 1
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(device(tiny.bundle, front.url))
            wait_until(lambda: running_replicas(name="scale") == 2, 180, "a second replica")
            for _ in range(3):
                stack.enter_context(device(tiny.bundle, front.url))
            wait_until(lambda: running_replicas(name="scale") == 3, 180, "a third replica")
        wait_until(lambda: running_replicas(name="scale") == 1, 180, "one replica again")
        assert generate(tiny.bundle, front.url, "a", 3)


def test_a_second_gateway_joins(two, tiny):
    """The command itself, in a process of its own, in front of the same replicas."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "lambda_split.cli", "serve", str(tiny.folder), "--port", "0"),
        *("--replicas", "ray", "--ray-address", ray.get_runtime_context().gcs_address),
        *("--gateway-only", "--replicas-name", "two", "--metrics-port", str(port)),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            match = re.fullmatch(r"listening on (ws://\S+)\n", process.stdout.readline())
            assert match
            with gateway(two) as first:
                expected = generate(tiny.bundle, first.url, PROMPTS[0])
            assert generate(tiny.bundle, match[1], PROMPTS[0]) == expected
            assert page(port, "/readyz") == "ready\n"
            counted = r'lambda_split_tokens_total{kind="decode",replica="(\w+)"} [1-9]'
            wait_until(lambda: re.search(counted, page(port, "/metrics")), 180, "steps are counted")
            told = page(port, "/metrics")
            assert len(re.findall(r"^lambda_split_kv_blocks{replica=", told, re.MULTILINE)) == 2
            assert "\nlambda_split_kv_blocks " not in told
            assert told.count("# TYPE lambda_split_kv_blocks ") == 1
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert running_replicas(name="two") == 2  # they are another process's


def test_a_gateway_is_ready_while_a_replica_serves(two):
    status, metrics = ServerStatus(), GatewayMetrics()
    status.started(lambda: True)
    for name, ready in (("two", True), ("nobody", False), ("two", True)):
        asyncio.run(_Watch(name, two, metrics, status).look())
        assert status.ready is ready
        assert (b'{replica="' in metrics.render()) is ready


def test_joining_nothing_is_an_error(ray_cluster, tiny):
    from cloud.replicas.cluster import joined

    with pytest.raises(ReplicasMissing, match="nobody"):
        joined(name="nobody")


def test_the_cluster_listens_on_loopback_without_usage_statistics(ray_cluster):
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
    assert not serve.status().proxies


def test_a_model_that_no_replica_can_load(ray_cluster, tiny, tmp_path):
    settings = tiny.settings(folder=tmp_path / "nothing")
    once = Scaling(cpus=0.1)
    with (
        pytest.raises(ClusterUnavailable, match="the replicas") as failed,
        deployed(settings, once, name="missing"),
    ):
        pytest.fail("a replica started")
    assert "nothing" in str(failed.value), "the replica's own error is told"
    assert "missing" not in serve.status().applications
