# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Objects of Asterisk's SIP driver made and removed through ARI's push configuration.

They live in the memory wizard that sorcery.conf puts behind the configuration file: no file is
written, nothing is reloaded, and a restart forgets them. Runs on Python 3.6 and later.
"""

import json

from ansible.module_utils.six.moves.urllib.error import HTTPError, URLError
from ansible.module_utils.urls import open_url


class AriError(Exception):
    """What went wrong, as one sentence without its full stop."""


class Ari:
    """The REST interface at url (as in http://127.0.0.1:8088/ari), used as user with password."""

    def __init__(self, url, user, password, seconds=5):
        self.url, self.user, self.password, self.seconds = url.rstrip("/"), user, password, seconds

    def put(self, kind, name, fields):
        """Make or replace the object name of kind auth, aor or endpoint; fields is a list of (attribute, value)."""
        body = {"fields": [{"attribute": key, "value": value} for key, value in fields]}
        try:
            self._ask("PUT", kind, name, json.dumps(body))
        except HTTPError as problem:
            raise AriError(
                "the exchange answered %d to a temporary %s by ARI; sorcery.conf must name the memory wizard for it "
                "in [res_pjsip], and ari.conf must let user %s write" % (problem.code, kind, self.user)
            )

    def delete(self, kind, name):
        """Remove an object; one that is not there is as good as removed."""
        try:
            self._ask("DELETE", kind, name)
        except HTTPError as problem:
            if problem.code != 404:
                raise AriError(
                    "the exchange answered %d when %s %s was to be removed by ARI" % (problem.code, kind, name)
                )

    def _ask(self, method, kind, name, body=None):
        target = "%s/asterisk/config/dynamic/res_pjsip/%s/%s" % (self.url, kind, name)
        try:
            open_url(
                target,
                method=method,
                data=body,
                headers={"Content-Type": "application/json"},
                use_proxy=False,
                url_username=self.user,
                url_password=self.password,
                force_basic_auth=True,
                timeout=self.seconds,
            )
        except HTTPError as problem:
            if problem.code == 401:
                raise AriError("ARI refused user %s's password; run the asterisk role again" % self.user)
            raise
        except (URLError, OSError) as problem:
            raise AriError(
                "ARI at %s does not answer (%s); is asterisk.service running, and http.conf enabled?"
                % (self.url, getattr(problem, "reason", problem))
            )
