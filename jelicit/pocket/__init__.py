"""The pocket model: a small Llama in Flax and its trainer."""
