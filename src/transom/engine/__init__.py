"""The engine: scheduling, cache, batch and sampling over the modules of Hugging Face transformers.

This file imports nothing, so that messages can be read where no torch is installed.
"""
