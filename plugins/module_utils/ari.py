# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asterisk's REST interface (ARI): its resources, and objects of its SIP driver by push configuration.

What is created lives in the memory wizard that sorcery.conf names behind the configuration file, until a restart. Runs
on Python 3.6 and later.
"""

import base64
import json
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote, urlsplit

from ansible_collections.labredes.pbx.plugins.module_utils.asterisk_cli import AsteriskError


class Ari:
    """The REST interface at url (as in http://127.0.0.1:8088/ari), used as user with password."""

    def __init__(self, url, user, password, seconds=5):
        self.url, self.seconds = url, seconds
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.headers = {"Authorization": "Basic " + login, "Content-Type": "application/json"}

    def request(self, method, path, fields=None):
        """The JSON of an answer, None for 404; fields: settings of the object that a PUT creates or updates."""
        where = urlsplit(self.url)
        connection = HTTPConnection(where.hostname, where.port, timeout=self.seconds)
        body = {"fields": [{"attribute": key, "value": value} for key, value in (fields or {}).items()]}
        try:
            connection.request(method, where.path + path, json.dumps(body), self.headers)
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, HTTPException) as problem:
            raise AsteriskError(f"ARI at {self.url} does not answer ({problem}); restart asterisk.service") from None
        finally:
            connection.close()
        if answer.status == 404 and method != "PUT":
            return None
        if answer.status >= 300:
            raise AsteriskError(f"ARI answered {answer.status} to {method} of {path}; run playbook asterisk.yml again")
        return json.loads(text) if text else {}

    def object(self, method, kind, name, fields=None):
        """GET, PUT or DELETE the object name of kind auth, aor, contact, endpoint or transport: settings, or None."""
        path = f"/asterisk/config/dynamic/res_pjsip/{kind}/{quote(name, safe='')}"
        settings = self.request(method, path, fields)
        return settings and {item["attribute"]: item["value"] for item in settings}
