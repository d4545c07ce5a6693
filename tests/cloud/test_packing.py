"""Packed linear layers compute what they replace, and whatever does not stays."""

import pytest
import torch
from torch import nn

from cloud.engine import packing
from cloud.engine.packing import PackedLinear, pack_linear_layers

# oneDNN computes in bfloat16 on such processors only; on others the layers stay as they are.
PACKS_BF16 = "AVX512" in torch.backends.cpu.get_cpu_capability()


def model(*, dtype=torch.float32, bias=True):
    torch.manual_seed(0)
    layers = [nn.Linear(48, 96, bias=bias), nn.SiLU(), nn.Linear(96, 32, bias=bias)]
    return nn.Sequential(nn.LayerNorm(48), nn.Sequential(*layers)).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("rows", [1, 2, 8, 65, 300])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_they_compute_what_they_replace(dtype, bias, rows):
    plain, packed = model(dtype=dtype, bias=bias), model(dtype=dtype, bias=bias)
    kind = PackedLinear if dtype is torch.float32 or PACKS_BF16 else nn.Linear
    assert pack_linear_layers(packed) == (2 if kind is PackedLinear else 0)
    assert [type(layer) for layer in packed[1]] == [kind, nn.SiLU, kind]
    hidden = torch.randn(1, rows, 48, dtype=dtype)
    with torch.inference_mode():
        found, wanted = packed(hidden), plain(hidden)
    assert found.shape == wanted.shape
    tolerance = 1e-5 if dtype is torch.float32 else 0.02
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_a_layer_that_would_compute_something_else_stays(monkeypatch, caplog):
    def wrong(self, hidden):
        return torch.zeros(*hidden.shape[:-1], self.out_features, dtype=hidden.dtype)

    monkeypatch.setattr(PackedLinear, "forward", wrong)
    plain = model()
    assert pack_linear_layers(plain) == 0
    assert "something else" in caplog.text
    assert type(plain[1][0]) is nn.Linear


def test_where_pytorch_cannot_do_it_layers_stay(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pack_linear_layers(model()) == 0


def test_other_dtypes_and_subclasses_stay():
    class Own(nn.Linear):
        pass

    assert pack_linear_layers(model(dtype=torch.float64)) == 0
    assert pack_linear_layers(nn.Sequential(Own(8, 8))) == 0
    assert packing._TOLERANCE.keys() == {torch.float32, torch.bfloat16}


def test_the_numbers_of_rows_that_are_computed_are_few():
    computed = {packing._rounded(rows) for rows in range(1, 1025)}
    assert len(computed) <= 36
    assert all(rows <= packing._rounded(rows) < rows + 128 for rows in range(1, 1025))
    assert [packing._rounded(rows) for rows in (1, 16, 17, 64, 65, 257)] == [1, 16, 24, 64, 96, 384]
