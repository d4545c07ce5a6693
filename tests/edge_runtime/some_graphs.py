"""Small ONNX heads and tails, written by hand, and what they compute, in numpy.

One layer of causal attention with 4 query heads on 2 key-value heads, over token plus position
embeddings. They exist in both forms that a bundle may hold: GroupQueryAttention over shared
buffers, and plain operators that append past to present.
"""

import numpy as np
import onnx
import onnx.parser

from lambda_split.bundle import (
    Bundle,
    Geometry,
    Graph,
    KVGeometry,
    Manifest,
    ModelSource,
    TextSettings,
    describe_files,
    load_bundle,
    write_manifest,
)
from lambda_split.split import Split

HEADS, KV_HEADS, HEAD_DIM, VOCAB, POSITIONS = 4, 2, 16, 40, 64
WIDTH = HEADS * HEAD_DIM
KV = KVGeometry(heads=KV_HEADS, head_dim=HEAD_DIM)

_generator = np.random.default_rng(7)


def _weights(*shape):
    return _generator.normal(scale=0.4, size=shape).astype(np.float32)


WEIGHTS = {
    "table": _weights(VOCAB, WIDTH),
    "places": _weights(POSITIONS, WIDTH),
    "wq": _weights(WIDTH, WIDTH),
    "wk": _weights(WIDTH, KV_HEADS * HEAD_DIM),
    "wv": _weights(WIDTH, KV_HEADS * HEAD_DIM),
    "wo": _weights(WIDTH, WIDTH),
    "lm": _weights(WIDTH, VOCAB),
}

_SHARED = """
    total = Add(start, count)
    last = Sub(total, one)
    seqlens = Cast <to = 6> (last)
    total_scalar = Squeeze(total)
    total_32 = Cast <to = 6> (total_scalar)
    mixed, present_k, present_v = com.microsoft.GroupQueryAttention
        <num_heads = 4, kv_num_heads = 2> (q, k, v, past_k, past_v, seqlens, total_32)
"""
_CONCAT = """
    q_split = Reshape(q, split_q)
    q_heads = Transpose <perm = [0, 2, 3, 1, 4]> (q_split)
    k_split = Reshape(k, split_kv)
    k_heads = Transpose <perm = [0, 2, 1, 3]> (k_split)
    v_split = Reshape(v, split_kv)
    v_heads = Transpose <perm = [0, 2, 1, 3]> (v_split)
    present_k = Concat <axis = 2> (past_k, k_heads)
    present_v = Concat <axis = 2> (past_v, v_heads)
    keys_flat = Transpose <perm = [0, 1, 3, 2]> (present_k)
    keys = Unsqueeze(keys_flat, two)
    raw_scores = MatMul(q_heads, keys)
    scores = Mul(raw_scores, scale)
    key_count = Shape <start = 2, end = 3> (present_k)
    key_count_scalar = Squeeze(key_count)
    key_places = Range(zero_scalar, key_count_scalar, one_scalar)
    query_steps = Range(zero_scalar, count_scalar, one_scalar)
    query_flat = Add(query_steps, start)
    query_places = Unsqueeze(query_flat, one)
    seen = LessOrEqual(key_places, query_places)
    masked = Where(seen, scores, minus_infinity)
    chances = Softmax <axis = -1> (masked)
    values = Unsqueeze(present_v, two)
    mixed_heads = MatMul(chances, values)
    mixed_split = Transpose <perm = [0, 3, 1, 2, 4]> (mixed_heads)
    mixed = Reshape(mixed_split, join)
"""
_LAYER = """
    count = Shape <start = 1, end = 2> (x)
    count_scalar = Squeeze(count)
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    v = MatMul(x, wv)
    {attention}
    projected = MatMul(mixed, wo)
    {result} = Add(x, projected)
"""
_EMBEDDING = """
    token_count = Shape <start = 1, end = 2> (token_ids)
    token_count_scalar = Squeeze(token_count)
    steps = Range(zero_scalar, token_count_scalar, one_scalar)
    places_flat = Add(steps, start)
    place = Gather(places, places_flat)
    word = Gather(table, token_ids)
    x = Add(word, place)
"""
_LM_HEAD = """
    chosen = Gather <axis = 1> (y, logit_positions)
    logits = MatMul(chosen, lm)
"""
_CONSTANTS = {
    "one": np.array([1], np.int64),
    "zero_scalar": np.array(0, np.int64),
    "one_scalar": np.array(1, np.int64),
    "two": np.array([2], np.int64),
    "split_q": np.array([1, -1, KV_HEADS, HEADS // KV_HEADS, HEAD_DIM], np.int64),
    "split_kv": np.array([1, -1, KV_HEADS, HEAD_DIM], np.int64),
    "join": np.array([1, -1, WIDTH], np.int64),
    "scale": np.array(HEAD_DIM**-0.5, np.float32),
    "minus_infinity": np.array(-np.inf, np.float32),
}


def _model(inputs, outputs, body):
    caches = "past_k" in body
    if caches:
        inputs = [*inputs, *(f"float[1,{KV_HEADS},P,{HEAD_DIM}] past_{n}" for n in "kv")]
        outputs = [*outputs, *(f"float[1,{KV_HEADS},C,{HEAD_DIM}] present_{n}" for n in "kv")]
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        graph ({", ".join(inputs)}) => ({", ".join(outputs)}) {{ {body} }}"""
    )
    used = {name for node in model.graph.node for name in node.input}
    for name, value in {**WEIGHTS, **_CONSTANTS}.items():
        if name in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.checker.check_model(model)
    return model


def _attention(kind):
    return _SHARED if kind == "shared-kv" else _CONCAT


def head_model(kind):
    """The head as an ONNX model; ``kind`` as in the manifest, or ``none`` for no layer."""
    if kind == "none":
        return _model(
            ["int64[1,T] token_ids"],
            [f"float[1,T,{WIDTH}] hidden"],
            "hidden = Gather(table, token_ids)",
        )
    layer = _LAYER.format(attention=_attention(kind), result="hidden")
    return _model(
        ["int64[1,T] token_ids", "int64[1] start"],
        [f"float[1,T,{WIDTH}] hidden"],
        _EMBEDDING + layer,
    )


def tail_model(kind):
    """The tail as an ONNX model; ``kind`` as for :func:`head_model`."""
    inputs = [f"float[1,T,{WIDTH}] x", "int64[N] logit_positions"]
    if kind == "none":
        body = _LM_HEAD.replace("(y,", "(x,")
    else:
        inputs.append("int64[1] start")
        body = _LAYER.format(attention=_attention(kind), result="y") + _LM_HEAD
    return _model(inputs, [f"float[1,N,{VOCAB}] logits"], body)


def description(name, kind):
    """The manifest's entry for such a graph."""
    layered = kind != "none"
    inputs = {"token_ids": "token_ids"}
    if name == "tail":
        inputs = {"hidden": "x", "logit_positions": "logit_positions"}
    outputs = {"hidden": "hidden"} if name == "head" else {"logits": "logits"}
    if layered:
        inputs |= {"start": "start", "past.0.key": "past_k", "past.0.value": "past_v"}
        outputs |= {"present.0.key": "present_k", "present.0.value": "present_v"}
    return Graph(
        file=f"{name}.onnx",
        weights="fp32",
        attention="concat-kv" if kind == "concat-kv" else "shared-kv",
        kv=(KV,) if layered else (),
        inputs=inputs,
        outputs=outputs,
    )


def write_bundle(folder, kind, *, change=None) -> Bundle:
    """A bundle of both graphs; ``change`` may alter the manifest's graphs (name to Graph)."""
    onnx.save(head_model(kind), folder / "head.onnx")
    onnx.save(tail_model(kind), folder / "tail.onnx")
    (folder / "tokenizer.json").write_text("{}")
    graphs = {name: description(name, kind) for name in ("head", "tail")}
    if change is not None:
        graphs = change(graphs)
    layers = 0 if kind == "none" else 1
    write_manifest(
        folder,
        Manifest(
            schema=1,
            kind="causal-lm",
            producer="tests",
            model=ModelSource(id="hand-made", family="none", fingerprint="0123456789abcdef"),
            split=Split(layers, layers),
            geometry=Geometry(
                hidden_size=WIDTH, layer_count=3, vocab_size=VOCAB, max_positions=POSITIONS
            ),
            graphs=graphs,
            text=TextSettings(tokenizer="tokenizer.json"),
            files=describe_files(folder, ["head.onnx", "tail.onnx", "tokenizer.json"]),
        ),
    )
    return load_bundle(folder)


def _layer(x):
    """(T, W) -> (T, W): the layer over a whole sequence, in float64."""
    tokens = len(x)
    # Query head h attends to key-value head h // (HEADS // KV_HEADS).
    q = (x @ WEIGHTS["wq"]).reshape(tokens, KV_HEADS, -1, HEAD_DIM)  # (T, W) -> (T, kv, group, D)
    k = (x @ WEIGHTS["wk"]).reshape(tokens, KV_HEADS, HEAD_DIM)  # (T, kv * D) -> (T, kv, D)
    v = (x @ WEIGHTS["wv"]).reshape(tokens, KV_HEADS, HEAD_DIM)  # as k
    scores = np.einsum("tkgd,skd->kgts", q, k) / np.sqrt(HEAD_DIM)
    scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
    chances = np.exp(scores - scores.max(axis=-1, keepdims=True))
    chances /= chances.sum(axis=-1, keepdims=True)
    mixed = np.einsum("kgts,skd->tkgd", chances, v).reshape(tokens, WIDTH)  # -> (T, W)
    return x + mixed @ WEIGHTS["wo"]


def expected_hidden(ids, kind):
    """What the head computes for a whole sequence, (T, W)."""
    words = WEIGHTS["table"][ids].astype(np.float64)
    return words if kind == "none" else _layer(words + WEIGHTS["places"][: len(ids)])


def expected_logits(hidden, kind):
    """What the tail computes for a whole sequence, (T, V)."""
    states = hidden.astype(np.float64)
    return (states if kind == "none" else _layer(states)) @ WEIGHTS["lm"]
