"""A service of a whole model, what the split is compared with: ``python -m bench.cloud_service``.

    python -m bench.cloud_service demo --dtype float32

It listens on a free loopback port, says ``listening on ws://HOST:PORT``, and serves one prompt at a
time until it or its stdin is ended. It has neither tokens nor TLS: it is for benchmarks only.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from typing import get_args

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from bench.cloud_protocol import MAX_MESSAGE_BYTES, Done, Prompt
from bench.settings import Dtype
from lambda_split.arguments import positive
from lambda_split.ending import end_with_stdin
from lambda_split.errors import LambdaSplitError, UsageError

__all__ = ["main"]

_INVALID = 1007  # close codes of RFC 6455, section 7.4.1
_POLICY = 1008


def main() -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--dtype", choices=get_args(Dtype), default="auto")
    parser.add_argument("--threads", type=positive, metavar="N")
    args = parser.parse_args()
    end_with_stdin()
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as `serve` has it, and before torch
    try:
        _serve(args)
    except LambdaSplitError as error:
        sys.stderr.write(f"lambda-split: {error}\n")
        return 1
    return 0


def _serve(args: argparse.Namespace) -> None:
    import torch

    from bench.cloud_model import CloudModel
    from edge_runtime.detokenizer import Detokenizer
    from edge_runtime.tokenizer import Tokenizer
    from export.tokenizer_file import read_tokenizer
    from lambda_split.partition import open_checkpoint

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    checkpoint = open_checkpoint(args.model)
    tokenizer = Tokenizer(read_tokenizer(checkpoint).tokenizer, checkpoint.vocab_size)
    model = CloudModel(checkpoint, args.dtype)

    def reply(connection: ServerConnection, prompt: Prompt) -> None:
        token_ids = tokenizer.encode(prompt.text)
        detokenizer = Detokenizer(tokenizer, token_ids)
        seconds: list[float] = []
        begin = time.perf_counter()
        for token in model.generate(token_ids, prompt.max_new_tokens):
            seconds.append(time.perf_counter() - begin)
            connection.send(detokenizer.push(token))
            begin = time.perf_counter()
        done = Done(prompt_tokens=len(token_ids), first_s=seconds[0], rest_s=sum(seconds[1:]))
        connection.send(msgspec.json.encode(done))

    one_at_a_time = threading.Lock()

    def handle(connection: ServerConnection) -> None:
        try:
            for message in connection:
                with one_at_a_time:
                    reply(connection, msgspec.json.decode(message, type=Prompt))
        except msgspec.DecodeError as error:
            connection.close(_INVALID, str(error)[:100])
        except UsageError as error:
            connection.close(_POLICY, str(error)[:100])
        except ConnectionClosed:
            return

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=MAX_MESSAGE_BYTES) as server:
        host, port = server.socket.getsockname()[:2]
        sys.stdout.write(f"listening on ws://{host}:{port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
