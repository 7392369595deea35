# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Objects of Asterisk's SIP driver created and removed through ARI's push configuration.

They live in the memory wizard that sorcery.conf names behind the configuration file: no file is written, nothing is
reloaded, and a restart removes them. Runs on Python 3.6 and later.
"""

import json

from ansible.module_utils.six.moves.urllib.error import HTTPError, URLError
from ansible.module_utils.urls import open_url


class AriError(Exception):
    """What went wrong, as one sentence without its full stop."""


class Ari:
    """The REST interface at url (as in http://127.0.0.1:8088/ari), used as user with password."""

    def __init__(self, url, user, password, seconds=5):
        self.url, self.seconds = url, seconds
        self.login = {"url_username": user, "url_password": password, "force_basic_auth": True, "use_proxy": False}

    def request(self, method, kind, name, fields=None):
        """PUT or DELETE (also if it does not exist) the object name of kind auth, aor or endpoint."""
        target = f"{self.url}/asterisk/config/dynamic/res_pjsip/{kind}/{name}"
        attributes = [{"attribute": key, "value": value} for key, value in (fields or {}).items()]
        data = json.dumps({"fields": attributes}) if fields else None
        headers = {"Content-Type": "application/json"}
        try:
            open_url(target, method=method, data=data, headers=headers, timeout=self.seconds, **self.login)
        except HTTPError as problem:
            if problem.code == 401:
                raise AriError("ARI refused its user's password; run playbook asterisk.yml again") from None
            if (method, problem.code) != ("DELETE", 404):
                raise AriError(
                    f"ARI answered {problem.code} to {method} of the temporary {kind} {name}; sorcery.conf must name "
                    "the memory wizard for it in [res_pjsip], and ari.conf must let the user write"
                ) from None
        except (URLError, OSError) as problem:
            reason = getattr(problem, "reason", problem)
            raise AriError(f"ARI at {self.url} does not answer ({reason}); is asterisk.service running?") from None
