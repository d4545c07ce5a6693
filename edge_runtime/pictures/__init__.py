"""Pictures on the device: text encoders, solver, VAE decoder; the denoiser is in the cloud."""
