"""A deployment: one immutable served system, named by the digest of everything that shapes its answers."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from transom.schema.canonical import canonical_bytes, digest, sha256


class Frozen(BaseModel):
    """Base of the parts of a manifest: closed, immutable, without floats."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelManifest(Frozen):
    """The model root: what `transom model add` wrote, file by file and tensor by tensor."""

    signing_statement: dict[str, Any]
    """in-toto Statement in OpenSSF model-signing form (predicate `https://model_signing/signature/v1.0`):
    SHA-256 of each file, and of their concatenated digests as the subject."""
    tensors_root: str
    """Merkle root (RFC 6962 hashing) over the tensors in the order of their names."""
    tensor_count: int
    parameter_count: int
    tokenizer: str
    """SHA-256 of tokenizer.json."""
    chat_template: str | None
    """SHA-256 of the chat template's UTF-8 text; None for a base model."""
    architecture: str
    """Class of the model in transformers, such as `LlamaForCausalLM`."""

    @cached_property
    def digest(self) -> str:
        """Digest of the model root. What somebody calls it is no part of it."""
        return digest(self.model_dump(exclude={"signing_statement": {"subject": {0: {"name"}}}}))


class EngineProfile(Frozen):
    """Everything outside the model that may change a bit of an answer."""

    dtype: str
    device: str
    torch: str
    transformers: str
    numba: str
    libm: str
    """The C library, whose logarithms the sampler takes, such as `glibc 2.36`."""
    cpu_capability: str
    """What torch compiled for, such as `AVX2` or `AVX512`."""
    cpu_features: str
    """Digest of what the just-in-time compiler targets: CPU name and instruction set."""
    linear: str
    """What matrix products compute, such as `tiles/float32/v1`."""
    attention: str
    fusion: str
    """How many modules were replaced by fused ones, and by which version of them."""
    sampler: str


class Policy(Frozen):
    """Limits of the deployment that shape what can be asked."""

    max_model_len: int
    max_top_logprobs: int


class Deployment(Frozen):
    """Model root, engine profile and policy; a change of any part is a new deployment."""

    model: ModelManifest
    profile: EngineProfile
    policy: Policy

    @property
    def document(self) -> bytes:
        """What the digest is of, canonical: digest of the model root, engine profile, policy."""
        return canonical_bytes(
            {
                "model": self.model.digest,
                "profile": self.profile.model_dump(),
                "policy": self.policy.model_dump(),
            }
        )

    @cached_property
    def digest(self) -> str:
        """The deployment's name, shown by `GET /v1/models` and as `system_fingerprint`."""
        return sha256(self.document)


class ServedModel(BaseModel):
    """A model as the outside sees it."""

    name: str
    deployment: Deployment
    created: int = Field(description="Unix time at which the model root was written")
