"""Llama and Qwen in Flax, their tokenizers, and Hugging Face folders in and out."""
