"""Guidance on the device is that of the service, and of diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

from cloud.pictures.denoiser import guided
from edge_runtime.pictures.guidance import Guidance


@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_it_is_the_services(scale, rescale) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4, 5, 7)).astype(np.float32)
    found = Guidance(scale, rescale).apply(rows)
    assert found.dtype == np.float32
    expected = guided(torch.from_numpy(rows), 3, scale, rescale).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    prompt, negative = torch.from_numpy(rows).split(3)
    library = rescale_noise_cfg(negative + scale * (prompt - negative), prompt, rescale)
    np.testing.assert_allclose(found, library.numpy(), rtol=1e-5, atol=1e-6)
