# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A test for the names of menuselect's sound options."""

from __future__ import annotations

from ansible_collections.labredes.pbx.plugins.filter.asterisk_release import SOUND

DOCUMENTATION = r"""
name: sound_option
short_description: Whether an option names a set of sounds
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - True for names like C(CORE-SOUNDS-ES-WAV) and C(MOH-OPSOUND-WAV).
options:
  _input:
    description: The name of an option.
    type: string
    required: true
"""


def sound_option(option):
    """Whether menuselect's option names sounds, which have no module."""
    return bool(SOUND.match(option))


class TestModule:
    """The tests, by name."""

    def tests(self):
        """Names as used in templates."""
        return {"sound_option": sound_option}
