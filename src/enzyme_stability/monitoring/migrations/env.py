"""Run by Alembic: works on the connection, and within the transaction, that ``Database.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from enzyme_stability.monitoring.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
