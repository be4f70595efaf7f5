"""What depends on the hardware: kernels, checkpoints, memory."""
