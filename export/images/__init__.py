"""Pipeline -> bundle: trace text encoders and VAE decoder, quantize, verify against diffusers."""
