"""The composition root: every part is made and wired here, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog
from fastapi import FastAPI

from transom.access.credentials.peppers import PepperFile, PepperSource
from transom.access.keys.callers import KeyStore
from transom.access.keys.entitlements import Entitlements, granted_scopes
from transom.access.people import outbox
from transom.access.people.mail import Letters, Mailer, MailFolder, SmtpMailer, SmtpServer
from transom.access.people.origin import Origin
from transom.access.people.people import addresses_of, email_of
from transom.access.programme import clockwork, programme
from transom.access.programme.desk import Desk
from transom.access.projects import members
from transom.access.quotas import Quotas
from transom.access.rights import export
from transom.access.sign_in import providers
from transom.access.sign_in.entrance import Entrance
from transom.access.weights.exposure import Exposure
from transom.api import routes
from transom.artifacts.arrival import Arrivals
from transom.artifacts.arrival import Limits as ArtifactLimits
from transom.artifacts.store import ArtifactStore
from transom.backends.base import Backend
from transom.backends.library import ModelLibrary
from transom.backends.local import Limits, LocalBackend
from transom.config import Settings
from transom.engine.messages import EngineOptions
from transom.errors import ConfigurationError, ModelRefused, NotFound, StorageError
from transom.records.beacons import open_beacon
from transom.records.challenges import Rules
from transom.records.seeds import SeedPromises
from transom.records.signing import SigningKeyFile
from transom.records.store import RecordStore
from transom.services.evidence import challenges
from transom.services.evidence import log as log_service
from transom.services.house import House, utc_now
from transom.services.office import Office
from transom.services.spool import Spool
from transom.storage.blobs import Blobs
from transom.storage.database import Database
from transom.storage.master_keys import GivenMasterKeys, MasterKeyFile, MasterKeySource
from transom.storage.migrate import migrate
from transom.storage.vault import Vault
from transom.tlog.cosigning import Cosigning
from transom.tlog.files import LogFiles
from transom.tlog.keys import open_key
from transom.tlog.policies import read_policy
from transom.tlog.publishing import Publication

log = structlog.get_logger()

TICK_SECONDS = 5
"""How often the programme's clock strikes."""

SWEEP_SECONDS = 3600
"""How often blobs without a row are looked for."""


def create_app(
    settings: Settings,
    *,
    backends: Mapping[str, Backend] | None = None,
    on_refusal: Callable[[ModelRefused], None] = lambda _: None,
    clock: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """The ASGI application.

    Args:
        settings: see `transom.config`.
        backends: what to serve instead of the library's models, for tests.
        on_refusal: told when a model cannot be served; the rest goes on.
        clock: the time, in UTC.

    Raises:
        OperatorError: there is no model to serve, one that is named is not in the library, or a setting is
            wrong.
    """
    serving = local_backends(settings) if backends is None else backends
    mailer = mailer_of(settings)
    open_entrance = entrance_maker(settings, mailer, clock)
    offered = programme.load(settings.programme_file)
    rules = challenge_rules(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = open_database(settings)
        office = open_office(settings, database, mailer, clock)
        signer, signing = open_key(settings.log_key, settings.log_origin), SigningKeyFile(settings.signing)
        await asyncio.to_thread(log_service.begin, database, str(signer.verifier), signing)
        app.state.house = house = House(
            serving,
            office.records,
            SeedPromises(database, clock),
            office.keys,
            open_entrance(office),
            office,
            Desk(database, offered, served=serving.keys(), clock=clock),
            Entitlements(database, offered, clock=clock),
            Quotas(database, clock=clock),
            Exposure(database),
            _emptied(settings.home, clock),
            LogFiles(settings.log, signer.verifier),
            signing,
            rules,
            now=clock,
        )
        await asyncio.to_thread(house.desk.open)
        await log_service.note_policy(database, offered)
        working = [
            asyncio.create_task(work)
            for work in (house.quotas.run(), _keep_time(house), _sweep(house), _meet_challenges(house))
        ]
        cosigning = open_cosigning(settings, house.log)
        house.witnesses = None if cosigning is None else cosigning.policy
        publication = Publication(database, settings.log, signer, _say_unpublished, cosigning)
        house.progress = lambda: publication.progress
        app.state.metrics.watch_log(house.progress)
        starting = asyncio.create_task(_start(database, serving, on_refusal))
        try:
            yield
        finally:
            for task in (starting, *working):
                task.cancel()
            await asyncio.gather(*(backend.stop() for backend in serving.values()))
            await house.settle()
            with suppress(StorageError):  # then other gateways give back what this one holds
                await house.quotas.close()
            await asyncio.to_thread(publication.close)
            await asyncio.to_thread(database.close)

    app = FastAPI(
        title="Transom",
        version=version("transom"),
        summary="Open access to AI models whose weights stay where they are.",
        lifespan=lifespan,
        redirect_slashes=False,
        # FastAPI's pages load their scripts from elsewhere; a server may have no elsewhere.
        docs_url=None,
        redoc_url=None,
        # It would look for a configuration at each request; what is counted here is at /metrics.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    routes.install(app, serving, metrics_public=settings.metrics_public)
    return app


def _say_unpublished(error: Exception) -> None:
    log.error("the log is not published", reason=str(error), exc_info=error)


def challenge_rules(settings: Settings) -> Rules:
    """What the operator takes on in challenges.

    Raises:
        ConfigurationError: the beacon is neither an address nor a file.
    """
    beacon = None if settings.beacon is None else open_beacon(settings.beacon)
    return Rules(beacon, settings.challenge_count, settings.challenges_a_day)


def _say_not_cosigned(witness: str, error: Exception) -> None:
    log.error("a witness does not cosign the log", witness=witness, reason=str(error))


def open_cosigning(settings: Settings, published: LogFiles) -> Cosigning | None:
    """What asks the witnesses of the log; None where there are none.

    Raises:
        ConfigurationError: the policy cannot be read, is of another log, or names no witness to ask.
    """
    if settings.log_policy is None:
        return None
    policy = read_policy(settings.log_policy)
    if policy.logs and published.key not in policy.logs:
        raise ConfigurationError(
            f"{settings.log_policy} is of other logs than this one, whose key is {published.key}"
        )
    if not any(witness.url for witness in policy.witnesses.values()):
        raise ConfigurationError(
            f"{settings.log_policy} names no witness to ask: write `witness NAME VKEY URL`, or leave "
            "TRANSOM_LOG_POLICY out."
        )
    return Cosigning(policy, published, _say_not_cosigned)


def spool_of(home: Path) -> Path:
    """The folder of what is on its way, in or out."""
    folder = home / "spool"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _emptied(home: Path, clock: Callable[[], datetime]) -> Spool:
    """The spool without what was on its way when a server ended."""
    spool = Spool(spool_of(home), clock)
    spool.clear()
    return spool


async def _sweep(house: House) -> None:
    """Delete what uploads that were cut off have left, now and every hour."""
    while True:
        try:
            swept = await asyncio.to_thread(house.office.artifacts.sweep)
            if swept:
                log.info("artifacts without a row deleted", count=swept)
        except Exception as error:  # the next hour may bring it back
            log.error("artifacts could not be swept", exc_info=error)
        await asyncio.sleep(SWEEP_SECONDS)


async def _meet_challenges(house: House) -> None:
    """Draw the day's lots, and judge the challenges that are open."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        for work in (challenges.draw, challenges.meet):
            try:
                await work(house)
            except NotFound:
                pass  # there is no checkpoint yet
            except Exception as error:  # the beacon, or the engine, may be back at the next stroke
                log.error("challenges are not met", exc_info=error)


async def _keep_time(house: House) -> None:
    """Delete results whose time is over, do what time does to the programme, and send mails that are owed."""
    desk, mailer = house.desk, house.office.mailer
    while True:
        try:
            await asyncio.to_thread(house.spool.sweep)
            done = await desk.write(clockwork.tick)
            if done:
                log.info("programme moved on by itself", done=done)
            await outbox.deliver(desk.database, mailer, addresses_of, house.now())
        except Exception as error:  # the clock goes on; what was due is due at the next stroke
            log.error("programme clock failed", exc_info=error)
        await asyncio.sleep(TICK_SECONDS)


def open_database(settings: Settings) -> Database:
    """The database, at its newest schema."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(settings.database)
    migrate(database)
    return database


def open_vault(settings: Settings, database: Database) -> Vault:
    """The vault, with the master keys of this home.

    Raises:
        ConfigurationError: the master keys are lost, or they are those of another database.
    """
    vault = Vault(master_keys(settings))
    database.read_sync(vault.check)
    return vault


def master_keys(settings: Settings) -> MasterKeySource:
    """Where the master keys are: in a setting, or in a file.

    Raises:
        ConfigurationError: the setting is malformed.
    """
    given = settings.vault_key
    return MasterKeyFile(settings.vault) if given is None else GivenMasterKeys(given.get_secret_value())


def key_store(settings: Settings, database: Database, peppers: PepperSource | None = None) -> KeyStore:
    """The keys, with the peppers of this home."""
    peppers = peppers or PepperFile(settings.peppers)
    return KeyStore(database, peppers, allow_anonymous=settings.allow_anonymous)


def open_office(
    settings: Settings, database: Database, mailer: Mailer, clock: Callable[[], datetime] = utc_now
) -> Office:
    """What the use cases around people and projects work with."""
    peppers, vault = PepperFile(settings.peppers), open_vault(settings, database)
    signing = SigningKeyFile(settings.signing)
    limits = ArtifactLimits(settings.artifact_mib << 20, settings.artifacts_mib << 20)
    return Office(
        database=database,
        records=RecordStore(database, vault, signing.at),
        artifacts=ArtifactStore(
            database, vault, Blobs(settings.artifacts), Arrivals(spool_of(settings.home), limits), clock
        ),
        keys=key_store(settings, database, peppers),
        peppers=peppers,
        mailer=Letters(mailer),
        email_of=email_of,
        grant_scopes=granted_scopes,
        now=clock,
    )


def entrance_maker(
    settings: Settings, mailer: Mailer, clock: Callable[[], datetime] = utc_now
) -> Callable[[Office], Entrance]:
    """What makes the entrance of an office once there is one; the settings are checked now.

    Raises:
        ConfigurationError: a setting is wrong, or the file of the providers.
    """
    origin, known = Origin.parse(settings.origin), providers.load(settings.providers)

    def make(office: Office) -> Entrance:
        entrance = Entrance(office.database, office.peppers, origin, mailer, known, clock=clock)
        entrance.own_data.on_export("projects", export.person)
        entrance.own_data.on_delete(members.farewell)
        return entrance

    return make


def mailer_of(settings: Settings) -> Mailer:
    """What sends mails, or keeps them in a folder.

    Raises:
        ConfigurationError: a setting is wrong, or lacks another.
    """
    if settings.smtp_url is None:
        return MailFolder(settings.mails)
    if settings.mail_from is None:
        raise ConfigurationError(
            "TRANSOM_SMTP_URL needs TRANSOM_MAIL_FROM, the address that mails come from."
        )
    return SmtpMailer(SmtpServer.parse(settings.smtp_url.get_secret_value()), settings.mail_from)


def local_backends(settings: Settings) -> dict[str, Backend]:
    """One engine for each model to serve.

    Raises:
        ConfigurationError: there is no model.
        ModelRefused: a model that is named is not in the library.
    """
    library = ModelLibrary(settings.library)
    names = settings.models or tuple(name for name, _ in library.list())
    if not names:
        raise ConfigurationError("There is no model to serve: add one with `transom model add`.")
    limits = Limits(
        max_queue=settings.max_queue,
        hang_seconds=settings.engine_hang_seconds,
        load_seconds=settings.engine_load_seconds,
    )
    return {name: LocalBackend(name, _options(settings, library.path(name)), limits) for name in names}


def _options(settings: Settings, root: Path) -> EngineOptions:
    return EngineOptions(
        root=str(root),
        dtype=settings.dtype,
        device=settings.device,
        processor=settings.processor,
        threads=settings.threads,
        cache_bytes=settings.cache_mib << 20,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        prefix_caching=settings.prefix_caching,
        max_model_len=settings.max_model_len,
        gradient_bytes=settings.gradient_mib << 20,
    )


async def _start(
    database: Database, backends: Mapping[str, Backend], on_refusal: Callable[[ModelRefused], None]
) -> None:
    for name, backend in backends.items():
        try:
            await backend.start(partial(log_service.note_deployment, database))
        except (ModelRefused, StorageError) as error:
            refusal = ModelRefused(f"{name}: {error.message}") if isinstance(error, StorageError) else error
            log.error("model refused", model=name, reason=refusal.message)
            on_refusal(refusal)
        else:
            log.info("model ready", model=name, deployment=backend.served.deployment.digest)
