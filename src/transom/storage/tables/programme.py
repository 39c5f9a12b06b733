"""The programme: members, applications, grants, terms and the trail."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from transom.storage.tables.base import UtcTime, metadata
from transom.storage.tables.core import projects

members = Table(
    "members",
    metadata,
    Column("project_id", ForeignKey(projects.c.id), primary_key=True),
    # No foreign key: a person who has deleted their account stays in the history of a project, by a bare id.
    Column("person_id", String(32), primary_key=True),
    # owner, admin or member.
    Column("role", String(8), nullable=False),
    Column("joined", UtcTime, nullable=False),
    Index(None, "person_id"),
)

trail = Table(
    "trail",
    metadata,
    # Counted by the writer and not by the database, so that a missing entry leaves a gap.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    # A person's id, `operator:<user of the machine>`, or `system`.
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("project_id", String(64)),
    Column("person_id", String(32)),
    Column("reason", Text),
    # Canonical JSON; never a secret, never a prompt.
    Column("details", Text, nullable=False),
    # SHA-256 over the entry and the digest before it: an entry that is changed or taken out breaks the chain.
    Column("digest", String(71), nullable=False),
    Index(None, "project_id"),
    Index(None, "person_id"),
    UniqueConstraint("digest"),
)

applications = Table(
    "applications",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey(projects.c.id), nullable=False),
    Column("applicant", String(32), nullable=False),
    # new, renewal, supplement or appeal; and what approval does, which an appeal has from what it appeals.
    Column("kind", String(10), nullable=False),
    Column("intent", String(10), nullable=False),
    Column("state", String(13), nullable=False),
    # Goes up with each change of state or content: who acts on an older one acts on what they have not read.
    Column("version", Integer, nullable=False),
    # How many events there are.
    Column("events", Integer, nullable=False),
    Column("tier", String(32), nullable=False),
    # JSON of `schema.applications.Asked`.
    Column("asked", Text, nullable=False),
    # The grant that is asked about or was made; no foreign key, since grants refer to applications.
    Column("grant_id", String(26)),
    # Unique: nobody appeals twice.
    Column("appeal_of", ForeignKey("applications.id"), unique=True),
    Column("blind", Boolean, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("changed", UtcTime, nullable=False),
    # The first time, which statistics count from.
    Column("submitted", UtcTime),
    # What the applicant was promised on the latest submission; null where nobody waits for a decision.
    Column("decide_by", UtcTime),
    Column("decided", UtcTime),
    Column("decided_by", Text),
    # Since when it waits, because something stands against it; `decide_by` is moved when that is over.
    Column("paused", UtcTime),
    Index(None, "project_id"),
    Index(None, "state"),
)

application_events = Table(
    "application_events",
    metadata,
    Column("application_id", ForeignKey(applications.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    # As what they acted: applicant, member, reviewer, operator or system.
    Column("party", String(9), nullable=False),
    Column("action", String(12), nullable=False),
    # The state after it.
    Column("state", String(13), nullable=False),
    Column("reason", Text),
    # Canonical JSON.
    Column("details", Text, nullable=False),
)

# A grant's row never changes but for its count of changes: what it is now follows from it, its changes and
# the time.
grants = Table(
    "grants",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey(projects.c.id), nullable=False),
    Column("application_id", ForeignKey(applications.c.id), nullable=False, unique=True),
    Column("tier", String(32), nullable=False),
    # Where the tier stood in the programme: the highest of a project's grants is the one in force.
    Column("rank", Integer, nullable=False),
    # Digest of the programme under which it was given.
    Column("programme", String(71), nullable=False),
    # JSON.
    Column("scopes", Text, nullable=False),
    Column("models", Text, nullable=False),
    Column("quotas", Text, nullable=False),
    Column("holdback_percent", Integer, nullable=False),
    Column("embargo_months", Integer, nullable=False),
    Column("starts", UtcTime, nullable=False),
    Column("ends", UtcTime, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("changes", Integer, nullable=False),
    Index(None, "project_id"),
)

grant_changes = Table(
    "grant_changes",
    metadata,
    Column("grant_id", ForeignKey(grants.c.id), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    # renewal, supplement, progress or end.
    Column("kind", String(10), nullable=False),
    Column("reason", Text),
    Column("application_id", ForeignKey(applications.c.id)),
    # JSON of what a supplement adds.
    Column("quotas", Text),
    # Until when a renewal extends it.
    Column("ends", UtcTime),
)

# Mails that are owed. Written in the transaction of what they tell of, and sent afterwards.
outbox = Table(
    "outbox",
    metadata,
    # Says what the mail is about, so that it is written once however many gateways think of it.
    Column("name", String(120), primary_key=True),
    # A person's id, or `reviewers`.
    Column("recipient", String(32), nullable=False),
    Column("subject", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    # When a gateway took it to be sent; another takes it over after a while.
    Column("claimed", UtcTime),
    Column("sent", UtcTime),
    Index(None, "sent"),
)
