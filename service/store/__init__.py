"""The store: a database that is the truth. `Store` is what `service.wiring` makes and the doors share."""

from service.settings import StoreSettings
from service.store.account import SqlAccount
from service.store.answers import SqlAnswers
from service.store.database import Database
from service.store.dead import SqlDeadLetters
from service.store.decisions import SqlDecisions
from service.store.events import SqlEvents
from service.store.forget import SqlForgetting
from service.store.leases import SqlLeases
from service.store.lineage import SqlLineage
from service.store.observations import SqlObservations
from service.store.promotions import SqlPromotions
from service.store.retention import SqlRetention
from service.store.runqueue import SqlQueue
from service.store.runs import SqlRuns
from service.store.scans import SqlScans


class Store:
    """One database with its ledgers."""

    def __init__(self, settings: StoreSettings) -> None:
        self.database = Database(settings)
        self.events = SqlEvents(self.database)
        self.decisions = SqlDecisions(self.database)
        self.runs = SqlRuns(self.database)
        self.queue = SqlQueue(self.database)
        self.lineage = SqlLineage(self.database)
        self.observations = SqlObservations(self.database)
        self.promotions = SqlPromotions(self.database)
        self.answers = SqlAnswers(self.database)
        self.dead = SqlDeadLetters(self.database)
        self.retention = SqlRetention(self.database)
        self.forgetting = SqlForgetting(self.database)
        self.scans = SqlScans(self.database)
        self.leases = SqlLeases(self.database)
        self.account = SqlAccount(self.database)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()
