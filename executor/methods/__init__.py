"""Compression done for real: pruning, quantization, distillation, experts dropped or merged; each file is one of them."""
