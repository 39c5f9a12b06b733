"""Calibrations: logged before they are used, and used where another profile of the same model answered."""

from __future__ import annotations

import json

from pydantic import ValidationError
from sqlalchemy import Connection

from transom.errors import InvalidRequest
from transom.schema.calibrations import Calibration
from transom.schema.deployment import Deployment
from transom.services.house import House
from transom.storage.database import Database
from transom.tlog.documents import documents_of, find_document, log_document


def accept(database: Database, content: bytes) -> int:
    """Log a calibration; its place. Blocks.

    Raises:
        InvalidRequest: it is none, or is not spelled as one is; or its deployments are not known here, or are
            of different models.
    """
    try:
        calibration = Calibration.model_validate_json(content)
    except ValidationError as error:
        raise InvalidRequest(f"This is no calibration, as `transom calibrate` writes it: {error}") from None
    if not calibration.is_sound:
        raise InvalidRequest("This is no calibration: its numbers are none that can be measured.")
    if calibration.content != content.strip():
        raise InvalidRequest("This calibration is not spelled as `transom calibrate` writes it.")

    def write(connection: Connection) -> int:
        roots = [_root(connection, digest) for digest in (calibration.answered, calibration.judged)]
        if roots[0] != roots[1]:
            raise InvalidRequest("Both deployments of a calibration are of one model; these are of two.")
        return log_document(connection, "calibration", calibration.content)

    return database.write_sync(write)


def _root(connection: Connection, deployment: str) -> str:
    """Digest of the model root of a deployment that was served here."""
    content = find_document(connection, deployment)
    root = None if content is None else json.loads(content).get("model")
    if root is None:
        raise InvalidRequest(
            f"The deployment {deployment} was never served on this database; serve it once, so that it is "
            "logged."
        )
    return str(root)


async def between(house: House, answered: str, served: Deployment) -> Calibration | None:
    """The calibration by which the deployment that is served judges another's answers.

    The first that was logged of the two: nobody widens it later, once they know what it is to let pass.
    """

    def read(connection: Connection) -> Calibration | None:
        for _, _, content in documents_of(connection, "calibration"):
            found = Calibration.model_validate_json(content)
            if (found.answered, found.judged) == (answered, served.digest):
                return found
        return None

    return await house.office.database.read(read)
