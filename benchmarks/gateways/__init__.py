"""What a gateway costs around an upstream that answers at once: ours, LiteLLM's, and a bare pass-through."""
