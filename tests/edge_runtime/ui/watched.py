"""``lambda-split ui`` with every address written down that its process asks for or connects to."""

from __future__ import annotations

import pathlib
import sys

from lambda_split.cli import main


def watch(file: str) -> None:
    """Write down what Python's own audit events tell of the network (PEP 578)."""
    log = pathlib.Path(file).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115  # as long as it runs

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.connect":
            log.write(f"connect {arguments[1]!r}\n")
        elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
            log.write(f"resolve {arguments[0]!r}\n")

    sys.addaudithook(hook)


if __name__ == "__main__":
    watch(sys.argv[1])
    sys.exit(main(["ui", *sys.argv[2:]]))
