"""moto's server, with Glue's optimistic lock.

Glue refuses an UpdateTable whose VersionId is not the table's newest, and with SkipArchive it forgets the version that
is replaced. moto ignores both: of eight racing commits it would lose seven and the tests would not notice.
"""

import sys
import threading

from moto.core.exceptions import JsonRESTError
from moto.glue.responses import GlueResponse
from moto.server import main

update_table = GlueResponse.update_table
lock = threading.Lock()


def update_table_locked(self):
    with lock:
        table = self.glue_backend.get_table(self.parameters["DatabaseName"], self.parameters["TableInput"]["Name"])
        # Versions are numbers, written as text.
        newest, wanted = max(table.versions, key=int), self.parameters.get("VersionId")
        if wanted is not None and str(wanted) != str(newest):
            raise JsonRESTError("ConcurrentModificationException", "Update table failed due to concurrent modifications.")
        answer = update_table(self)
        if self.parameters.get("SkipArchive"):
            for version in sorted(table.versions, key=int)[:-1]:
                del table.versions[version]
        return answer


GlueResponse.update_table = update_table_locked
sys.argv[0] = "moto_server"
main()
