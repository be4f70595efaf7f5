"""Code that depends on the hardware: kernels, checkpoints, memory."""
