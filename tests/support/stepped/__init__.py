"""A whole collector without sockets and threads, moved step by step on a clock of the test's.

`Stepped` builds the real `Service`. Its sockets, page and readers do not start; its database has no thread, and commits
when the test says so (`disk`); its metrics run as coroutines, so one that hangs is left standing inside its own call,
as a thread would be (`lanes`). What a kill leaves is the connection to the database, and that alone.
"""

from tests.support.stepped.collector import Stepped
from tests.support.stepped.publishers import SCHEMAS, Sender

__all__ = ["SCHEMAS", "Sender", "Stepped"]
