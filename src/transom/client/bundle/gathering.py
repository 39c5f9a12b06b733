"""All that belongs into a bundle, fetched from a server and taken from its owner's files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transom.client import operations
from transom.client.bundle.checking import TRACES
from transom.client.bundle.layout import (
    KEYS,
    KINDS,
    METADATA,
    MOST_FILES,
    POLICY,
    README,
    SCORER_NAME,
    name_of,
)
from transom.client.bundle.metadata import File, Run, describe
from transom.client.bundle.results import check_result, record_of
from transom.client.bundle.writing import look_at
from transom.client.receipts import Sends, wait_for_receipt
from transom.client.spelling import read_record
from transom.errors import InvalidRequest, NotVerified
from transom.schema.canonical import canonical_bytes
from transom.schema.record import RecordView
from transom.tlog.policies import Policy

_README = f"""\
# Records of answers of language models

Each file below `records/` is a signed record: what was asked, what was answered, by which deployment, and
when. Each below `receipts/` proves that its record is in a public log. `deployments/` tells what answered;
`plans/` and `results/`, what was read inside the models; `scorer/`, how answers were scored.
`{METADATA}` describes all of it (https://w3id.org/ro/wfrun/process/0.5).

Verify it without any server, as a zip file or unzipped:

    pip install transom
    transom verify BUNDLE --keys KEYS.json

KEYS.json are the server's keys as you know them from elsewhere: from `transom log keys`, a publication, or
people who keep them. Those in `{KEYS}` were put here by whoever made this, and prove nothing by themselves.

Records hold questions and answers in the clear, in their openings. Whoever has this can read them.
"""


@dataclass(slots=True)
class Gathered:
    """Files by the names that they will have.

    Args:
        folder: for those that are fetched.
    """

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    views: dict[str, Path] = field(default_factory=dict)
    """Of the records, by id: they are read again where they are needed."""

    def put(self, name: str, content: bytes) -> Path:
        """Keep what was fetched."""
        path = self.folder / f"{len(self.files)}"
        path.write_bytes(content)
        self.take(name, path)
        return path

    def take(self, name: str, path: Path) -> None:
        """A file that is there.

        Raises:
            InvalidRequest: another has its name.
        """
        if name in self.files:
            raise InvalidRequest(f"{name} would be in the bundle twice.", param="crate")
        self.files[name] = path


class Gatherer:
    """Fetches what belongs into a bundle.

    Args:
        client: asks the server.
        folder: for what is fetched; its owner deletes it.
        wait_s: for receipts that are not there yet, all in all.
        clock: gives seconds.
        sleep: waits some.
    """

    def __init__(
        self,
        client: Sends,
        folder: Path,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client = client
        self._until = clock() + wait_s
        self._clock = clock
        self._sleep = sleep
        self.gathered = Gathered(folder)

    def records(self, ids: Sequence[str]) -> None:
        """The records with their receipts, plans, the manifests of their deployments, and the server's keys.

        Raises:
            InvalidRequest: an id is there twice, or a record cannot be bundled; says why.
            NotFound: there is no such record, or no receipt in time.
        """
        if len(set(ids)) != len(ids):
            raise InvalidRequest("A record is named twice.", param="id")
        if len(ids) > MOST_FILES // 4:
            raise InvalidRequest(f"{MOST_FILES // 4} records are the most in one bundle.", param="id")
        for record_id in ids:
            self._record(record_id)
        self._deployments()
        keys, _ = self._client.send(operations.public_keys().with_text())
        self.gathered.put(KEYS, keys.encode())
        self.gathered.put(README, _README.encode())

    def _record(self, record_id: str) -> None:
        text, _ = self._client.send(operations.record(record_id).with_text())
        try:
            view = read_record(text)
            run = Run.of(view)
        except (NotVerified, KeyError, TypeError) as error:
            raise InvalidRequest(f"{record_id} cannot be bundled: {error}", param="id") from None
        self.gathered.views[view.id] = self.gathered.put(name_of("record", view.id), text.encode() + b"\n")
        self.gathered.runs.append(run)
        self.gathered.put(name_of("receipt", view.id), self._receipt(view.id).encode())
        if view.endpoint == TRACES and view.openings is not None:
            self.gathered.put(name_of("plan", view.id), view.openings["request"]["json"].encode())

    def _receipt(self, record_id: str) -> str:
        return wait_for_receipt(self._client, record_id, self._until, self._clock, self._sleep)

    def _deployments(self) -> None:
        served = {model.digest: model.deployment for model in self._client.send(operations.models())}
        for digest in sorted({run.deployment for run in self.gathered.runs} & served.keys()):
            self.gathered.put(name_of("deployment", digest), canonical_bytes(served[digest]))

    def without_manifest(self) -> list[str]:
        """Deployments that answered, and are no longer served: nobody tells what they were."""
        there = self.gathered.files
        return sorted(
            {
                d
                for d in (run.deployment for run in self.gathered.runs)
                if name_of("deployment", d) not in there
            }
        )

    def results(self, paths: Iterable[Path]) -> None:
        """Files of tensors, each of which must be the one that its record has the digests of.

        Raises:
            InvalidRequest: it is of none of the records, or has other tensors.
        """
        for path in paths:
            try:
                with path.open("rb") as file:
                    size = path.stat().st_size
                    record_id = record_of(file, size)
                    file.seek(0)
                    check_result(file, size, self._view(record_id))
            except (NotVerified, OSError) as error:
                raise InvalidRequest(f"{path}: {error}.", param="result") from None
            self.gathered.take(name_of("result", record_id), path)

    def _view(self, record_id: str) -> RecordView:
        if record_id not in self.gathered.views:
            raise NotVerified(f"it is of {record_id[:40]!r}, which is none of the records that are exported")
        return read_record(self.gathered.views[record_id].read_text("utf-8"))

    def policy(self, path: Path) -> None:
        """A policy (https://c2sp.org/tlog-policy) that says whom to trust.

        Raises:
            InvalidRequest: it is none.
        """
        try:
            content = path.read_bytes()
            Policy.parse(content.decode())
        except (OSError, UnicodeDecodeError, NotVerified) as error:
            raise InvalidRequest(f"{path} is no policy: {error}.", param="policy") from None
        self.gathered.put(POLICY, content)

    def scorer(self, path: Path) -> None:
        """A script that scores answers, or its lock file.

        Raises:
            InvalidRequest: it cannot be taken.
        """
        if not SCORER_NAME.fullmatch(path.name):
            raise InvalidRequest(
                f"{path.name!r} is no name of a file in a bundle: use letters, digits and ._-",
                param="scorer",
            )
        if path.stat().st_size > KINDS["scorer"].most:
            raise InvalidRequest(f"{path} is larger than {KINDS['scorer'].most} bytes.", param="scorer")
        copy = self.gathered.folder / f"scorer-{path.name}"
        shutil.copyfile(path, copy)
        self.gathered.take(name_of("scorer", path.name), copy)

    def described(self, licence: str | None) -> tuple[dict[str, Path], dict[str, File]]:
        """All files with what is said of them, the description of the whole among them."""
        seen = {name: look_at(path) for name, path in self.gathered.files.items()}
        path = self.gathered.put(METADATA, describe(seen, self.gathered.runs, licence))
        return self.gathered.files, seen | {METADATA: look_at(path)}
