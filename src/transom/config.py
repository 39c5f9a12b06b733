"""Every setting of the server, read from the environment (`TRANSOM_…`) once, by `app` and `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of one server. An unknown `TRANSOM_…` variable is not an error; a malformed one is."""

    model_config = SettingsConfigDict(env_prefix="TRANSOM_", frozen=True)

    home: Path = Field(default=Path.home() / ".transom", description="Folder of models, database and secrets")
    host: str = Field(default="127.0.0.1", description="Address to listen on")
    port: int = Field(default=8600, ge=0, le=65535, description="Port to listen on")
    models: tuple[str, ...] = Field(
        default=(), description="Models to serve, as JSON; empty for all in the library"
    )
    allow_anonymous: bool = Field(default=False, description="Whether requests without a key are answered")
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL; left out, SQLite in the home folder"
    )
    public_url: str | None = Field(
        default=None,
        description="Scheme and host by which people reach the server, such as https://transom.example.org; "
        "left out, http://localhost and the port",
    )
    smtp_url: SecretStr | None = Field(
        default=None,
        description="Mail server, as smtps://user:password@host; left out, mails go into the home folder",
    )
    mail_from: str | None = Field(default=None, description="Address that mails come from; needed with SMTP")
    providers_file: Path | None = Field(
        default=None, description="File of the providers to sign in with; left out, in the home folder"
    )
    programme: Path | None = Field(
        default=None, description="File that says what is offered to whom; left out, `programme.toml` there"
    )
    vault_file: Path | None = Field(
        default=None, description="File of the master keys; left out, `vault.json` in the home folder"
    )
    vault_key: SecretStr | None = Field(
        default=None,
        description="Master key, 64 hexadecimal digits, instead of the file; or `2:…,1:…`, current first",
    )
    artifacts_url: str | None = Field(
        default=None,
        description="Where artifacts are kept, as s3://bucket/prefix, gs://…, az://… or file:///…; left out, "
        "a folder in the home folder",
    )
    artifact_mib: int = Field(default=256, ge=1, description="Largest artifact, MiB")
    artifacts_mib: int = Field(default=2048, ge=1, description="All artifacts of a project together, MiB")
    signing_file: Path | None = Field(
        default=None, description="File of the keys that sign records; left out, `signing.json` there"
    )
    log_origin: str | None = Field(
        default=None,
        description="Name of the public log, best its URL without the scheme: transom.example.org/log; left "
        "out, a random one. It cannot be changed later",
    )
    log_key_file: Path | None = Field(
        default=None, description="File of the log's private key; left out, `log.key` in the home folder"
    )
    log_folder: Path | None = Field(
        default=None, description="Folder of the log's public files; left out, `log` in the home folder"
    )
    beacon: str | None = Field(
        default=None,
        description="Public beacon that draws the records which are replayed in public each day: the "
        "address of a relay of drand with the hash of a chain, or a file of dates and values; left out, none",
    )
    challenge_count: int = Field(
        default=8, ge=1, le=256, description="Records that the beacon draws, each day"
    )
    challenges_a_day: int = Field(
        default=24,
        ge=0,
        description="Records that people may have replayed in public each day, all together",
    )
    log_policy: Path | None = Field(
        default=None,
        description="File of the log's witnesses, in the form of https://c2sp.org/tlog-policy: those with a "
        "URL are asked to cosign each checkpoint; left out, nobody is",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Number format of the engine"
    )
    device: str = Field(
        default="cpu",
        description="Device of the engine, as torch names it; reproducible to the bit is cpu only",
    )
    processor: Literal["host", "x86-64-v3", "x86-64-v4"] = Field(
        default="host",
        description="Processor that the engine computes for: the one at hand, or one that has no more than a "
        "level of x86-64; without AVX-512 that is x86-64-v3",
    )
    threads: int = Field(default=0, ge=0, description="Threads of an engine; 0 for one each core")
    cache_mib: int = Field(default=2048, ge=16, description="Memory for keys and values, MiB, each model")
    gradient_mib: int = Field(
        default=4096, ge=16, description="Most memory that one gradient may take, MiB, beside the model"
    )
    max_num_seqs: int = Field(default=64, ge=1, description="Sequences that run at once")
    max_queue: int = Field(
        default=1024,
        ge=2,
        description="Sequences that may wait beyond those that run, each model; a project may fill half",
    )
    max_num_batched_tokens: int = Field(
        default=0, ge=0, description="Tokens that one step computes; 0 for what suits the device"
    )
    prefix_caching: bool = Field(
        default=True, description="Whether prompts of a project that begin alike share what was computed"
    )
    max_model_len: int = Field(default=0, ge=0, description="Longest context; 0 for what the model declares")
    engine_hang_seconds: float = Field(
        default=120, gt=0, description="Silence of an engine with work to do, after which it is restarted"
    )
    engine_load_seconds: float = Field(
        default=1800, gt=0, description="How long an engine may take to load and prove its model"
    )
    metrics_public: bool = Field(
        default=False, description="Whether `/metrics` is shown to clients beyond this machine"
    )
    shutdown_seconds: int = Field(
        default=20, ge=0, description="How long running requests may finish on shutdown"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe kind of event that is logged, on stderr"
    )

    @property
    def database(self) -> str:
        """URL of the database."""
        return self.database_url or f"sqlite:///{self.home / 'transom.db'}"

    @property
    def artifacts(self) -> str:
        """Folder or URL of the artifacts."""
        return self.artifacts_url or str(self.home / "artifacts")

    @property
    def vault(self) -> Path:
        """File of the master keys under which data keys are wrapped."""
        return self.vault_file or self.home / "vault.json"

    @property
    def signing(self) -> Path:
        """File of the private keys that sign records."""
        return self.signing_file or self.home / "signing.json"

    @property
    def log_key(self) -> Path:
        """File of the private key that signs checkpoints of the log."""
        return self.log_key_file or self.home / "log.key"

    @property
    def log(self) -> Path:
        """Folder of the log's public files."""
        return self.log_folder or self.home / "log"

    @property
    def library(self) -> Path:
        """Folder of the model roots."""
        return self.home / "models"

    @property
    def programme_file(self) -> Path:
        """File of the programme; it need not exist."""
        return self.programme or self.home / "programme.toml"

    @property
    def peppers(self) -> Path:
        """File of the peppers under which keys are hashed."""
        return self.home / "peppers.json"

    @property
    def origin(self) -> str:
        """Address that people's browsers know the server by."""
        return self.public_url or f"http://localhost:{self.port}"

    @property
    def mails(self) -> Path:
        """Folder of the mails of a server that does not send any."""
        return self.home / "mail"

    @property
    def providers(self) -> Path:
        """File of the providers of identity."""
        return self.providers_file or self.home / "providers.toml"
