"""Compression done for real: pruning, quantization, distillation, fewer experts; each file is one idea."""
